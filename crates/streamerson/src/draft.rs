//! A message in the making, as the builders of requests, messages and outputs share it.

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use streamerson_core::{Append, Error, Message, Meta, Result, Topic};

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const OCTETS: &str = "application/octet-stream";

/// Where a message will go and what it will hold. Keeps the first mistake, to be answered when it is sent.
#[derive(Debug)]
pub(crate) struct Draft {
    target: Result<Topic>,
    kind: ByteString,
    data: Bytes,
    pub(crate) meta: Meta,
}

impl Draft {
    pub(crate) fn new(topic: impl Into<ByteString>, kind: impl Into<ByteString>) -> Draft {
        Draft {
            target: Topic::new(topic),
            kind: kind.into(),
            data: Bytes::new(),
            meta: Meta::default(),
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

    fn fail(&mut self, error: Error) {
        if self.target.is_ok() {
            self.target = Err(error);
        }
    }

    /// A new message.
    pub(crate) fn compose(self) -> Result<Append> {
        let topic = self.target?;
        let message = Message::new(self.kind, self.data).with_meta(&self.meta);
        Ok(Append::new(topic, message))
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

    #[test]
    fn the_first_mistake_is_answered() {
        let mut draft = Draft::new("no topic", "a");
        draft.json(&std::collections::BTreeMap::from([((1, 2), 3)]));
        assert_eq!(draft.compose().unwrap_err().code(), "invalid-name");
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
}
