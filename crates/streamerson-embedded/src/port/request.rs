//! What clients send: commands as arrays of bulk strings, or inline as a person types them.
//!
//! Arguments are slices of the read buffer, not copies. Decoding continues where it stopped, so that a command that
//! arrives byte by byte costs no more than one that arrives at once; and everything a client announces is bounded
//! before anything is kept for it.

use bytes::{Buf, Bytes, BytesMut};

use super::inline;
use crate::engine::MESSAGE;

/// A command: its name, then its arguments. Never empty.
pub(super) type Request = Vec<Bytes>;

/// The longest line: an announcement, or an inline command.
const MAX_LINE: usize = 64 * 1024;
/// Announced arguments get no more room than this before they arrive.
const FIRST_ROOM: usize = 1024;

/// How much a client may send as one command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Arguments.
    pub(super) arguments: usize,
    /// Bytes of one argument.
    pub(super) argument: usize,
    /// Bytes of all arguments together.
    pub(super) request: usize,
}

impl Limits {
    /// For clients that may use the broker: the largest message fits, and so does its dead letter, with the answer to whoever
    /// waits, and a large batch of settlements.
    pub(super) const TRUSTED: Limits = Limits {
        arguments: 64 * 1024,
        argument: 2 * MESSAGE,
        request: 4 * MESSAGE,
    };
    /// For clients that have not said the password yet; as Redis bounds them.
    pub(super) const STRANGER: Limits = Limits {
        arguments: 10,
        argument: 16 * 1024,
        request: 64 * 1024,
    };
}

/// Why what a client sent is not a command; it gets this as an error, and is disconnected.
pub(super) type Malformed = String;

/// Cuts commands off the front of a read buffer.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    arguments: Vec<Bytes>,
    size: usize,
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// Before a command.
    #[default]
    Start,
    /// Before the announcement of an argument; this many are to come.
    Argument { missing: usize },
    /// Before an argument of `length`; this many are to come, it included.
    Body { missing: usize, length: usize },
}

impl Decoder {
    /// The next command of `buffer`, or `None` if it is not all there yet.
    pub(super) fn decode(
        &mut self,
        buffer: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<Request>, Malformed> {
        loop {
            match self.state {
                State::Start => match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => match line(buffer, "too big mbulk count string")? {
                        None => return Ok(None),
                        Some(header) => self.begin(&header, limits)?,
                    },
                    Some(_) => match inline::decode(buffer, MAX_LINE)? {
                        Some(request) if request.is_empty() => {}
                        inline => return Ok(inline),
                    },
                },
                State::Argument { missing: 0 } => {
                    self.state = State::Start;
                    self.size = 0;
                    return Ok(Some(std::mem::take(&mut self.arguments)));
                }
                State::Argument { missing } => match line(buffer, "too big bulk count string")? {
                    None => return Ok(None),
                    Some(header) => self.announce(&header, missing, limits)?,
                },
                State::Body { missing, length } => {
                    if buffer.len() < length + 2 {
                        return Ok(None);
                    }
                    self.arguments.push(buffer.split_to(length).freeze());
                    if !buffer.starts_with(b"\r\n") {
                        return Err("expected CRLF after bulk".into());
                    }
                    buffer.advance(2);
                    self.state = State::Argument {
                        missing: missing - 1,
                    };
                }
            }
        }
    }

    /// Whether a command has begun to arrive.
    pub(super) fn is_amidst(&self) -> bool {
        !matches!(self.state, State::Start)
    }

    /// How many bytes are missing of the argument that has begun to arrive; for the size of the read buffer.
    pub(super) fn wanted(&self, buffered: usize) -> usize {
        match self.state {
            State::Body { length, .. } => (length + 2).saturating_sub(buffered),
            _ => 0,
        }
    }

    fn begin(&mut self, header: &[u8], limits: &Limits) -> Result<(), Malformed> {
        let count = number(header).filter(|count| *count <= limits.arguments as i64);
        let Some(count) = count else {
            return Err(match limits.arguments {
                10 => "unauthenticated multibulk length".into(),
                _ => "invalid multibulk length".into(),
            });
        };
        // None or less is no command at all, and Redis ignores it too.
        if count > 0 {
            let missing = count as usize;
            self.arguments.reserve(missing.min(FIRST_ROOM));
            self.state = State::Argument { missing };
        }
        Ok(())
    }

