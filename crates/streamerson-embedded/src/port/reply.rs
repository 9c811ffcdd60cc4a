//! What clients are answered, and its form on the wire, in the version of the protocol that the client asked for.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use streamerson_core::{Message, Position};

use crate::engine::Body;

/// A version of the Redis protocol. All that differs between them is decided in [`Output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Protocol {
    /// What every client speaks, and every connection begins with.
    #[default]
    Resp2,
    /// What clients ask for with `HELLO 3`.
    Resp3,
}

impl Protocol {
    /// The protocol with this number.
    pub(super) fn of(number: i64) -> Option<Protocol> {
        match number {
            2 => Some(Protocol::Resp2),
            3 => Some(Protocol::Resp3),
            _ => None,
        }
    }

    /// Its number.
    pub(super) fn number(self) -> i64 {
        match self {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    /// A short word, such as `OK`.
    Simple(&'static str),
    /// A failure: its code in capitals, a space, the detail.
    Error(Cow<'static, str>),
    /// A number.
    Integer(i64),
    /// A number that Redis keeps as a floating one: when something is due.
    Score(u64),
    /// Bytes.
    Bulk(Bytes),
    /// Text for people.
    Verbatim(String),
    /// The id of an entry.
    Id(Position),
    /// Nothing, where bytes could be.
    Nil,
    /// Nothing, where a list could be.
    NilList,
    /// A list.
    List(Vec<Reply>),
    /// A list in no order.
    Set(Vec<Reply>),
    /// Names and values. RESP2 has no maps: there they are one list.
    Map(Vec<(Reply, Reply)>),
    /// Streams and their entries. A map too, but in RESP2 a list of pairs.
    Streams(Vec<(Reply, Reply)>),
    /// Members and their scores: one list in RESP2, a list of pairs in RESP3.
    Scores(Vec<(Reply, Reply)>),
    /// An entry of a stream: its id and its fields; nothing in their place if it is gone.
    Entry(Position, Option<Body>),
    /// The fields of an entry.
    Fields(Body),
    /// None, because nobody knows what happened: the connection ends here, which tells clients just that.
    Lost,
}

impl Reply {
    /// `OK`.
    pub(super) const OK: Reply = Reply::Simple("OK");

    /// Text as bytes.
    pub(super) fn text(text: impl Into<String>) -> Reply {
        Reply::Bulk(Bytes::from(text.into()))
    }

    /// A count.
    pub(super) fn count(count: usize) -> Reply {
        Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Names and values.
    pub(super) fn map<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
        let pair = |(name, value): (&'static str, Reply)| {
            (Reply::Bulk(Bytes::from_static(name.as_bytes())), value)
        };
        Reply::Map(pairs.into_iter().map(pair).collect())
    }
}

/// How pairs are written.
enum Pairs {
    /// As one list, of both in turn.
    Flat,
    /// As a list of lists of two.
    Nested,
    /// As a map.
    Map,
}

/// Values from here on are passed to the socket as they are; smaller ones are cheaper to copy.
const SHARED_FROM: usize = 4096;

/// Bytes on their way to a client.
#[derive(Debug, Default)]
pub(super) struct Output {
    full: VecDeque<Bytes>,
    full_bytes: usize,
    tail: BytesMut,
    cut: bool,
}

impl Output {
    /// Bytes waiting.
    pub(super) fn len(&self) -> usize {
        self.full_bytes + self.tail.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.tail.is_empty()
    }

    /// Whether the connection must end with what is here.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Adds an answer, unless one before was lost.
    pub(super) fn push(&mut self, reply: &Reply, protocol: Protocol) {
        if !self.cut {
            self.add(reply, protocol);
        }
    }

    fn add(&mut self, reply: &Reply, protocol: Protocol) {
        use Protocol::{Resp2, Resp3};
        match reply {
            Reply::Lost => self.cut = true,
            Reply::Simple(word) => self.line(b'+', word),
            Reply::Error(detail) => self.line(b'-', &single_line(detail)),
            Reply::Integer(number) => self.number(b':', *number),
            Reply::Score(number) => match protocol {
                Resp2 => self.bulk(number.to_string().as_bytes()),
                Resp3 => self.line(b',', &number.to_string()),
            },
            Reply::Bulk(bytes) => self.bulk(bytes),
            Reply::Verbatim(text) => match protocol {
                Resp2 => self.bulk(text.as_bytes()),
                Resp3 => self.verbatim(text),
            },
            Reply::Id(position) => self.id(*position),
            Reply::Nil | Reply::NilList if protocol == Resp3 => self.tail.put_slice(b"_\r\n"),
            Reply::Nil => self.tail.put_slice(b"$-1\r\n"),
            Reply::NilList => self.tail.put_slice(b"*-1\r\n"),
            Reply::List(items) => self.items(b'*', items, protocol),
            Reply::Set(items) => match protocol {
                Resp2 => self.items(b'*', items, protocol),
                Resp3 => self.items(b'~', items, protocol),
            },
            Reply::Map(pairs) => match protocol {
                Resp2 => self.pairs(Pairs::Flat, pairs, protocol),
                Resp3 => self.pairs(Pairs::Map, pairs, protocol),
            },
            Reply::Streams(pairs) => match protocol {
                Resp2 => self.pairs(Pairs::Nested, pairs, protocol),
                Resp3 => self.pairs(Pairs::Map, pairs, protocol),
            },
            Reply::Scores(pairs) => match protocol {
                Resp2 => self.pairs(Pairs::Flat, pairs, protocol),
                Resp3 => self.pairs(Pairs::Nested, pairs, protocol),
            },
            Reply::Entry(position, body) => {
                self.number(b'*', 2);
                self.id(*position);
                match body {
                    Some(body) => self.body(body),
                    None => self.add(&Reply::NilList, protocol),
                }
            }
            Reply::Fields(body) => self.body(body),
        }
    }

    fn items(&mut self, mark: u8, items: &[Reply], protocol: Protocol) {
        self.number(mark, items.len() as i64);
        for item in items {
            self.add(item, protocol);
        }
    }

    fn pairs(&mut self, form: Pairs, pairs: &[(Reply, Reply)], protocol: Protocol) {
        let count = pairs.len() as i64;
        match form {
            Pairs::Flat => self.number(b'*', 2 * count),
            Pairs::Nested => self.number(b'*', count),
            Pairs::Map => self.number(b'%', count),
        }
        for (first, second) in pairs {
            if let Pairs::Nested = form {
                self.number(b'*', 2);
            }
            self.add(first, protocol);
            self.add(second, protocol);
        }
    }

    /// What may be written next, in up to `slices.len()` pieces.
    pub(super) fn pieces<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let pieces = self.full.iter().map(|piece| &piece[..]).chain(tail);
        slices
            .iter_mut()
            .zip(pieces)
            .map(|(slice, piece)| *slice = IoSlice::new(piece))
            .count()
    }

    /// Removes what was written.
    pub(super) fn written(&mut self, mut bytes: usize) {
        while let Some(front) = self.full.front_mut() {
            let part = bytes.min(front.len());
            front.advance(part);
            bytes -= part;
            self.full_bytes -= part;
            if !front.is_empty() {
                return;
            }
            self.full.pop_front();
        }
        self.tail.advance(bytes.min(self.tail.len()));
    }

    fn body(&mut self, body: &Body) {
        let foreign = match body {
            Body::Message(message) => return self.message(message),
            Body::Foreign(foreign) => foreign,
        };
        self.number(b'*', 2 * foreign.fields.len() as i64);
        for (name, value) in &foreign.fields {
            self.bulk(name);
            self.bulk(value);
        }
    }

    fn message(&mut self, message: &Message) {
        let fields = message.fields();
        self.number(b'*', 2 * fields.len() as i64);
        for (name, value) in &fields[..fields.len() - 1] {
            self.bulk(name.as_bytes());
            self.bulk(value);
        }
        self.bulk(b"data");
        self.shared(&message.data);
    }

    fn shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_FROM {
            return self.bulk(bytes);
        }
        self.number(b'$', bytes.len() as i64);
        let head = self.tail.split().freeze();
        self.full_bytes += head.len() + bytes.len();
        self.full.extend([head, bytes.clone()]);
        self.tail.put_slice(b"\r\n");
    }

    fn bulk(&mut self, bytes: &[u8]) {
        self.number(b'$', bytes.len() as i64);
        self.tail.reserve(bytes.len() + 2);
        self.tail.put_slice(bytes);
        self.tail.put_slice(b"\r\n");
    }

    fn verbatim(&mut self, text: &str) {
        // The kind of the text counts too.
        const KIND: &str = "txt:";
        self.number(b'=', (KIND.len() + text.len()) as i64);
        self.tail.put_slice(KIND.as_bytes());
        self.tail.put_slice(text.as_bytes());
        self.tail.put_slice(b"\r\n");
    }

    fn id(&mut self, position: Position) {
        let mut text = Digits::default();
        // The longest id has 41 characters, and fits.
        let _ = write!(text, "{position}");
        self.bulk(text.as_bytes());
    }

    fn number(&mut self, mark: u8, number: i64) {
        let mut text = Digits::default();
        let _ = write!(text, "{number}");
        self.tail.put_u8(mark);
        self.tail.put_slice(text.as_bytes());
        self.tail.put_slice(b"\r\n");
    }

    fn line(&mut self, mark: u8, text: &str) {
        self.tail.put_u8(mark);
        self.tail.put_slice(text.as_bytes());
        self.tail.put_slice(b"\r\n");
    }
}

/// An error is one line: what it quotes of the client's input must not end it early.
fn single_line(detail: &str) -> Cow<'_, str> {
    if detail.bytes().any(|byte| byte == b'\r' || byte == b'\n') {
        return detail.replace(['\r', '\n'], " ").into();
    }
    detail.into()
}

/// Room for the text of a number or an id, without allocating.
struct Digits {
    bytes: [u8; 48],
    length: usize,
}

impl Default for Digits {
    fn default() -> Digits {
        Digits {
            bytes: [0; 48],
            length: 0,
        }
    }
}

impl Digits {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(output: &mut Output) -> Vec<u8> {
        let mut wire = Vec::new();
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = output.pieces(&mut slices);
            // Two thirds at a time, so that pieces are left half written.
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            let part = (bytes.len() * 2).div_ceil(3);
            wire.extend_from_slice(&bytes[..part]);
            output.written(part);
        }
        wire
    }

