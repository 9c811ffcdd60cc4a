//! The message: six fields, always all, always in the same order.

use bytes::Bytes;
use bytestring::ByteString;
use uuid::fmt::Hyphenated;
use uuid::{NoContext, Timestamp, Uuid};

use crate::{Meta, Result, Topic};

/// The field names of an entry, in the order they are stored.
pub const FIELDS: [&str; 6] = ["id", "type", "corr", "reply", "meta", "data"];

/// The data of an answer up to this size moves next to its texts.
const SMALL: usize = 1 << 10;

/// What travels. Cloning is cheap: every field is shared.
///
/// ```
/// use streamerson_core::Message;
///
/// let request = Message::new("greet", r#"{"name":"Ada"}"#);
/// let reply = request.answer(r#"{"howdy":"there, Ada"}"#);
/// assert_eq!(reply.corr, request.id);
/// assert_eq!(reply.kind, "greet");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Unique id, a UUIDv7 as text.
    pub id: ByteString,
    /// Message type, for example `order.create`; a reply carries its request's type. Stored as `type`.
    pub kind: ByteString,
    /// On a reply: the id that the caller waits for. On a request: the id its answer must carry, when that is not its own.
    pub corr: ByteString,
    /// The inbox where answers go, or empty: no answer wanted.
    pub reply: ByteString,
    /// Everything else, a JSON object, or empty. Parsed only by who needs it: see [`Meta`].
    pub meta: Bytes,
    /// The payload, never touched on the way.
    pub data: Bytes,
}

impl Message {
    /// A message with a new id, that wants no answer.
    pub fn new(kind: impl Into<ByteString>, data: impl Into<Bytes>) -> Message {
        Message {
            id: new_id(),
            kind: kind.into(),
            corr: ByteString::new(),
            reply: ByteString::new(),
            meta: Bytes::new(),
            data: data.into(),
        }
    }

    /// The same message with `meta`.
    pub fn with_meta(mut self, meta: &Meta) -> Message {
        self.meta = meta.encode();
        self
    }

    /// The same message, to be answered to `inbox`.
    pub fn with_reply(mut self, inbox: &Topic) -> Message {
        self.reply = inbox.to_byte_string();
        self
    }

    /// The id that an answer to this message carries as its `corr`.
    pub fn correlation(&self) -> &ByteString {
        if self.corr.is_empty() {
            &self.id
        } else {
            &self.corr
        }
    }

    /// The answer to this message. Send it to [`Message::reply_to`].
    ///
    /// Its texts, and small data, share memory of their own: a copy of an answer costs no memory, and every answer is copied,
    /// for the case that it has to be sent again; and an answer that is kept does not keep its request.
    pub fn answer(&self, data: impl Into<Bytes>) -> Message {
        let (id, corr, data) = (Id::new(), self.correlation(), data.into());
        let moves = data.len() <= SMALL;
        let texts = [id.as_str(), &self.kind, corr];
        let length: usize = texts.iter().map(|text| text.len()).sum();
        let mut all = Vec::with_capacity(length + if moves { data.len() } else { 0 });
        for text in texts {
            all.extend_from_slice(text.as_bytes());
        }
        if moves {
            all.extend_from_slice(&data);
        }
        let mut rest = Bytes::from(all);
        let [id, kind, corr] =
            texts.map(|text| ByteString::try_from(rest.split_to(text.len())).unwrap_or_default());
        Message {
            id,
            kind,
            corr,
            reply: ByteString::new(),
            meta: Bytes::new(),
            data: if moves { rest } else { data },
        }
    }

    /// The next stage of a pipeline: a new message whose answer still goes to the original caller, with this message's meta.
    pub fn forward(&self, kind: impl Into<ByteString>, data: impl Into<Bytes>) -> Message {
        Message {
            id: new_id(),
            kind: kind.into(),
            corr: self.correlation().clone(),
            reply: self.reply.clone(),
            meta: self.meta.clone(),
            data: data.into(),
        }
    }

    /// Where answers go, when one is wanted. Only inboxes count: a message must not direct a worker to write anywhere else.
    pub fn reply_to(&self) -> Option<Topic> {
        if self.reply.is_empty() {
            return None;
        }
        Topic::new(self.reply.clone()).ok().filter(Topic::is_inbox)
    }

    /// The parsed `meta`.
    pub fn parse_meta(&self) -> Result<Meta> {
        Meta::decode(&self.meta)
    }

    /// The bytes this message occupies, names and framing aside.
    pub fn size(&self) -> usize {
        self.id.len()
            + self.kind.len()
            + self.corr.len()
            + self.reply.len()
            + self.meta.len()
            + self.data.len()
    }

