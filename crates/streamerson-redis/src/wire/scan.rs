//! Finding where replies end, without building anything.

use super::Malformed;

/// The largest value Redis accepts by default, and the longest line and list worth waiting for.
const MAX_BULK: i64 = 512 * 1024 * 1024;
const MAX_LINE: usize = 64 * 1024;
const MAX_LIST: i64 = 16 * 1024 * 1024;

/// A walk over incoming bytes until a number of replies is complete. It continues where it stood when more has arrived,
/// and it does not recurse: nested lists only add to what is still to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan {
    at: usize,
    open: u64,
    wanting: usize,
}

impl Scan {
    /// Looks for the end of `replies` replies.
    pub(crate) fn of(replies: usize) -> Scan {
        Scan {
            at: 0,
            open: replies as u64,
            wanting: 0,
        }
    }

    /// The length of all replies, once they are complete.
    pub(crate) fn advance(&mut self, buffer: &[u8]) -> Result<Option<usize>, Malformed> {
        while self.open > 0 {
            let rest = buffer.get(self.at..).unwrap_or_default();
            let Some(line) = line(rest)? else {
                self.wanting = 1;
                return Ok(None);
            };
            let (end, more) = match line.first() {
                Some(b'+' | b'-' | b':') => (line.len() + 2, 0),
                Some(b'$') => (line.len() + 2 + bulk(line)?, 0),
                Some(b'*') => (line.len() + 2, count(line, MAX_LIST)?.unwrap_or(0)),
                _ => return Err(Malformed),
            };
            if rest.len() < end {
                self.wanting = end - rest.len();
                return Ok(None);
            }
            self.at += end;
            self.open = (self.open - 1).checked_add(more as u64).ok_or(Malformed)?;
        }
        Ok(Some(self.at))
    }

    /// How many more bytes are needed at least.
    pub(crate) fn wanting(&self) -> usize {
        self.wanting
    }
}

/// The first line without its end, once it is complete.
pub(super) fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end > 0 && bytes[end - 1] == b'\r' => Ok(Some(&bytes[..end - 1])),
        Some(_) => Err(Malformed),
        None if bytes.len() > MAX_LINE => Err(Malformed),
        None => Ok(None),
    }
}

/// The length that a `$` or `*` line announces; `None` for the null of either.
pub(super) fn count(line: &[u8], max: i64) -> Result<Option<usize>, Malformed> {
    match number(line.get(1..).unwrap_or_default())? {
        -1 => Ok(None),
        length if (0..=max).contains(&length) => Ok(Some(length as usize)),
        _ => Err(Malformed),
    }
}

pub(super) fn number(text: &[u8]) -> Result<i64, Malformed> {
    match text.strip_prefix(b"-") {
        Some(text) => Ok(-i64::try_from(digits(text)?).map_err(|_| Malformed)?),
        None => i64::try_from(digits(text)?).map_err(|_| Malformed),
    }
}

/// A number without a sign. By hand, because there are several in every message.
pub(crate) fn digits(text: &[u8]) -> Result<u64, Malformed> {
    if text.is_empty() {
        return Err(Malformed);
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Malformed);
        }
        let number = number.checked_mul(10).ok_or(Malformed)?;
        number.checked_add(digit.into()).ok_or(Malformed)
    })
}

/// The bytes after a `$` line.
fn bulk(line: &[u8]) -> Result<usize, Malformed> {
    Ok(count(line, MAX_BULK)?.map_or(0, |length| length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPLIES: &[u8] = b"+OK\r\n*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$0\r\n\r\n:7\r\n*-1\r\n$-1\r\n-ERR no\r\n";

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        for replies in 1..=5 {
            let whole = Scan::of(replies).advance(REPLIES).unwrap().unwrap();
            let mut scan = Scan::of(replies);
            for arrived in 0..whole {
                assert_eq!(scan.advance(&REPLIES[..arrived]).unwrap(), None);
                assert!(scan.wanting() > 0);
            }
            assert_eq!(scan.advance(REPLIES).unwrap(), Some(whole));
        }
    }

    #[test]
    fn announced_lengths_are_bounded() {
        for bytes in [
            "$99999999999\r\n",
            "*99999999999\r\n",
            "$-2\r\n",
            "*x\r\n",
            "?\r\n",
            "\r\n",
            "\n",
        ] {
            assert_eq!(
                Scan::of(1).advance(bytes.as_bytes()),
                Err(Malformed),
                "{bytes:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(end)) = Scan::of(2).advance(&bytes) {
                prop_assert!(end <= bytes.len());
            }
        }
    }
}
