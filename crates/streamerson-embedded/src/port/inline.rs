//! Inline commands: a line of words, as a person types them into telnet.

use bytes::{Bytes, BytesMut};

use super::request::{Malformed, Request};

/// Takes a line off the front of `buffer` and splits it into words; `None` if the line is not all there yet.
pub(super) fn decode(buffer: &mut BytesMut, longest: usize) -> Result<Option<Request>, Malformed> {
    let end = buffer.iter().take(longest).position(|byte| *byte == b'\n');
    match end {
        Some(end) => {
            let line = buffer.split_to(end + 1);
            words(&line)
                .map(Some)
                .ok_or_else(|| "unbalanced quotes in request".into())
        }
        None if buffer.len() >= longest => Err("too big inline request".into()),
        None => Ok(None),
    }
}

/// Words are separated by space; one in quotes may hold any. `None`: a quote that does not end, or ends within a word.
fn words(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut rest = line;
    let mut words = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        rest = take_word(rest, &mut word)?;
        words.push(word.into());
    }
}

fn take_word<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    while let Some((first, after)) = rest.split_first() {
        rest = match first {
            b'"' => return word_end(take_quoted(after, word)?),
            b'\'' => return word_end(take_literal(after, word)?),
            byte if byte.is_ascii_whitespace() => return Some(rest),
            byte => {
                word.push(*byte);
                after
            }
        };
    }
    Some(rest)
}

/// After a closing quote, a word must end.
fn word_end(rest: &[u8]) -> Option<&[u8]> {
    match rest.first() {
        Some(byte) if !byte.is_ascii_whitespace() => None,
        _ => Some(rest),
    }
}

fn take_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

fn take_literal<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        letter => (letter | 0x20).wrapping_sub(b'a').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<Vec<Vec<u8>>> {
        Some(words(line.as_bytes())?.iter().map(|w| w.to_vec()).collect())
    }

    #[test]
    fn words_are_split_as_redis_splits_them() {
        let split = |line| split(line).unwrap();
        assert_eq!(split("  a bc\td \r\n"), [&b"a"[..], b"bc", b"d"]);
        assert_eq!(split(r#""a b" 'c "d"' "#), [&b"a b"[..], b"c \"d\""]);
        assert_eq!(split(r#""\x41\n\q\"" 'it\'s'"#), [&b"A\nq\""[..], b"it's"]);
        assert_eq!(split(r#""" ''"#), [&b""[..], b""]);
        assert!(split("\r\n").is_empty());
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [r#""abc"#, "'abc", r#""a"b"#, "'a'b", r#""a\"#] {
            assert_eq!(split(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_limit() {
        let mut buffer = BytesMut::from(&[b'x'; 20][..]);
        assert_eq!(decode(&mut buffer, 21), Ok(None));
        assert!(decode(&mut buffer, 20).is_err());
    }
}