    /// The six fields in storage order, as an entry holds them.
    pub fn fields(&self) -> [(&'static str, &[u8]); 6] {
        [
            ("id", self.id.as_bytes()),
            ("type", self.kind.as_bytes()),
            ("corr", self.corr.as_bytes()),
            ("reply", self.reply.as_bytes()),
            ("meta", &self.meta),
            ("data", &self.data),
        ]
    }

    /// Reads an entry's fields, in any order. Anything but exactly the six, as text where text is due, is [`Foreign`].
    pub fn from_fields(fields: Vec<(Bytes, Bytes)>) -> Result<Message, Foreign> {
        let mut slots: [Option<Bytes>; 6] = Default::default();
        for (name, value) in &fields {
            match FIELDS
                .iter()
                .position(|field| field.as_bytes() == &name[..])
            {
                Some(at) if slots[at].is_none() => slots[at] = Some(value.clone()),
                _ => {
                    let reason = format!("unexpected field {:?}", String::from_utf8_lossy(name));
                    return Err(Foreign { fields, reason });
                }
            }
        }
        if let Some(at) = slots.iter().position(Option::is_none) {
            let reason = format!("missing field {:?}", FIELDS[at]);
            return Err(Foreign { fields, reason });
        }
        let [id, kind, corr, reply, meta, data] = slots.map(Option::unwrap_or_default);
        let text = |value: Bytes| ByteString::try_from(value).ok();
        match (text(id), text(kind), text(corr), text(reply)) {
            (Some(id), Some(kind), Some(corr), Some(reply)) => Ok(Message {
                id,
                kind,
                corr,
                reply,
                meta,
                data,
            }),
            _ => Err(Foreign {
                fields,
                reason: "id, type, corr or reply is not UTF-8".into(),
            }),
        }
    }
}

/// An entry that someone else wrote: kept whole, with what is wrong about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Names and values, as stored.
    pub fields: Vec<(Bytes, Bytes)>,
    /// Why it is not a message.
    pub reason: String,
}

/// A new unguessable, time-ordered id.
pub fn new_id() -> ByteString {
    ByteString::from(Id::new().as_str())
}

/// The id of a message as text, in place: for who writes it next to other text. A UUIDv7, unguessable and time-ordered.
///
/// ```
/// use streamerson_core::message::Id;
///
/// let id = Id::new();
/// assert_eq!(id.as_str().len(), 36);
/// assert_ne!(id.as_str(), Id::new().as_str());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id([u8; Hyphenated::LENGTH]);

impl Id {
    /// A new unguessable, time-ordered id: a UUIDv7.
    #[expect(clippy::new_without_default, reason = "no two are equal")]
    pub fn new() -> Id {
        let mut text = [0; Hyphenated::LENGTH];
        // Without a counter that all threads share: 74 random bits tell ids of one millisecond apart.
        let id = Uuid::new_v7(Timestamp::now(NoContext));
        id.hyphenated().encode_lower(&mut text);
        Id(text)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        // It is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owned(message: &Message) -> Vec<(Bytes, Bytes)> {
        message
            .fields()
            .iter()
            .map(|(name, value)| {
                (
                    Bytes::from_static(name.as_bytes()),
                    Bytes::copy_from_slice(value),
                )
            })
            .collect()
    }

    proptest! {
        #[test]
        fn fields_round_trip(
            texts in proptest::array::uniform4(".*"),
            meta in proptest::collection::vec(any::<u8>(), 0..64),
            data in proptest::collection::vec(any::<u8>(), 0..256),
            rotation in 0usize..6,
        ) {
            let [id, kind, corr, reply] = texts.map(ByteString::from);
            let message = Message { id, kind, corr, reply, meta: meta.into(), data: data.into() };
            let mut fields = owned(&message);
            fields.rotate_left(rotation);
            prop_assert_eq!(Message::from_fields(fields), Ok(message));
        }

        #[test]
        fn arbitrary_entries_never_panic(
            fields in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..6), proptest::collection::vec(any::<u8>(), 0..16)),
                0..8,
            )
        ) {
            let fields: Vec<(Bytes, Bytes)> =
                fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            if let Err(foreign) = Message::from_fields(fields.clone()) {
                prop_assert_eq!(foreign.fields, fields);
            }
        }
    }

    #[test]
    fn a_missing_a_repeated_and_an_unknown_field_are_foreign() {
        let whole = owned(&Message::new("greet", "{}"));
        for damage in [
            whole[..5].to_vec(),
            [&whole[..], &whole[..1]].concat(),
            [
                &whole[..],
                &[(Bytes::from_static(b"x"), Bytes::from_static(b"y"))],
            ]
            .concat(),
        ] {
            assert!(Message::from_fields(damage).is_err());
        }
    }

    #[test]
    fn a_forwarded_message_is_answered_to_the_first_caller() {
        let inbox = Topic::inbox("gw1").unwrap();
        let first = Message::new("a", "1").with_reply(&inbox);
        let last = first.forward("b", "2").forward("c", "3");
        assert_eq!(last.answer("4").corr, first.id);
        assert_eq!(last.reply_to(), Some(inbox));
    }

    #[test]
    fn answers_go_to_inboxes_only() {
        let mut message = Message::new("a", "1");
        message.reply = "orders".into();
        assert_eq!(message.reply_to(), None);
    }
}
