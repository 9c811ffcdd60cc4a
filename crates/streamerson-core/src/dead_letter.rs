//! Dead letters: what could not be handled, kept with the reason; and the way back.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Value, json};

use crate::message::Foreign;
use crate::meta::{DeadLetter, Meta};
use crate::{Append, Error, Message, Name, Receipt, Result, Topic};

/// The type of a dead letter that holds an entry which was not a message.
pub const FOREIGN: &str = "streamerson.foreign";

/// The longest reason, in bytes: an error text must not make a letter too large to be stored.
pub const LONGEST_REASON: usize = 2048;

/// How many times as large as any other message a dead letter may be. It holds the message and the reason, and where
/// bytes are no text they grow by a third: so whatever could be appended can become a dead letter.
const ROOM: usize = 2;

/// The bound of a message to `topic`, where that of other messages is `limit`.
pub fn largest(topic: &Topic, limit: usize) -> usize {
    match topic.is_dead_letters() {
        true => ROOM.saturating_mul(limit),
        false => limit,
    }
}

impl DeadLetter {
    /// Given up by `member` of `group`, which held it by `receipt`, `at` this time, in milliseconds since 1970. Code and
    /// reason are still to be set.
    pub fn new(topic: &Topic, group: &Name, member: &Name, receipt: &Receipt, at: u64) -> Self {
        DeadLetter {
            topic: topic.as_str().to_owned(),
            group: group.to_string(),
            member: member.to_string(),
            position: receipt.position().to_string(),
            attempts: receipt.attempt(),
            first: receipt.position().major(),
            at,
            ..DeadLetter::default()
        }
    }
}

/// The dead letter of `message`: the same message, its `meta` extended with why it is dead.
pub fn letter(topic: &Topic, message: &Message, mut why: DeadLetter) -> Append {
    why.reason = shortened(why.reason);
    let mut meta = message.parse_meta().unwrap_or_else(|_| {
        why.meta = Some(BASE64_STANDARD.encode(&message.meta));
        Meta::default()
    });
    meta.dlq = Some(why);
    Append::new(topic.dead_letters(), message.clone().with_meta(&meta))
}

/// The dead letter of an entry that is not a message. Nothing of it is lost: `data` is a JSON list of its fields, each
/// `[name, value]`, as text, or as `{"base64": …}` where the bytes are not UTF-8, or so many need an escape that this is shorter.
pub fn foreign_letter(topic: &Topic, foreign: &Foreign, mut why: DeadLetter) -> Append {
    let fields: Vec<Value> = foreign
        .fields
        .iter()
        .map(|(name, value)| json!([text(name), text(value)]))
        .collect();
    why.code = "foreign-entry".into();
    why.reason = shortened(foreign.reason.clone());
    let meta = Meta {
        dlq: Some(why),
        ..Meta::default()
    };
    let message = Message::new(FOREIGN, Value::Array(fields).to_string()).with_meta(&meta);
    Append::new(topic.dead_letters(), message)
}

/// The message that `letter` holds, to the topic it came from: what retries it.
///
/// It is the message that was given up, with the same id. Its deadline has passed and nobody waits for its answer any more, so it has
/// neither: it would otherwise be dropped unseen, or answered to nobody instead of coming back as a dead letter.
///
/// Fails for what is no dead letter (`not-a-dead-letter`), what holds an entry that was not a message
/// (`foreign-dead-letter`), and what does not name a topic that takes messages (`invalid-name`, `topic-reserved`).
///
/// ```
/// use streamerson_core::meta::DeadLetter;
/// use streamerson_core::{Message, Topic, dead_letter};
///
/// let (orders, message) = (Topic::new("orders")?, Message::new("order.create", "{}"));
/// let why = DeadLetter { topic: orders.to_string(), ..DeadLetter::default() };
/// let letter = dead_letter::letter(&orders, &message, why).message;
/// let again = dead_letter::original(&letter)?;
/// assert_eq!((again.topic, again.message), (orders, message));
/// # Ok::<(), streamerson_core::Error>(())
/// ```
pub fn original(letter: &Message) -> Result<Append> {
    let mut meta = letter.parse_meta()?;
    let Some(why) = meta.dlq.take() else {
        return Err(Error::invalid(
            "not-a-dead-letter",
            format!(
                "message {} does not say why it is a dead letter, nor where it came from",
                letter.id
            ),
        ));
    };
    if letter.kind == FOREIGN {
        return Err(Error::invalid(
            "foreign-dead-letter",
            "the entry was not a message, so that no handler could take it; write it anew as a message",
        ));
    }
    let topic = Topic::new(why.topic)?;
    if topic.is_dead_letters() || topic.is_inbox() {
        return Err(Error::invalid(
            "topic-reserved",
            format!("the dead letter says that it came from {topic}, which takes no messages"),
        ));
    }
    let mut message = letter.clone();
    message.reply = ByteString::new();
    message.meta = match why.meta {
        // Nobody could read it, and whoever retries the message may know why.
        Some(unread) => BASE64_STANDARD
            .decode(unread)
            .map_err(|_| {
                Error::invalid(
                    "not-a-dead-letter",
                    format!("message {} keeps a meta that is not base64", letter.id),
                )
            })?
            .into(),
        None => {
            meta.exp = None;
            meta.encode()
        }
    };
    Ok(Append::new(topic, message))
}

