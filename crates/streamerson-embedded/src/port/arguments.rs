//! The arguments of a command, read from left to right.

use bytes::Bytes;
use bytestring::ByteString;
use streamerson_core::lease::Fence;
use streamerson_core::{Name, Position};

use super::failure::Failure;

/// What is left to read of a command's arguments.
#[derive(Debug)]
pub(super) struct Arguments {
    items: std::vec::IntoIter<Bytes>,
}

impl Arguments {
    /// `items`, from the first on.
    pub(super) fn new(items: std::vec::IntoIter<Bytes>) -> Arguments {
        Arguments { items }
    }

    /// How many are left.
    pub(super) fn left(&self) -> usize {
        self.items.len()
    }

    /// The rest, unread.
    pub(super) fn rest(&self) -> &[Bytes] {
        self.items.as_slice()
    }

    /// The next one; a syntax error if there is none.
    pub(super) fn next(&mut self) -> Result<Bytes, Failure> {
        self.items.next().ok_or(Failure::SYNTAX)
    }

    /// The next one, if there is one.
    pub(super) fn optional(&mut self) -> Option<Bytes> {
        self.items.next()
    }

    /// Takes the next one if it is `word`, in any case.
    pub(super) fn accept(&mut self, word: &str) -> bool {
        let found = self
            .rest()
            .first()
            .is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
        if found {
            self.items.next();
        }
        found
    }

    /// There must be nothing left.
    pub(super) fn end(&self) -> Result<(), Failure> {
        match self.left() {
            0 => Ok(()),
            _ => Err(Failure::SYNTAX),
        }
    }

    /// The next one as a number.
    pub(super) fn integer(&mut self) -> Result<i64, Failure> {
        integer(&self.next()?).ok_or(Failure::NOT_AN_INTEGER)
    }

    /// The next one as a number that is not negative; Redis takes a negative one for zero where it asks for a count.
    pub(super) fn count(&mut self) -> Result<usize, Failure> {
        let count = self.integer()?.max(0);
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// The next one as milliseconds; a negative one counts as zero.
    pub(super) fn millis(&mut self) -> Result<u64, Failure> {
        Ok(self.integer()?.max(0).unsigned_abs())
    }

    /// The next one as milliseconds, if it is not empty.
    pub(super) fn optional_millis(&mut self) -> Result<Option<u64>, Failure> {
        match self.rest().first() {
            Some(next) if next.is_empty() => self.next().map(|_| None),
            _ => self.millis().map(Some),
        }
    }

    /// The next two as lease and epoch under which a member may act; none if the lease is empty.
    pub(super) fn fence(&mut self) -> Result<Option<Fence>, Failure> {
        let (lease, epoch) = (self.text()?, self.text()?);
        if lease.is_empty() {
            return Ok(None);
        }
        Ok(Some(Fence {
            lease: Name::new(lease)?,
            epoch: epoch.parse().map_err(|_| Failure::NOT_AN_INTEGER)?,
        }))
    }

    /// The next one as text.
    pub(super) fn text(&mut self) -> Result<ByteString, Failure> {
        text(self.next()?)
    }

    /// The next one as the name of a group or a member.
    pub(super) fn name(&mut self) -> Result<Name, Failure> {
        Ok(Name::new(self.text()?)?)
    }

    /// The next one as the id of an entry; one without sequence number gets `sequence`.
    pub(super) fn id(&mut self, sequence: u64) -> Result<Position, Failure> {
        id(&self.next()?, sequence).ok_or(Failure::INVALID_ID)
    }
}

/// Bytes as text.
pub(super) fn text(bytes: Bytes) -> Result<ByteString, Failure> {
    ByteString::try_from(bytes)
        .map_err(|_| Failure::err("the argument is not UTF-8, and here it must be text"))
}

/// A number as strictly as Redis reads it: no plus sign, no leading zeros, no spaces.
pub(super) fn integer(digits: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(digits).ok()?;
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let strict = match unsigned.as_bytes() {
        [b'0'] => unsigned.len() == text.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    text.parse().ok().filter(|_| strict)
}

/// The id of an entry, `MS-SEQ` or `MS`.
pub(super) fn id(text: &[u8], sequence: u64) -> Option<Position> {
    let text = std::str::from_utf8(text).ok()?;
    let number = |digits: &str| {
        let clean = !digits.starts_with('+');
        digits.parse::<u64>().ok().filter(|_| clean)
    };
    match text.split_once('-') {
        Some((major, minor)) => Some(Position::new(number(major)?, number(minor)?)),
        None => Some(Position::new(number(text)?, sequence)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_strictly() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("", None),
            ("-", None),
            ("1x", None),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn ids_are_read_with_and_without_sequence() {
        assert_eq!(id(b"5-7", 9), Some(Position::new(5, 7)));
        assert_eq!(id(b"5", 9), Some(Position::new(5, 9)));
        for wrong in ["", "-", "5-", "-5", "a-1", "+1-1", "1-1-1", "1 -1"] {
            assert_eq!(id(wrong.as_bytes(), 0), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_missing_argument_is_a_syntax_error() {
        let mut arguments = Arguments::new(vec![Bytes::from("COUNT")].into_iter());
        assert!(arguments.accept("count"));
        assert_eq!(arguments.integer(), Err(Failure::SYNTAX));
        assert_eq!(arguments.end(), Ok(()));
    }
}
