//! What is stored under which key.
//!
//! Everything of one topic shares one hash tag: `NS:{orders}` is the stream, `NS:{orders}:dlq` its dead letters, and
//! `NS:{orders}:delay:billing` the index of what the group `billing` is to try again later. The scripts make the other
//! keys of a topic from that of its stream; `spec/README.md` lists them.

use streamerson_core::{Name, Topic};

use crate::wire::Request;

/// The keys of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    namespace: Name,
}

impl Keys {
    pub(crate) fn new(namespace: Name) -> Keys {
        Keys { namespace }
    }

    pub(crate) fn stream(&self, topic: &Topic) -> String {
        self.pieces(topic).concat()
    }

    /// Per group, because groups that share a topic retry on their own.
    pub(crate) fn delays(&self, topic: &Topic, group: &Name) -> String {
        format!("{}:delay:{group}", self.stream(topic))
    }

    /// Messages that wait for their due time.
    pub(crate) fn later(&self, topic: &Topic) -> String {
        format!("{}:later", self.stream(topic))
    }

    /// Matches the streams of this namespace, and more: see [`Keys::topic`].
    pub(crate) fn pattern(&self) -> String {
        format!("{}:{{*}}", self.namespace)
    }

    /// The topic whose stream has this key.
    pub(crate) fn topic(&self, key: &str) -> Option<Topic> {
        let name = key
            .strip_prefix(self.namespace.as_str())?
            .strip_prefix(":{")?
            .strip_suffix('}')?;
        Topic::new(name.to_owned()).ok()
    }

    /// Writes the key of `topic` as an argument.
    pub(crate) fn write(&self, request: &mut Request, topic: &Topic) {
        request.joined(&self.pieces(topic));
    }

    fn pieces<'a>(&'a self, topic: &'a Topic) -> [&'a str; 5] {
        let name = topic.as_str();
        let (base, suffix) = match name.split_once(':') {
            Some((base, _)) => (base, &name[base.len()..]),
            None => (name, ""),
        };
        [self.namespace.as_str(), ":{", base, "}", suffix]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_topic_share_a_hash_tag() {
        let keys = Keys::new(Name::new("shop").unwrap());
        let orders = Topic::new("orders").unwrap();
        let group = Name::new("billing").unwrap();
        assert_eq!(keys.stream(&orders), "shop:{orders}");
        assert_eq!(keys.stream(&orders.dead_letters()), "shop:{orders}:dlq");
        assert_eq!(keys.delays(&orders, &group), "shop:{orders}:delay:billing");
        assert_eq!(keys.topic("shop:{orders}"), Some(orders));
        assert_eq!(keys.topic("shop:{orders}:dlq"), None);
        assert_eq!(keys.topic("shops:{orders}"), None);
    }
}
