//! A message as JSON: what `tail` and `request` print, and what a program gets on its stdin. Always one line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use streamerson_core::message::Foreign;
use streamerson_core::{Entry, Message};

/// A message as a program sees it: `id`, `type`, `meta`, `payload`.
///
/// A payload that is not JSON is in `payload_base64`, beside a `payload` of `null`; an empty one is `null`.
pub(crate) struct Work<'a>(pub(crate) &'a Message);

impl Serialize for Work<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &*self.0.id)?;
        map.serialize_entry("type", &*self.0.kind)?;
        meta(&mut map, &self.0.meta)?;
        let text = one_line(&self.0.data);
        // Always there, so that programs may look at it without asking whether it is.
        map.serialize_entry("payload", &text)?;
        if text.is_none() && !self.0.data.is_empty() {
            map.serialize_entry("payload_base64", &STANDARD.encode(&self.0.data))?;
        }
        map.end()
    }
}

/// An entry of a topic with all its fields, but for the name of the inbox that it is to be answered to; one that is not a message has `foreign` (its fields) and `reason`.
pub(crate) struct Record<'a>(pub(crate) &'a Entry);

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("position", &self.0.position.to_string())?;
        match &self.0.message {
            Ok(message) => {
                map.serialize_entry("id", &*message.id)?;
                map.serialize_entry("type", &*message.kind)?;
                map.serialize_entry("corr", &*message.corr)?;
                // Who sees the name of an inbox can answer in place of the workers.
                match message.reply_to() {
                    Some(inbox) => map.serialize_entry("reply", &inbox.to_string())?,
                    None => map.serialize_entry("reply", &*message.reply)?,
                }
                meta(&mut map, &message.meta)?;
                payload(&mut map, &message.data)?;
            }
            Err(foreign) => {
                map.serialize_entry("foreign", &fields(foreign))?;
                map.serialize_entry("reason", &foreign.reason)?;
            }
        }
        map.end()
    }
}

/// A reply, as `request -o json` prints it.
pub(crate) struct Reply<'a> {
    pub(crate) message: &'a Message,
    pub(crate) status: u16,
}

impl Serialize for Reply<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &*self.message.id)?;
        map.serialize_entry("status", &self.status)?;
        meta(&mut map, &self.message.meta)?;
        payload(&mut map, &self.message.data)?;
        map.end()
    }
}

/// `json` as one line of JSON, number for number and key for key; none when it is not JSON.
pub(crate) fn one_line(json: &[u8]) -> Option<Box<RawValue>> {
    let raw: &RawValue = serde_json::from_slice(json).ok()?;
    let text = raw.get();
    if !text.contains(['\n', '\r']) {
        return Some(raw.to_owned());
    }
    // Inside a JSON string a line feed is always escaped, so each one here is white space.
    RawValue::from_string(text.replace(['\n', '\r'], " ")).ok()
}

fn meta<M: SerializeMap>(map: &mut M, meta: &Bytes) -> Result<(), M::Error> {
    if meta.is_empty() {
        return map.serialize_entry("meta", &serde_json::Map::new());
    }
    match one_line(meta) {
        Some(json) => map.serialize_entry("meta", &json),
        None => map.serialize_entry("meta_base64", &STANDARD.encode(meta)),
    }
}

fn payload<M: SerializeMap>(map: &mut M, data: &Bytes) -> Result<(), M::Error> {
    if data.is_empty() {
        return map.serialize_entry("payload", &());
    }
    match one_line(data) {
        Some(json) => map.serialize_entry("payload", &json),
        None => map.serialize_entry("payload_base64", &STANDARD.encode(data)),
    }
}

fn fields(foreign: &Foreign) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    foreign
        .fields
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::{Position, Topic};

    fn work(data: &'static [u8]) -> String {
        let mut message = Message::new("greet", data);
        message.id = "1".into();
        serde_json::to_string(&Work(&message)).unwrap()
    }

    #[test]
    fn json_passes_as_it_was_written_on_one_line() {
        assert_eq!(
            work(b"{\n  \"n\": 1.50000000000000000000001\r\n}"),
            r#"{"id":"1","type":"greet","meta":{},"payload":{   "n": 1.50000000000000000000001  }}"#
        );
    }

    #[test]
    fn what_is_not_json_passes_as_base64() {
        assert_eq!(
            work(b"\xff\n"),
            r#"{"id":"1","type":"greet","meta":{},"payload":null,"payload_base64":"/wo="}"#
        );
    }

    #[test]
    fn a_record_does_not_show_the_name_of_an_inbox() {
        let inbox = Topic::inbox("secret").unwrap();
        let entry = Entry {
            position: Position::new(1, 0),
            message: Ok(Message::new("greet", "").with_reply(&inbox)),
        };
        let shown = serde_json::to_string(&Record(&entry)).unwrap();
        assert!(shown.contains(r#""reply":"inbox.…""#), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn an_empty_payload_is_null() {
        assert!(work(b"").ends_with(r#""payload":null}"#));
    }
}