    #[test]
    fn every_kind_of_reply_has_its_form_in_each_version() {
        let pairs = || vec![(Reply::text("x"), Reply::Score(7))];
        let reply = Reply::List(vec![
            Reply::OK,
            Reply::Error("ERR a\r\nb".into()),
            Reply::Integer(-7),
            Reply::Score(1_700_000_000_000),
            Reply::text("x"),
            Reply::Verbatim("a\r\nb".into()),
            Reply::Id(Position::new(5, 1)),
            Reply::Nil,
            Reply::NilList,
            Reply::Set(vec![Reply::OK]),
            Reply::Map(pairs()),
            Reply::Streams(pairs()),
            Reply::Scores(pairs()),
            Reply::Entry(Position::new(5, 1), None),
        ]);
        let expected = [
            (
                Protocol::Resp2,
                "*14\r\n+OK\r\n-ERR a  b\r\n:-7\r\n$13\r\n1700000000000\r\n$1\r\nx\r\n$4\r\na\r\nb\r\n$3\r\n5-1\r\n\
                 $-1\r\n*-1\r\n*1\r\n+OK\r\n*2\r\n$1\r\nx\r\n$1\r\n7\r\n*1\r\n*2\r\n$1\r\nx\r\n$1\r\n7\r\n\
                 *2\r\n$1\r\nx\r\n$1\r\n7\r\n*2\r\n$3\r\n5-1\r\n*-1\r\n",
            ),
            (
                Protocol::Resp3,
                "*14\r\n+OK\r\n-ERR a  b\r\n:-7\r\n,1700000000000\r\n$1\r\nx\r\n=8\r\ntxt:a\r\nb\r\n$3\r\n5-1\r\n\
                 _\r\n_\r\n~1\r\n+OK\r\n%1\r\n$1\r\nx\r\n,7\r\n%1\r\n$1\r\nx\r\n,7\r\n\
                 *1\r\n*2\r\n$1\r\nx\r\n,7\r\n*2\r\n$3\r\n5-1\r\n_\r\n",
            ),
        ];
        for (protocol, expected) in expected {
            let mut output = Output::default();
            output.push(&reply, protocol);
            assert_eq!(String::from_utf8(wire(&mut output)).unwrap(), expected);
        }
    }