fn shortened(mut reason: String) -> String {
    if reason.len() > LONGEST_REASON {
        let mut end = LONGEST_REASON - '…'.len_utf8();
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        reason.push('…');
    }
    reason
}

fn text(bytes: &Bytes) -> Value {
    // A control character takes six bytes in JSON.
    let added: usize = bytes
        .iter()
        .map(|byte| match byte {
            0..0x20 | 0x7f => 5,
            b'"' | b'\\' => 1,
            _ => 0,
        })
        .sum();
    match std::str::from_utf8(bytes) {
        Ok(text) if added <= bytes.len() / 3 => Value::from(text),
        _ => json!({ "base64": BASE64_STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;

    fn orders() -> Topic {
        Topic::new("orders").unwrap()
    }

    fn from(topic: &str) -> DeadLetter {
        DeadLetter {
            topic: topic.into(),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn a_retried_letter_is_the_message_without_its_deadline_and_caller() {
        let meta = Meta {
            key: Some("7".into()),
            exp: Some(1),
            ..Meta::default()
        };
        let message = Message::new("order.create", "{}")
            .with_meta(&meta)
            .with_reply(&Topic::inbox("me").unwrap());
        let letter = letter(&orders(), &message, from("orders")).message;
        let again = original(&letter).unwrap();
        assert_eq!(again.topic, orders());
        assert_eq!(again.message.id, message.id);
        assert_eq!(
            (&again.message.meta[..], again.message.reply.len()),
            (&br#"{"key":"7"}"#[..], 0)
        );
    }

    #[test]
    fn what_holds_no_message_for_a_topic_cannot_be_retried() {
        let refused = |letter: &Message| original(letter).unwrap_err().code();
        let message = Message::new("a", "");
        assert_eq!(refused(&message), "not-a-dead-letter");
        for (topic, code) in [
            ("orders:dlq", "topic-reserved"),
            ("inbox.me", "topic-reserved"),
            ("", "invalid-name"),
        ] {
            let letter = letter(&orders(), &message, from(topic)).message;
            assert_eq!(refused(&letter), code, "{topic}");
        }
        let foreign = Foreign {
            fields: Vec::new(),
            reason: String::new(),
        };
        let letter = foreign_letter(&orders(), &foreign, from("orders")).message;
        assert_eq!(refused(&letter), "foreign-dead-letter");
    }

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

    #[test]
    fn there_is_room_for_the_letter_of_whatever_could_be_appended() {
        const LIMIT: usize = 1 << 16;
        let limit = |topic: &Topic| largest(topic, LIMIT);
        assert_eq!(limit(&orders()), LIMIT);
        let mut why = why();
        why.reason = "\u{1}".repeat(LONGEST_REASON);
        let mut unread = Message::new("a", "");
        unread.meta = vec![0xff; LIMIT - unread.size()].into();
        let letters = [0u8, b'"', b'x', 0xff].map(|byte| {
            let fields = vec![(Bytes::from("a"), Bytes::from(vec![byte; LIMIT - 1]))];
            let reason = why.reason.clone();
            foreign_letter(&orders(), &Foreign { fields, reason }, why.clone())
        });
        for letter in letters
            .into_iter()
            .chain([letter(&orders(), &unread, why.clone())])
        {
            let size = letter.message.size();
            assert!(size <= limit(&letter.topic), "{size}");
        }
    }

    fn why() -> DeadLetter {
        let name = |name: &'static str| Name::new(name).unwrap();
        let receipt = Receipt::new(Position::new(1000, 7), 5);
        let topic = Topic::new("orders").unwrap();
        DeadLetter::new(&topic, &name("billing"), &name("ada"), &receipt, 9000)
    }

    #[test]
    fn a_letter_says_where_how_often_and_when() {
        let why = why();
        assert_eq!(
            (
                &why.topic[..],
                &why.group[..],
                &why.member[..],
                &why.position[..]
            ),
            ("orders", "billing", "ada", "1000-7")
        );
        assert_eq!((why.attempts, why.first, why.at), (5, 1000, 9000));
    }

    #[test]
    fn a_meta_that_nobody_could_read_comes_back_as_it_was() {
        for unread in [&b"nonsense"[..], b"\xff{", b"[1]"] {
            let mut sent = Message::new("a", "data");
            sent.meta = Bytes::from_static(unread);
            let letter = letter(&Topic::new("orders").unwrap(), &sent, why());
            assert_eq!(original(&letter.message).unwrap().message, sent);
        }
    }

    #[test]
    fn an_endless_error_text_is_cut_between_letters() {
        let mut why = why();
        why.reason = "ä".repeat(100_000);
        let letter = letter(&Topic::new("a").unwrap(), &Message::new("a", ""), why);
        let reason = letter.message.parse_meta().unwrap().dlq.unwrap().reason;
        assert!(
            reason.len() <= LONGEST_REASON && reason.ends_with("ä…"),
            "{reason}"
        );
    }
}
