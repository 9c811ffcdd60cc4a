//! Failures, named by what the caller does next.

use std::borrow::Cow;
use std::fmt;

/// What the caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call itself is wrong: change it, a repeat fails again.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// Something else changed first: reload and try again.
    Conflict,
    /// Nothing happened; the same call may succeed later.
    Unavailable,
    /// The answer did not arrive: it may have happened, or may still happen.
    Unknown,
    /// Someone else owns this now: stop, and discard the result.
    Fenced,
    /// This handle was closed: open a new one if it is still needed.
    Closed,
    /// Stored data cannot be trusted: stop and look.
    Corrupt,
    /// A defect of ours: report it.
    Internal,
}

/// A failure: its kind, a stable code, and the detail a person needs.
///
/// The code is for programs and for the help page in `docs/errors.md`; the detail names the thing and the remedy.
///
/// ```
/// use streamerson_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Unavailable, "broker-unreachable", "no connection to 127.0.0.1:6379");
/// assert_eq!(error.code(), "broker-unreachable");
/// assert_eq!(error.to_string(), "no connection to 127.0.0.1:6379 (broker-unreachable)");
/// ```
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    code: &'static str,
    detail: Cow<'static, str>,
}

/// A result whose failure is an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of `kind`, with a stable `code` from `docs/errors.md`.
    pub fn new(kind: ErrorKind, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Error {
        Error {
            kind,
            code,
            detail: detail.into(),
        }
    }

    /// The call is wrong.
    pub fn invalid(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Invalid, code, detail)
    }

    /// Nothing happened; try later.
    pub fn unavailable(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Unavailable, code, detail)
    }

    /// It may have happened.
    pub fn unknown(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Unknown, code, detail)
    }

    /// Another holder settled this delivery first.
    pub fn fenced(detail: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Fenced, "fenced", detail)
    }

    /// The handle is closed.
    pub fn closed(detail: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Closed, "closed", detail)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The detail, for people: what went wrong, with what, and the remedy.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)
    }
}

/// As [`Display`](fmt::Display): this is what a `main` that returns the error prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_that_fails_reads_like_the_message() {
        let error = Error::invalid("topic-missing", "name a topic");
        assert_eq!(format!("{error:?}"), "name a topic (topic-missing)");
    }
}
