//! Failures, in the words of Redis where it has words for them.

use std::borrow::Cow;
use std::fmt;

use streamerson_core::{Error, ErrorKind};

use super::reply::Reply;

/// Why a command failed: a code in capitals, a space, the detail. Empty if nobody knows whether it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure(Cow<'static, str>);

impl Failure {
    pub(super) const SYNTAX: Failure = Failure::of("ERR syntax error");
    pub(super) const NOT_AN_INTEGER: Failure =
        Failure::of("ERR value is not an integer or out of range");
    pub(super) const INVALID_ID: Failure =
        Failure::of("ERR Invalid stream ID specified as stream command argument");
    pub(super) const WRONG_TYPE: Failure =
        Failure::of("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// It may have happened or not. Redis has no words for that.
    pub(super) const LOST: Failure = Failure::of("");
    pub(super) const NO_KEY: Failure = Failure::of("ERR no such key");
    pub(super) const NO_AUTH: Failure = Failure::of("NOAUTH Authentication required.");
    pub(super) const NO_SCRIPT: Failure =
        Failure::of("NOSCRIPT No matching script. Please use EVAL.");

    /// A failure in these words.
    pub(super) const fn of(words: &'static str) -> Failure {
        Failure(Cow::Borrowed(words))
    }

    /// A failure without a code of its own.
    pub(super) fn err(detail: impl fmt::Display) -> Failure {
        Failure(format!("ERR {detail}").into())
    }

    /// A failure in these words, which begin with a code.
    pub(super) fn coded(words: String) -> Failure {
        Failure(words.into())
    }

    /// Too few or too many arguments.
    pub(super) fn arity(command: &str) -> Failure {
        Failure::err(format_args!(
            "wrong number of arguments for '{command}' command"
        ))
    }

    /// As an answer.
    pub(super) fn reply(self) -> Reply {
        match self {
            lost if lost == Failure::LOST => Reply::Lost,
            Failure(words) => Reply::Error(words),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Failure {
    /// Redis clients decide by the first word: what may succeed later gets those that Redis uses when it cannot write.
    fn from(error: Error) -> Failure {
        match error.kind() {
            ErrorKind::Unknown => Failure::LOST,
            ErrorKind::Unavailable if error.code() == "memory-full" => {
                Failure(format!("OOM {error}").into())
            }
            // It is this process that ends: the next one may answer.
            ErrorKind::Unavailable | ErrorKind::Closed => {
                Failure(format!("MISCONF {error}").into())
            }
            ErrorKind::Fenced => Failure(format!("FENCED {error}").into()),
            _ => Failure::err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_succeed_later_is_told_in_the_words_that_clients_know() {
        let words = |error: Error| Failure::from(error).to_string();
        let full = Error::unavailable("disk-full", "no space");
        assert_eq!(words(full), "MISCONF no space (disk-full)");
        let full = Error::unavailable("memory-full", "no memory");
        assert_eq!(words(full), "OOM no memory (memory-full)");
        let closed = Error::closed("the broker was closed");
        assert_eq!(words(closed), "MISCONF the broker was closed (closed)");
        let wrong = Error::invalid("invalid-name", "no name");
        assert_eq!(words(wrong), "ERR no name (invalid-name)");
    }

    #[test]
    fn what_nobody_knows_is_not_answered() {
        let unknown = Error::unknown("sync-failed", "the disk did not answer");
        assert_eq!(Failure::from(unknown).reply(), Reply::Lost);
    }
}
