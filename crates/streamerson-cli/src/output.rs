//! Output: data on stdout, messages on stderr, and nothing that could steer a terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Writes `data` and a line feed to stdout.
pub(crate) fn line(data: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Writes `data` to stdout, as it is.
pub(crate) fn bytes(data: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data)?;
    stdout.flush()
}

/// Writes text to stdout, ended by a line feed; on a terminal without what could steer it.
pub(crate) fn text(data: &[u8]) -> io::Result<()> {
    let data = data.strip_suffix(b"\n").unwrap_or(data);
    if !io::stdout().is_terminal() {
        return line(data);
    }
    let lines: Vec<_> = String::from_utf8_lossy(data)
        .split('\n')
        .map(|line| plain(line).into_owned())
        .collect();
    line(lines.join("\n").as_bytes())
}

/// Writes `value` as one line of JSON to stdout.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_vec(value)?)
}

/// Writes a table to stdout.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table.add_rows(
        rows.iter()
            .map(|row| row.iter().map(|cell| plain(cell).into_owned())),
    );
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    line(lines.join("\n").as_bytes())
}

/// Tells the user something, on stderr. That nobody reads it is not our problem.
pub(crate) fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// `text` with control characters made visible: what others wrote must not steer the terminal it is shown on.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(escape).collect())
}
