//! Reading replies that are complete.

use bytes::Bytes;

use super::scan::{count, line, number};

const MAX_DEPTH: usize = 8;

/// Bytes that are not what the protocol, or the command, promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One step through a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Nil,
    Number(i64),
    Text(Bytes),
    /// What the server refused, and why.
    Error(Bytes),
    /// This many items follow.
    List(usize),
}

/// A walk through complete replies. Texts are slices of the buffer they arrived in.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    bytes: Bytes,
    at: usize,
}

impl Walk {
    pub(crate) fn new(bytes: Bytes) -> Walk {
        Walk { bytes, at: 0 }
    }

    #[cfg(test)]
    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(crate) fn item(&mut self) -> Result<Item, Malformed> {
        let from = self.at;
        let head = self.head()?;
        let value = from + 1..from + head.len();
        match head.first() {
            Some(b'+') => Ok(Item::Text(self.bytes.slice(value))),
            Some(b'-') => Ok(Item::Error(self.bytes.slice(value))),
            Some(b':') => number(&self.bytes[value]).map(Item::Number),
            Some(b'*') => {
                Ok(count(&self.bytes[from..value.end], i64::MAX)?.map_or(Item::Nil, Item::List))
            }
            Some(b'$') => match count(&self.bytes[from..value.end], i64::MAX)? {
                Some(length) => self.body(length).map(Item::Text),
                None => Ok(Item::Nil),
            },
            _ => Err(Malformed),
        }
    }

    pub(crate) fn list(&mut self) -> Result<usize, Malformed> {
        match self.item()? {
            Item::List(length) => Ok(length),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn number(&mut self) -> Result<i64, Malformed> {
        match self.item()? {
            Item::Number(number) => Ok(number),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn text(&mut self) -> Result<Bytes, Malformed> {
        match self.item()? {
            Item::Text(text) => Ok(text),
            _ => Err(Malformed),
        }
    }

    /// Steps over a text if it is `expected`.
    pub(crate) fn skip_text(&mut self, expected: &[u8]) -> bool {
        let from = self.at;
        let matches = self.head().is_ok_and(|head| {
            head.first() == Some(&b'$') && number(&head[1..]) == Ok(expected.len() as i64)
        }) && self.bytes.get(self.at..self.at + expected.len()) == Some(expected);
        self.at = if matches {
            self.at + expected.len() + 2
        } else {
            from
        };
        matches
    }

    /// A reply with all that is in it.
    pub(crate) fn reply(&mut self) -> Result<Reply, Malformed> {
        self.nested(MAX_DEPTH)
    }

    fn nested(&mut self, depth: usize) -> Result<Reply, Malformed> {
        Ok(match self.item()? {
            Item::Nil => Reply::Nil,
            Item::Number(number) => Reply::Number(number),
            Item::Text(text) => Reply::Text(text),
            Item::Error(error) => Reply::Error(error),
            Item::List(length) => {
                let depth = depth.checked_sub(1).ok_or(Malformed)?;
                let items = (0..length).map(|_| self.nested(depth));
                Reply::List(items.collect::<Result<_, _>>()?)
            }
        })
    }

    fn head(&mut self) -> Result<&[u8], Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let head = line(rest)?.ok_or(Malformed)?;
        self.at += head.len() + 2;
        Ok(head)
    }

    fn body(&mut self, length: usize) -> Result<Bytes, Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        if self.bytes.get(end..end + 2) != Some(b"\r\n") {
            return Err(Malformed);
        }
        let body = self.bytes.slice(self.at..end);
        self.at = end + 2;
        Ok(body)
    }
}

/// A reply as a tree, for what is not on the hot path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Number(i64),
    Text(Bytes),
    Error(Bytes),
    List(Vec<Reply>),
}

impl Reply {
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Reply::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    pub(crate) fn as_number(&self) -> Option<u64> {
        match self {
            Reply::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Reply]> {
        match self {
            Reply::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value of `key`, when this is a list of keys and values in turn.
    pub(crate) fn field(&self, key: &str) -> Option<&Reply> {
        let mut pairs = self.as_list()?.chunks_exact(2);
        pairs.find_map(|pair| match pair {
            [name, value] if name.as_text() == Some(key) => Some(value),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(bytes: &'static [u8]) -> Walk {
        Walk::new(Bytes::from_static(bytes))
    }

    #[test]
    fn every_kind_of_reply_is_read() {
        let mut walk = walk(b"*6\r\n+OK\r\n-ERR no\r\n:-7\r\n$2\r\na\n\r\n$-1\r\n*-1\r\n");
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(
            walk.reply(),
            Ok(Reply::List(vec![
                Reply::Text(text("OK")),
                Reply::Error(text("ERR no")),
                Reply::Number(-7),
                Reply::Text(text("a\n")),
                Reply::Nil,
                Reply::Nil,
            ]))
        );
        assert!(walk.is_at_end());
    }

    #[test]
    fn an_expected_text_is_skipped_and_any_other_is_left() {
        let mut walk = walk(b"$2\r\nid\r\n$4\r\ntype\r\n:1\r\n");
        assert!(walk.skip_text(b"id"));
        assert!(!walk.skip_text(b"corr"));
        assert!(!walk.skip_text(b"typ"));
        assert_eq!(walk.text().unwrap(), "type");
        assert!(!walk.skip_text(b"1"));
        assert_eq!(walk.number(), Ok(1));
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert_eq!(
            walk(&[b"*1\r\n".as_slice(); 9].concat().leak()[..]).reply(),
            Err(Malformed)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'$'), Just(b'*'), Just(b'1')], 0..100)
        ) {
            let bytes = Bytes::from(bytes);
            let _ = Walk::new(bytes.clone()).reply();
            let _ = Walk::new(bytes).skip_text(b"1");
        }
    }
}
