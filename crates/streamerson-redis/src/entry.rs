//! Entries of a stream, to and from messages.

use bytes::Bytes;
use bytestring::ByteString;
use streamerson_core::broker::Entry;
use streamerson_core::message::{FIELDS, Foreign};
use streamerson_core::{Message, Position};

use crate::wire::{Item, Malformed, Request, Walk, digits};

/// What [`write`] adds per field besides the value.
const OVERHEAD: usize = 6 * 24;

/// About how many bytes of `message` are copied into a request.
pub(crate) fn copied(message: &Message) -> usize {
    let large = [&message.meta, &message.data];
    let passed_on: usize = large.into_iter().map(Request::passed_on).sum();
    message.size() - passed_on + OVERHEAD
}

/// Writes names and values of the six fields.
pub(crate) fn write(request: &mut Request, message: &Message) {
    request.verbatim(b"$2\r\nid\r\n");
    request.arg(message.id.as_bytes());
    request.verbatim(b"$4\r\ntype\r\n");
    request.arg(message.kind.as_bytes());
    request.verbatim(b"$4\r\ncorr\r\n");
    request.arg(message.corr.as_bytes());
    request.verbatim(b"$5\r\nreply\r\n");
    request.arg(message.reply.as_bytes());
    request.verbatim(b"$4\r\nmeta\r\n");
    request.payload(&message.meta);
    request.verbatim(b"$4\r\ndata\r\n");
    request.payload(&message.data);
}

/// Writes the values of the six fields.
pub(crate) fn write_values(request: &mut Request, message: &Message) {
    request.arg(message.id.as_bytes());
    request.arg(message.kind.as_bytes());
    request.arg(message.corr.as_bytes());
    request.arg(message.reply.as_bytes());
    request.payload(&message.meta);
    request.payload(&message.data);
}

/// Reads the reply of XREAD and XREADGROUP for one stream into `entries`.
pub(crate) fn read_stream(walk: &mut Walk, mut entry: impl FnMut(Entry)) -> Result<(), Malformed> {
    let streams = match walk.item()? {
        Item::Nil => return Ok(()),
        Item::List(streams) => streams,
        _ => return Err(Malformed),
    };
    for _ in 0..streams {
        if walk.list()? != 2 {
            return Err(Malformed);
        }
        walk.text()?;
        read_entries(walk, &mut entry)?;
    }
    Ok(())
}

/// Reads the reply of XRANGE into `entries`.
pub(crate) fn read_entries(walk: &mut Walk, mut entry: impl FnMut(Entry)) -> Result<(), Malformed> {
    for _ in 0..walk.list()? {
        if walk.list()? != 2 {
            return Err(Malformed);
        }
        let position = position(&walk.text()?)?;
        if let Some(message) = message(walk)? {
            entry(Entry { position, message });
        }
    }
    Ok(())
}

/// Reads the fields of an entry. `None` when its data was trimmed away.
pub(crate) fn message(walk: &mut Walk) -> Result<Option<Result<Message, Foreign>>, Malformed> {
    let fields = match walk.item()? {
        Item::Nil => return Ok(None),
        Item::List(fields) => fields,
        _ => return Err(Malformed),
    };
    // Nearly all entries are ours: the six fields in order, read without building a list of them.
    let start = walk.clone();
    if fields == 2 * FIELDS.len()
        && let Some(message) = ours(walk)
    {
        return Ok(Some(Ok(message)));
    }
    *walk = start;
    let mut named = Vec::new();
    for _ in 0..fields / 2 {
        named.push((walk.text()?, walk.text()?));
    }
    Ok(Some(Message::from_fields(named)))
}

fn ours(walk: &mut Walk) -> Option<Message> {
    let mut next = |name: &str| -> Option<Bytes> {
        if !walk.skip_text(name.as_bytes()) {
            return None;
        }
        walk.text().ok()
    };
    let text = |value: Option<Bytes>| ByteString::try_from(value?).ok();
    Some(Message {
        id: text(next("id"))?,
        kind: text(next("type"))?,
        corr: text(next("corr"))?,
        reply: text(next("reply"))?,
        meta: next("meta")?,
        data: next("data")?,
    })
}

/// Reads an entry id.
pub(crate) fn position(id: &[u8]) -> Result<Position, Malformed> {
    let dash = id.iter().position(|byte| *byte == b'-').ok_or(Malformed)?;
    let (major, minor) = id.split_at(dash);
    Ok(Position::new(digits(major)?, digits(&minor[1..])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reply of XREAD with one entry of these fields.
    fn reply(fields: &[(&[u8], &[u8])]) -> Walk {
        let mut request = Request::default();
        request.verbatim(b"*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$3\r\n5-1\r\n");
        request.head(2 * fields.len());
        for (name, value) in fields {
            request.arg(name);
            request.arg(value);
        }
        Walk::new(request.into_chunks().concat().into())
    }

    fn read(mut walk: Walk) -> Entry {
        let mut entries = Vec::new();
        read_stream(&mut walk, |entry| entries.push(entry)).unwrap();
        assert!(walk.is_at_end());
        entries.pop().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            texts in proptest::array::uniform4(".*"),
            meta in proptest::collection::vec(any::<u8>(), 0..64),
            data in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            let [id, kind, corr, reply] = texts.map(ByteString::from);
            let message = Message { id, kind, corr, reply, meta: meta.into(), data: data.into() };
            let mut request = Request::default();
            request.verbatim(b"*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$3\r\n5-1\r\n*12\r\n");
            write(&mut request, &message);
            let entry = read(Walk::new(request.into_chunks().concat().into()));
            prop_assert_eq!(entry, Entry { position: Position::new(5, 1), message: Ok(message) });
        }
    }

    #[test]
    fn ids_that_are_none_are_refused() {
        let max = format!("{0}-{0}", u64::MAX);
        assert_eq!(
            position(max.as_bytes()),
            Ok(Position::new(u64::MAX, u64::MAX))
        );
        for id in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-x",
            "1--1",
            "18446744073709551616-0",
        ] {
            assert_eq!(position(id.as_bytes()), Err(Malformed), "{id}");
        }
    }

    #[test]
    fn the_fields_may_stand_in_any_order() {
        let message = Message::new("greet", "{}");
        let mut fields = message
            .fields()
            .map(|(name, value)| (name.as_bytes(), value));
        fields.reverse();
        assert_eq!(read(reply(&fields)).message, Ok(message));
    }

    #[test]
    fn a_foreign_entry_is_kept_whole() {
        let fields: [(&[u8], &[u8]); 2] = [(b"id", b"1"), (b"\xff", b"\x00")];
        let foreign = read(reply(&fields)).message.unwrap_err();
        assert_eq!(foreign.fields.len(), 2);

        let message = Message::new("greet", "{}");
        let mut fields = message
            .fields()
            .map(|(name, value)| (name.as_bytes(), value));
        fields[0].1 = b"\xff";
        assert_eq!(read(reply(&fields)).message.unwrap_err().fields.len(), 6);
    }
}