    #[test]
    fn nothing_follows_a_lost_answer() {
        let mut output = Output::default();
        output.push(&Reply::OK, Protocol::Resp2);
        assert!(!output.is_cut());
        output.push(&Reply::List(vec![Reply::Lost]), Protocol::Resp2);
        output.push(&Reply::OK, Protocol::Resp2);
        assert!(output.is_cut());
    }

    #[test]
    fn large_payloads_are_passed_on_and_arrive_whole() {
        let large = Bytes::from(vec![b'x'; SHARED_FROM]);
        let mut message = Message::new("k", large.clone());
        message.id = "i".into();
        let mut output = Output::default();
        let entry = Reply::Entry(
            Position::new(u64::MAX, u64::MAX),
            Some(Body::Message(message)),
        );
        output.push(&entry, Protocol::Resp2);
        output.push(&Reply::OK, Protocol::Resp2);
        assert!(
            output
                .full
                .iter()
                .any(|piece| piece.as_ptr() == large.as_ptr())
        );
        let length = output.len();
        let wire = wire(&mut output);
        assert_eq!(wire.len(), length);
        let text = String::from_utf8(wire).unwrap();
        let head = "*2\r\n$41\r\n18446744073709551615-18446744073709551615\r\n*12\r\n\
            $2\r\nid\r\n$1\r\ni\r\n$4\r\ntype\r\n$1\r\nk\r\n$4\r\ncorr\r\n$0\r\n\r\n$5\r\nreply\r\n$0\r\n\r\n\
            $4\r\nmeta\r\n$0\r\n\r\n$4\r\ndata\r\n$4096\r\n";
        assert!(text.starts_with(head), "{text}");
        assert!(text.ends_with("xxx\r\n+OK\r\n"));
    }
}
