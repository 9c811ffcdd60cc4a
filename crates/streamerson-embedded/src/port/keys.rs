//! Keys: what Redis clients call our topics. `NS:{TOPIC}` is a topic's stream, `NS:{TOPIC}:dlq` that of its dead
//! letters, and either with `:delay:GROUP` the index of what a group is to try again later, or with `:later` that of what
//! waits until it is due. Other keys of the scripts have no counterpart here.

use bytestring::ByteString;
use streamerson_core::{Name, Topic};

use super::failure::Failure;
use crate::engine::GroupKey;

const DEAD_LETTERS: &str = ":dlq";
const DELAY: &str = ":delay:";
const LATER: &str = ":later";

/// Translates between keys and topics.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    namespace: Name,
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// The stream of a topic.
    Stream(Topic),
    /// What a group is to try again later, by time.
    Delay(GroupKey),
    /// What waits in a topic until it is due.
    Later(Topic),
}

impl Keys {
    /// The keys of `namespace`.
    pub(super) fn new(namespace: Name) -> Keys {
        Keys { namespace }
    }

    pub(super) fn namespace(&self) -> &Name {
        &self.namespace
    }

    /// What `key` stands for.
    pub(super) fn parse(&self, key: &[u8]) -> Result<Key, Failure> {
        let found = std::str::from_utf8(key)
            .ok()
            .and_then(|text| text.strip_prefix(self.namespace.as_str()))
            .and_then(|rest| rest.strip_prefix(":{"))
            .and_then(|rest| rest.split_once('}'));
        let Some((name, suffix)) = found else {
            return Err(self.stranger(key));
        };
        let (name, suffix) = match suffix.strip_prefix(DEAD_LETTERS) {
            Some(suffix) => (format!("{name}{DEAD_LETTERS}").into(), suffix),
            None => (ByteString::from(name), suffix),
        };
        let topic = Topic::new(name)?;
        match suffix.strip_prefix(DELAY) {
            Some(group) => Ok(Key::Delay(GroupKey {
                topic,
                group: Name::new(group.to_owned())?,
            })),
            None if suffix.is_empty() => Ok(Key::Stream(topic)),
            None if suffix == LATER => Ok(Key::Later(topic)),
            None => Err(self.stranger(key)),
        }
    }

    /// The topic whose stream is `key`.
    pub(super) fn stream(&self, key: &[u8]) -> Result<Topic, Failure> {
        match self.parse(key)? {
            Key::Stream(topic) => Ok(topic),
            Key::Delay(_) | Key::Later(_) => Err(Failure::WRONG_TYPE),
        }
    }

    /// The group whose retries are at `key`.
    pub(super) fn delay(&self, key: &[u8]) -> Result<GroupKey, Failure> {
        match self.parse(key)? {
            Key::Delay(group) => Ok(group),
            Key::Stream(_) | Key::Later(_) => Err(Failure::WRONG_TYPE),
        }
    }

    /// The key of a topic's stream.
    pub(super) fn of_stream(&self, topic: &Topic) -> String {
        let name = topic.as_str();
        match name.strip_suffix(DEAD_LETTERS) {
            Some(base) => format!("{}:{{{base}}}{DEAD_LETTERS}", self.namespace),
            None => format!("{}:{{{name}}}", self.namespace),
        }
    }

    /// The key of what waits in a topic until it is due.
    pub(super) fn of_later(&self, topic: &Topic) -> String {
        format!("{}{LATER}", self.of_stream(topic))
    }

    /// The key of a group's retries.
    pub(super) fn of_delay(&self, topic: &Topic, group: &Name) -> String {
        format!("{}{DELAY}{group}", self.of_stream(topic))
    }

    fn stranger(&self, key: &[u8]) -> Failure {
        let key: String = String::from_utf8_lossy(key).chars().take(80).collect();
        Failure::err(format!(
            "key '{key}' is not one of this broker: its keys are {namespace}:{{TOPIC}}, {namespace}:{{TOPIC}}:dlq, \
             {namespace}:{{TOPIC}}:delay:GROUP and {namespace}:{{inbox.INSTANCE}}",
            namespace = self.namespace
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(Name::new("shop").unwrap())
    }

    #[test]
    fn keys_and_topics_correspond() {
        for (key, name) in [
            ("shop:{orders}", "orders"),
            ("shop:{orders}:dlq", "orders:dlq"),
            ("shop:{inbox.a-1}", "inbox.a-1"),
        ] {
            let topic = Topic::new(name).unwrap();
            assert_eq!(keys().stream(key.as_bytes()), Ok(topic.clone()));
            assert_eq!(keys().of_stream(&topic), key);
            let group = Name::new("billing").unwrap();
            let delay = keys().of_delay(&topic, &group);
            assert_eq!(delay, format!("{key}:delay:billing"));
            let key = GroupKey { topic, group };
            assert_eq!(keys().parse(delay.as_bytes()), Ok(Key::Delay(key)));
        }
    }

    #[test]
    fn what_is_not_ours_is_named_and_refused() {
        for key in [
            "",
            "orders",
            "other:{orders}",
            "shop:orders",
            "shop:{orders",
            "shop:{orders}x",
            "shop:{orders}:dlq:dlq",
            "shop:{orders}:delay",
            "shop:{orders}:delay:",
            "shop:{orders}:delay:a:b",
            "shop:{}",
            "shop:{a b}",
            "shop2:{orders}",
        ] {
            let refused = keys().parse(key.as_bytes()).unwrap_err();
            assert!(refused.to_string().starts_with("ERR "), "{key}: {refused}");
        }
        assert!(keys().parse(b"shop:{\xff}").is_err());
    }

    #[test]
    fn retries_are_no_stream_and_streams_no_retries() {
        assert_eq!(
            keys().stream(b"shop:{orders}:delay:billing"),
            Err(Failure::WRONG_TYPE)
        );
        assert_eq!(keys().delay(b"shop:{orders}"), Err(Failure::WRONG_TYPE));
    }
}
