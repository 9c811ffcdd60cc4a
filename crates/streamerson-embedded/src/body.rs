//! What an entry holds.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use streamerson_core::Message;
use streamerson_core::message::Foreign;

/// What an entry holds: a message, or the fields somebody else wrote. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// A message.
    Message(Message),
    /// Anything else, kept whole.
    Foreign(Arc<Foreign>),
}

/// What an entry takes beside its fields.
const OVERHEAD: usize = 256;

/// The bytes that an entry takes, be it there or gone.
pub(crate) fn footprint(body: Option<&Body>) -> usize {
    body.map_or(OVERHEAD, Body::footprint)
}

/// What a field of somebody else takes beside its name and value.
const FIELD: usize = 64;

impl Body {
    /// The bytes of its fields, framing aside.
    pub(crate) fn size(&self) -> usize {
        match self {
            Body::Message(message) => message.size(),
            Body::Foreign(foreign) => {
                let fields = foreign.fields.iter();
                fields.map(|(name, value)| name.len() + value.len()).sum()
            }
        }
    }

    /// The bytes that an entry takes with what stands around its fields, in memory or on the wire.
    pub(crate) fn footprint(&self) -> usize {
        let around = match self {
            Body::Message(_) => 0,
            Body::Foreign(foreign) => foreign.fields.len() * FIELD,
        };
        self.size() + around + OVERHEAD
    }

    /// The same body in memory of its own: a body may share, and so keep, the read buffer of a whole connection.
    pub(crate) fn compact(self) -> Body {
        let Body::Message(message) = self else {
            return self;
        };
        let mut buffer = BytesMut::with_capacity(message.size());
        for (_, value) in message.fields() {
            buffer.extend_from_slice(value);
        }
        let mut rest = buffer.freeze();
        let mut bytes = |field: &Bytes| rest.split_to(field.len());
        let mut text = |field: &ByteString| {
            // The bytes were text before they were copied.
            ByteString::try_from(bytes(field.as_bytes())).unwrap_or_default()
        };
        let (id, kind) = (text(&message.id), text(&message.kind));
        let (corr, reply) = (text(&message.corr), text(&message.reply));
        Body::Message(Message {
            id,
            kind,
            corr,
            reply,
            meta: bytes(&message.meta),
            data: bytes(&message.data),
        })
    }

    /// What a reader gets.
    pub(crate) fn into_message(self) -> Result<Message, Foreign> {
        match self {
            Body::Message(message) => Ok(message),
            Body::Foreign(foreign) => Err(Arc::unwrap_or_clone(foreign)),
        }
    }

    /// The fields of an entry, as a message where they are one.
    pub(crate) fn from_fields(fields: Vec<(Bytes, Bytes)>) -> Body {
        match Message::from_fields(fields) {
            Ok(message) => Body::Message(message),
            Err(foreign) => Body::Foreign(Arc::new(foreign)),
        }
    }
}

impl From<Message> for Body {
    fn from(message: Message) -> Body {
        Body::Message(message)
    }
}
