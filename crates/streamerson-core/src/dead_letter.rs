//! Dead letters: what could not be handled, kept with the reason.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::message::Foreign;
use crate::meta::{DeadLetter, Meta};
use crate::{Append, Message, Topic};

/// The type of a dead letter that holds an entry which was not a message.
pub const FOREIGN: &str = "streamerson.foreign";

/// The dead letter of `message`: the same message, its `meta` extended with why it is dead.
pub fn letter(topic: &Topic, message: &Message, why: DeadLetter) -> Append {
    // A meta that cannot be read is replaced: the reason matters more than what nobody could read.
    let mut meta = message.parse_meta().unwrap_or_default();
    meta.dlq = Some(why);
    Append::new(topic.dead_letters(), message.clone().with_meta(&meta))
}

/// The dead letter of an entry that is not a message. Nothing of it is lost: `data` is a JSON list of its fields, each
/// `[name, value]`, as text, or as `{"base64": …}` where the bytes are not UTF-8.
pub fn foreign_letter(topic: &Topic, foreign: &Foreign, mut why: DeadLetter) -> Append {
    let fields: Vec<Value> = foreign
        .fields
        .iter()
        .map(|(name, value)| json!([text(name), text(value)]))
        .collect();
    why.code = "foreign-entry".into();
    why.reason = foreign.reason.clone();
    let meta = Meta {
        dlq: Some(why),
        ..Meta::default()
    };
    let message = Message::new(FOREIGN, Value::Array(fields).to_string()).with_meta(&meta);
    Append::new(topic.dead_letters(), message)
}

fn text(bytes: &Bytes) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": BASE64_STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_entry_is_kept_whole() {
        let field =
            |name: &'static [u8], value: &'static [u8]| (Bytes::from(name), Bytes::from(value));
        let foreign = Foreign {
            fields: vec![
                field(b"a", b"1"),
                field(b"a", b"2"),
                field(b"payload", b"\xff\x00"),
            ],
            reason: "missing field \"id\"".into(),
        };
        let topic = Topic::new("orders").unwrap();
        let letter = foreign_letter(&topic, &foreign, DeadLetter::default());
        assert_eq!(letter.topic, topic.dead_letters());
        let fields: Value = serde_json::from_slice(&letter.message.data).unwrap();
        assert_eq!(
            fields,
            json!([["a", "1"], ["a", "2"], ["payload", { "base64": "/wA=" }]])
        );
        let why = letter.message.parse_meta().unwrap().dlq.unwrap();
        assert_eq!(
            (why.code.as_str(), why.reason),
            ("foreign-entry", foreign.reason)
        );
    }
}
