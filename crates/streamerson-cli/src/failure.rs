//! What went wrong, as the user sees it: one line, one line of help, and an exit code that scripts can tell apart.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::process::ExitCode;

use streamerson_core::{Error, ErrorKind};

use crate::output::plain;

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// The exit codes, as `--help` and the documentation list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Nobody reads our output any more: not a failure.
    Quiet = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Auth = 5,
    Unreachable = 6,
    Timeout = 124,
}

impl Exit {
    /// The exit code of a reply with this HTTP status; none when it is a success.
    pub(crate) fn of_status(status: u16) -> Option<Exit> {
        match status {
            0..=399 => None,
            401 | 403 => Some(Exit::Auth),
            404 | 410 => Some(Exit::NotFound),
            409 | 412 => Some(Exit::Conflict),
            408 | 504 => Some(Exit::Timeout),
            503 => Some(Exit::Unreachable),
            _ => Some(Exit::Failed),
        }
    }
}

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    code: Cow<'static, str>,
    detail: String,
    help: Option<String>,
}

impl Failure {
    pub(crate) fn new(
        exit: Exit,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Failure {
        Failure {
            exit,
            code: code.into(),
            detail: detail.into(),
            help: None,
        }
    }

    /// The call is wrong.
    pub(crate) fn usage(code: &'static str, detail: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, code, detail)
    }

    /// The same failure, with what to do about it.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells the user, and answers what the process exits with.
    pub(crate) fn report(&self) -> ExitCode {
        if self.exit != Exit::Quiet {
            crate::output::message(&self.to_string());
        }
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first line says what; a configuration shows the place below.
        let (what, place) = match self.detail.split_once('\n') {
            Some((what, place)) => (what, Some(place)),
            None => (&*self.detail, None),
        };
        write!(f, "error: {} ({})", plain(what), plain(&self.code))?;
        for line in place.into_iter().flat_map(str::lines) {
            write!(f, "\n{}", plain(line))?;
        }
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let exit = match (error.kind(), error.code()) {
            (_, code) if code.starts_with("auth") => Exit::Auth,
            // The system's word against ours: the call is right.
            (
                _,
                "address-in-use" | "address-unusable" | "cannot-listen" | "data-directory-unusable",
            ) => Exit::Failed,
            (_, "data-directory-locked") => Exit::Conflict,
            (ErrorKind::Invalid, _) => Exit::Usage,
            (ErrorKind::NotFound, _) => Exit::NotFound,
            (ErrorKind::Conflict, _) => Exit::Conflict,
            (ErrorKind::Unknown, "no-reply-in-time") => Exit::Timeout,
            (ErrorKind::Unavailable | ErrorKind::Unknown, _) => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Failure::new(exit, error.code(), error.detail())
    }
}

impl From<io::Error> for Failure {
    /// For our own output only: what else can fail names the thing it failed at.
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new(Exit::Quiet, "closed-output", "nobody reads the output");
        }
        Failure::new(
            Exit::Failed,
            "output-failed",
            format!("cannot write to standard output: {error}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    /// Every source file below `folder`.
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => found.extend(sources(&path)),
                false => found.push(path),
            }
        }
        found
    }

    /// The codes that `source` makes failures with.
    fn codes(source: &str) -> Vec<&str> {
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let calls = [
            "Failure::new(",
            "Failure::usage(",
            "Error::new(",
            "Error::invalid(",
        ];
        let after = calls.iter().flat_map(|call| source.split(call).skip(1));
        let literal = after.filter_map(|rest| {
            let (before, rest) = rest.split_once('"')?;
            // Otherwise it is the text of something else: this code is not a literal.
            let first = before
                .chars()
                .all(|c| c.is_alphanumeric() || ":_, \n".contains(c));
            first.then(|| rest.split('"').next())?
        });
        literal.collect()
    }

    #[test]
    fn every_code_that_can_be_printed_is_explained() {
        let page = include_str!("../../../docs/errors.md");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let texts = sources(&folder).into_iter().map(std::fs::read_to_string);
        let texts: Vec<String> = texts.map(|text| text.unwrap()).collect();
        let codes: Vec<&str> = texts.iter().flat_map(|text| codes(text)).collect();
        assert!(codes.len() > 30, "they are found: {codes:?}");
        // Without a message: nobody reads it.
        let printed = codes.iter().filter(|code| **code != "closed-output");
        let missing: Vec<&str> = printed
            .copied()
            .filter(|code| !page.contains(&format!("`{code}`")))
            .collect();
        assert!(missing.is_empty(), "docs/errors.md lacks {missing:?}");
    }

    #[test]
    fn outcomes_of_a_request_have_exit_codes_of_their_own() {
        let outcomes = [200, 302, 400, 401, 404, 409, 500, 503, 504].map(Exit::of_status);
        assert_eq!(
            outcomes,
            [
                None,
                None,
                Some(Exit::Failed),
                Some(Exit::Auth),
                Some(Exit::NotFound),
                Some(Exit::Conflict),
                Some(Exit::Failed),
                Some(Exit::Unreachable),
                Some(Exit::Timeout),
            ]
        );
    }

    #[test]
    fn an_error_cannot_steer_the_terminal() {
        let failure = Failure::new(Exit::Failed, "x", "a\u{1b}[2J");
        assert_eq!(failure.to_string(), "error: a\\u{1b}[2J (x)");
    }

    #[test]
    fn a_closed_output_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit(), Exit::Quiet);
    }
}
