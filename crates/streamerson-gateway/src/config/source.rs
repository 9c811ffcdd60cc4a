//! Where a configured value comes from, and how a mistake in it is shown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;

use streamerson_core::Error;

/// The variables of an environment that is given, not ambient.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// No variables.
    pub fn empty() -> Environment {
        Environment::default()
    }

    /// The variables of this process that are text.
    pub fn of_process() -> Environment {
        std::env::vars_os().collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn starting_with(&self, prefix: &str) -> impl Iterator<Item = &str> {
        self.0
            .keys()
            .map(String::as_str)
            .filter(move |name| name.starts_with(prefix))
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Environment {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Environment(variables.into_iter().filter_map(text).collect())
    }
}

/// A configuration text, its name, the environment over it, and the mistakes found so far.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    pub(super) environment: &'a Environment,
    mistakes: RefCell<Vec<(usize, String)>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str, environment: &'a Environment) -> Source<'a> {
        Source {
            name,
            text,
            environment,
            mistakes: RefCell::default(),
        }
    }

    /// Notes a mistake in the file, with its line marked.
    pub(super) fn mistake(&self, span: Range<usize>, message: impl AsRef<str>) {
        let (line, column) = self.place(span.start);
        let shown = self.text.lines().nth(line - 1).unwrap_or_default();
        let room = shown.chars().count().saturating_sub(column - 1).max(1);
        let marked = self
            .text
            .get(span.clone())
            .map_or(1, |text| text.chars().count());
        let (name, gutter) = (self.name, line.to_string());
        let text = format!(
            "{name}:{line}:{column}: {message}\n{pad} |\n{gutter} | {shown}\n{pad} | {indent}{carets}",
            message = message.as_ref(),
            pad = " ".repeat(gutter.len()),
            indent = " ".repeat(column - 1),
            carets = "^".repeat(marked.clamp(1, room)),
        );
        self.mistakes.borrow_mut().push((span.start, text));
    }

    /// Notes a mistake in a variable.
    pub(super) fn mistake_in_variable(&self, variable: &str, message: impl AsRef<str>) {
        let text = format!("environment variable {variable}: {}", message.as_ref());
        self.mistakes.borrow_mut().push((usize::MAX, text));
    }

    /// The line of an offset, counted from one.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.place(offset).0
    }

    /// `value`, unless a mistake was found. All mistakes are told at once, in the order of the file.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Error> {
        let mut mistakes = self.mistakes.into_inner();
        if mistakes.is_empty() {
            return Ok(value);
        }
        mistakes.sort();
        let texts: Vec<String> = mistakes.into_iter().map(|(_, text)| text).collect();
        Err(Error::invalid("invalid-config", texts.join("\n\n")))
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}
