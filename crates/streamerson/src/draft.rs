//! A message in the making, as the builders of requests, messages and outputs share it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use streamerson_core::meta::IDEMPOTENCY_KEY;
use streamerson_core::time::millis;
use streamerson_core::{Append, Error, Message, Meta, Once, Result, Topic};

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const OCTETS: &str = "application/octet-stream";

/// The last moment of the year 9999: a message due later is a mistake in a unit.
const LATEST: u64 = 253_402_300_799_999;

/// Where a message will go and what it will hold. Keeps the first mistake, to be answered when it is sent.
#[derive(Debug)]
pub(crate) struct Draft {
    target: Result<Topic>,
    kind: ByteString,
    data: Bytes,
    pub(crate) meta: Meta,
    due: Option<Due>,
    once: Option<(String, Duration)>,
}

/// When a message is due: by the broker's clock.
#[derive(Debug, Clone, Copy)]
enum Due {
    At(u64),
    In(Duration),
}

impl Draft {
    pub(crate) fn new(topic: impl Into<ByteString>, kind: impl Into<ByteString>) -> Draft {
        Draft {
            target: Topic::new(topic),
            kind: kind.into(),
            data: Bytes::new(),
            meta: Meta::default(),
            due: None,
            once: None,
        }
    }

    pub(crate) fn json(&mut self, payload: &(impl Serialize + ?Sized)) {
        self.meta.ctype = None;
        match serde_json::to_vec(payload) {
            Ok(data) => self.data = data.into(),
            Err(error) => self.fail(Error::invalid(
                "unserializable-payload",
                format!(
                    "the payload of {} cannot be written as JSON: {error}",
                    self.kind
                ),
            )),
        }
    }

    pub(crate) fn body(&mut self, data: Bytes, content_type: &str) {
        self.data = data;
        self.meta.ctype = Some(content_type.into());
    }

    pub(crate) fn at(&mut self, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.due = Some(Due::At(millis(since)));
    }

    pub(crate) fn delay(&mut self, delay: Duration) {
        self.due = Some(Due::In(delay));
    }

    /// Tells workers the key of what is to happen once.
    pub(crate) fn idempotency_key(&mut self, key: String) {
        match Once::of_caller(&self.kind, &key, Duration::ZERO) {
            Ok(_) => self.meta.hdr.set(IDEMPOTENCY_KEY, key),
            Err(error) => self.fail(error),
        }
    }

    /// The same, and the message itself is stored once.
    pub(crate) fn store_once(&mut self, key: String, keep: Duration) {
        self.once = Some((key.clone(), keep));
        self.idempotency_key(key);
    }

    fn fail(&mut self, error: Error) {
        if self.target.is_ok() {
            self.target = Err(error);
        }
    }

    /// A new message, at a time when the broker's clock says `now`.
    pub(crate) fn compose(self, now: u64) -> Result<Append> {
        let topic = self.target?;
        let once = self
            .once
            .map(|(key, keep)| Once::of_caller(&self.kind, &key, keep))
            .transpose()?;
        let message = Message::new(self.kind, self.data).with_meta(&self.meta);
        let mut append = Append::new(topic, message);
        if let Some(due) = self.due {
            let due = match due {
                Due::At(at) => at,
                Due::In(delay) => now.saturating_add(millis(delay)),
            };
            check_due(due, self.meta.exp)?;
            append = append.due_at(due);
        }
        if let Some(once) = once {
            append = append.once(once);
        }
        Ok(append)
    }

    /// The next stage for `message`, whose answer still goes to the original caller.
    pub(crate) fn forward(self, message: &Message) -> Result<Append> {
        let topic = self.target?;
        let mut next = message.forward(self.kind, self.data);
        if !message.meta.is_empty() || self.meta != Meta::default() {
            let mut meta = message.parse_meta()?;
            meta.ctype = self.meta.ctype;
            meta.key = self.meta.key.or(meta.key);
            for (name, value) in self.meta.hdr.iter() {
                meta.hdr.append(name, value);
            }
            next = next.with_meta(&meta);
        }
        Ok(Append::new(topic, next))
    }
}

fn check_due(due: u64, deadline: Option<u64>) -> Result<()> {
    if due > LATEST {
        return Err(Error::invalid(
            "invalid-due-time",
            "a message cannot be scheduled beyond the year 9999; check the unit",
        ));
    }
    if deadline.is_some_and(|deadline| deadline <= due) {
        return Err(Error::invalid(
            "invalid-due-time",
            "the message would expire before it is due; give it a later deadline, or none",
        ));
    }
    Ok(())
}

