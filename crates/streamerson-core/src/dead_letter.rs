//! Dead letters: what could not be handled, kept with the reason.

use bytes::Bytes;
use serde_json::{Map, Value};

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

/// The dead letter of an entry that is not a message: its fields as a JSON object (text lossily), so that nothing is lost silently.
pub fn foreign_letter(topic: &Topic, foreign: &Foreign, mut why: DeadLetter) -> Append {
    let fields: Map<String, Value> = foreign
        .fields
        .iter()
        .map(|(name, value)| (text(name), Value::from(text(value))))
        .collect();
    why.code = "foreign-entry".into();
    why.reason = foreign.reason.clone();
    let meta = Meta {
        dlq: Some(why),
        ..Meta::default()
    };
    let message = Message::new(FOREIGN, Value::Object(fields).to_string()).with_meta(&meta);
    Append::new(topic.dead_letters(), message)
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
