//! Where a message stands in its topic.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, Result};

/// The place of a message in one topic; later messages have greater positions.
///
/// Opaque to callers: compare it, keep it, hand it back. It reads `MS-SEQ` (milliseconds since 1970, and a counter
/// within the millisecond), as Redis writes its entry ids.
///
/// ```
/// use streamerson_core::Position;
///
/// let position: Position = "1763900000000-3".parse()?;
/// assert!(position > Position::new(1763900000000, 2));
/// assert_eq!(position.to_string(), "1763900000000-3");
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    major: u64,
    minor: u64,
}

impl Position {
    /// Before every message.
    pub const ZERO: Position = Position { major: 0, minor: 0 };

    /// A position from its two numbers; for the authors of brokers.
    pub const fn new(major: u64, minor: u64) -> Position {
        Position { major, minor }
    }

    /// The first number: milliseconds since 1970 where the broker stamps time.
    pub const fn major(self) -> u64 {
        self.major
    }

    /// The second number: the counter within the first.
    pub const fn minor(self) -> u64 {
        self.minor
    }

    /// Time from then to `now_unix_ms`, where the broker stamps time; zero when the clocks disagree.
    ///
    /// ```
    /// use std::time::Duration;
    /// use streamerson_core::Position;
    ///
    /// assert_eq!(Position::new(1_000, 7).age(3_500), Duration::from_millis(2_500));
    /// assert_eq!(Position::new(1_000, 7).age(900), Duration::ZERO);
    /// ```
    pub fn age(self, now_unix_ms: u64) -> Duration {
        Duration::from_millis(now_unix_ms.saturating_sub(self.major))
    }

    /// The greatest position before this one; none before the first.
    pub const fn predecessor(self) -> Option<Position> {
        match (self.major, self.minor) {
            (0, 0) => None,
            (major, 0) => Some(Position::new(major - 1, u64::MAX)),
            (major, minor) => Some(Position::new(major, minor - 1)),
        }
    }

    /// The next position a broker may give at `now_ms`: never at or before `self`, even when the clock goes back.
    pub fn successor(self, now_ms: u64) -> Position {
        if now_ms > self.major {
            Position::new(now_ms, 0)
        } else if self.minor == u64::MAX {
            Position::new(self.major.saturating_add(1), 0)
        } else {
            Position::new(self.major, self.minor + 1)
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.major, self.minor)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Position {
    type Err = Error;

    /// Parses `MS-SEQ`, or `MS` alone as `MS-0`.
    fn from_str(text: &str) -> Result<Position> {
        let (major, minor) = text.split_once('-').unwrap_or((text, "0"));
        match (number(major), number(minor)) {
            (Some(major), Some(minor)) => Ok(Position { major, minor }),
            _ => Err(Error::invalid(
                "invalid-position",
                format!("position {text:?} is not of the form MS-SEQ, for example 1763900000000-0"),
            )),
        }
    }
}

/// Digits only: the parser of the standard library takes a sign too, which no broker writes.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Where a reader, or a new consumer group, begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the oldest message there is.
    #[default]
    Earliest,
    /// With the first message appended from now on.
    Latest,
    /// With the first message after this position.
    After(Position),
}

impl FromStr for Start {
    type Err = Error;

    /// Parses `earliest`, `latest` or a position.
    fn from_str(text: &str) -> Result<Start> {
        match text {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            position => position.parse().map(Start::After).map_err(|_| {
                Error::invalid(
                    "invalid-position",
                    format!("{position:?} is not one of earliest, latest, or a position like 1763900000000-0"),
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predecessor_is_the_greatest_position_before() {
        assert_eq!(Position::new(5, 2).predecessor(), Some(Position::new(5, 1)));
        let before = Position::new(5, 0).predecessor();
        assert_eq!(before, Some(Position::new(4, u64::MAX)));
        assert_eq!(Position::ZERO.predecessor(), None);
    }

    #[test]
    fn successor_grows_when_the_clock_goes_back() {
        let last = Position::new(100, 7);
        assert_eq!(last.successor(50), Position::new(100, 8));
        assert_eq!(last.successor(101), Position::new(101, 0));
        assert_eq!(
            Position::new(100, u64::MAX).successor(1),
            Position::new(101, 0)
        );
    }
}