/// The methods of a builder with a `draft` whose message may appear later.
macro_rules! schedule_methods {
    () => {
        /// Schedules the message: it appears in its topic at `time`, by the broker's clock, as long as somebody works on the
        /// topic; a time that has passed means now.
        ///
        /// Only what nobody waits for can be scheduled: there is no such method for requests and forwarded ones.
        pub fn at(mut self, time: std::time::SystemTime) -> Self {
            self.draft.at(time);
            self
        }

        /// Schedules the message for `delay` from now; see [`at`](Self::at).
        pub fn delay(mut self, delay: std::time::Duration) -> Self {
            self.draft.delay(delay);
            self
        }
    };
}
pub(crate) use schedule_methods;

/// The methods that every builder with a `draft` has.
macro_rules! payload_methods {
    () => {
        /// The payload, as JSON.
        pub fn json(mut self, payload: &(impl serde::Serialize + ?Sized)) -> Self {
            self.draft.json(payload);
            self
        }

        /// The payload, as plain text.
        pub fn text(mut self, payload: impl Into<String>) -> Self {
            self.draft.body(payload.into().into(), crate::draft::TEXT);
            self
        }

        /// The payload, as it is. Without [`content_type`](Self::content_type) it is `application/octet-stream`.
        pub fn bytes(mut self, payload: impl Into<bytes::Bytes>) -> Self {
            self.draft.body(payload.into(), crate::draft::OCTETS);
            self
        }

        /// The content type of the payload, when the method that set the payload does not say it; call it after that one.
        pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
            self.draft.meta.ctype = Some(content_type.into());
            self
        }

        /// The partition and ordering key.
        pub fn key(mut self, key: impl Into<String>) -> Self {
            self.draft.meta.key = Some(key.into());
            self
        }

        /// Adds a header, after any of the same name.
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.draft.meta.hdr.append(name, value);
            self
        }
    };
}
pub(crate) use payload_methods;

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::time::unix_ms;

    #[test]
    fn the_first_mistake_is_answered() {
        let mut draft = Draft::new("no topic", "a");
        draft.json(&std::collections::BTreeMap::from([((1, 2), 3)]));
        assert_eq!(draft.compose(unix_ms()).unwrap_err().code(), "invalid-name");
    }

    #[test]
    fn forwarding_keeps_the_deadline_and_replaces_the_content_type() {
        let meta = Meta {
            exp: Some(9),
            ctype: Some("text/plain".into()),
            ..Meta::default()
        };
        let message = Message::new("a", "text").with_meta(&meta);
        let mut draft = Draft::new("b", "b.work");
        draft.json(&1);
        let next = draft
            .forward(&message)
            .unwrap()
            .message
            .parse_meta()
            .unwrap();
        assert_eq!((next.exp, next.ctype), (Some(9), None));
    }

    fn scheduled(due: impl FnOnce(&mut Draft), deadline: Option<u64>) -> Result<Append> {
        let mut draft = Draft::new("b", "b.work");
        draft.meta.exp = deadline;
        due(&mut draft);
        draft.compose(unix_ms())
    }

    #[test]
    fn what_is_scheduled_has_a_due_time_that_makes_sense() {
        let at = |ms| move |draft: &mut Draft| draft.at(UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(scheduled(at(5), Some(6)).unwrap().due(), Some(5));
        let before_1970 = UNIX_EPOCH - Duration::from_secs(1);
        let past = scheduled(|draft| draft.at(before_1970), None);
        assert_eq!(past.unwrap().due(), Some(0));

        let expired = scheduled(at(5), Some(5)).unwrap_err();
        assert_eq!(expired.code(), "invalid-due-time");
        let never = scheduled(|draft| draft.delay(Duration::MAX), None).unwrap_err();
        assert_eq!(never.code(), "invalid-due-time");
    }

    #[test]
    fn an_idempotency_key_travels_and_stores_once() {
        use streamerson_core::partition;

        let keep = Duration::from_secs(60);
        let mut draft = Draft::new("b", "b.work");
        draft.store_once("k".into(), keep);
        let append = draft.compose(unix_ms()).unwrap();
        let meta = append.message.parse_meta().unwrap();
        assert_eq!(meta.hdr.get("idempotency-key"), Some("k"));
        assert_eq!(
            append.only_once(),
            Some(&Once::of_caller("b.work", "k", keep).unwrap())
        );

        let mut draft = Draft::new("b", "b.work");
        draft.meta.hdr.append("Idempotency-Key", "a header's");
        draft.store_once("first".into(), keep);
        draft.store_once("last".into(), keep);
        let append = draft.compose(unix_ms()).unwrap();
        let meta = append.message.parse_meta().unwrap();
        assert_eq!(
            meta.hdr.iter().collect::<Vec<_>>(),
            [("idempotency-key", "last")]
        );
        let stored = append.only_once().map(|once| once.key.clone());
        assert_eq!(
            Some(partition::key(&append.message)),
            stored,
            "one key, for all"
        );

        for key in [String::new(), "k".repeat(1000)] {
            let mut draft = Draft::new("b", "b.work");
            draft.idempotency_key(key);
            assert_eq!(
                draft.compose(unix_ms()).unwrap_err().code(),
                "invalid-idempotency-key"
            );
        }
    }
}