    fn announce(
        &mut self,
        header: &[u8],
        missing: usize,
        limits: &Limits,
    ) -> Result<(), Malformed> {
        if header.first() != Some(&b'$') {
            let got = header.first().map_or('\r', |byte| *byte as char);
            return Err(format!("expected '$', got '{}'", got.escape_default()));
        }
        let length = number(header)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= limits.argument)
            .ok_or("invalid bulk length")?;
        self.size += length;
        if self.size > limits.request {
            return Err(format!("command larger than {} bytes", limits.request));
        }
        self.state = State::Body { missing, length };
        Ok(())
    }
}

/// Takes a line with its CRLF off the front, and answers it without.
fn line(buffer: &mut BytesMut, too_long: &str) -> Result<Option<BytesMut>, Malformed> {
    // An announcement is a mark and a number: more than this cannot become one.
    const LONGEST: usize = 32;
    let end = buffer.iter().take(LONGEST).position(|byte| *byte == b'\n');
    match end {
        Some(end) => {
            let mut line = buffer.split_to(end + 1);
            if !line.ends_with(b"\r\n") {
                return Err("expected CRLF".into());
            }
            line.truncate(end - 1);
            Ok(Some(line))
        }
        None if buffer.len() >= LONGEST => Err(too_long.into()),
        None => Ok(None),
    }
}

/// The number after the mark of an announcement, as strict as Redis is: no plus sign, no leading zeros, no spaces.
fn number(header: &[u8]) -> Option<i64> {
    super::arguments::integer(header.get(1..)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(arguments: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            wire.extend(format!("${}\r\n", argument.len()).bytes());
            wire.extend(argument);
            wire.extend(b"\r\n");
        }
        wire
    }

    fn decode_all(wire: &[u8], chunk: usize) -> Result<Vec<Request>, Malformed> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        let mut requests = Vec::new();
        for piece in wire.chunks(chunk.max(1)) {
            buffer.extend_from_slice(piece);
            while let Some(request) = decoder.decode(&mut buffer, &Limits::TRUSTED)? {
                requests.push(request);
            }
        }
        Ok(requests)
    }

    proptest! {
        #[test]
        fn commands_arrive_whole_however_they_are_cut(
            commands in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8), 1..6),
            chunk in 1usize..64,
        ) {
            let wire: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
            let decoded = decode_all(&wire, chunk).unwrap();
            let expected: Vec<Request> = commands
                .into_iter()
                .map(|command| command.into_iter().map(Bytes::from).collect())
                .collect();
            prop_assert_eq!(decoded, expected);
        }

        #[test]
        fn garbage_never_panics(wire in proptest::collection::vec(any::<u8>(), 0..512), chunk in 1usize..64) {
            let _ = decode_all(&wire, chunk);
        }

        #[test]
        fn nearly_right_never_panics(
            wire in "(\\*|\\$|-|[0-9]{0,4}|\r|\n|\r\n|[a-z\"' ]){0,60}",
            chunk in 1usize..16,
        ) {
            let _ = decode_all(wire.as_bytes(), chunk);
        }
    }

    #[test]
    fn what_redis_refuses_is_refused() {
        for (wire, complaint) in [
            ("*99999999999999999999\r\n", "invalid multibulk length"),
            ("*65537\r\n", "invalid multibulk length"),
            ("*+1\r\n", "invalid multibulk length"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$99999999999\r\n", "invalid bulk length"),
            ("*1\r\n$ 4\r\n", "invalid bulk length"),
            ("*1\r\n:4\r\n", "expected '$', got ':'"),
            ("*1\r\n$1\r\nabc", "expected CRLF after bulk"),
            ("*1\n", "expected CRLF"),
            (
                "*111111111111111111111111111111111111111",
                "too big mbulk count string",
            ),
        ] {
            assert_eq!(
                decode_all(wire.as_bytes(), 7),
                Err(complaint.to_string()),
                "{wire:?}"
            );
        }
    }

    #[test]
    fn strangers_are_held_short() {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::from("*11\r\n");
        let refused = decoder.decode(&mut buffer, &Limits::STRANGER);
        assert_eq!(refused, Err("unauthenticated multibulk length".into()));

        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::from("*1\r\n$16385\r\n");
        assert!(decoder.decode(&mut buffer, &Limits::STRANGER).is_err());
    }

    #[test]
    fn all_arguments_together_are_bounded() {
        let limits = Limits {
            request: 10,
            ..Limits::TRUSTED
        };
        let mut buffer = BytesMut::from("*3\r\n$6\r\nabcdef\r\n$5\r\n");
        assert!(Decoder::default().decode(&mut buffer, &limits).is_err());
    }

    #[test]
    fn empty_commands_are_passed_over() {
        let requests = decode_all(b"*0\r\n\r\n*-1\r\n  \r\nPING\r\n", 3).unwrap();
        assert_eq!(requests, [vec![Bytes::from("PING")]]);
    }
}
