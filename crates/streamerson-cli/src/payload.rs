//! `--data`: where a payload comes from.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use clap::Args;
use streamerson_core::Meta;

use crate::failure::{Failure, Result};

/// The largest payload read from a file or stdin.
const LIMIT: u64 = 64 * 1024 * 1024;

/// The payload of a message, and what it is about.
#[derive(Debug, Args)]
pub(crate) struct PayloadArgs {
    /// Payload: JSON, @FILE, or - for standard input. Empty when left out
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,

    /// Type of a payload that is not JSON, for example text/plain; it is then sent as it is
    #[arg(long, value_name = "TYPE", requires = "data")]
    content_type: Option<String>,

    /// Key of the message: of a divided topic, messages with the same key are handled in order
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl PayloadArgs {
    /// Reads the payload, and checks that it is JSON unless it is said to be something else.
    pub(crate) fn read(&self) -> Result<Bytes> {
        let data: Bytes = match self.data.as_deref() {
            None => return Ok(Bytes::new()),
            Some("-") => read_all(io::stdin().lock(), "standard input")?,
            Some(text) => match text.strip_prefix('@') {
                Some(path) => {
                    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
                    read_all(file, path)?
                }
                None => text.to_owned().into(),
            },
        };
        if self.content_type.is_none() && !data.is_empty() {
            check_json(&data)?;
        }
        Ok(data)
    }

    /// The `meta` that says what the payload is, and its key.
    pub(crate) fn meta(&self) -> Meta {
        Meta {
            key: self.key.clone(),
            ctype: self.content_type.clone(),
            ..Meta::default()
        }
    }
}

fn check_json(data: &[u8]) -> Result<()> {
    match serde_json::from_slice::<serde::de::IgnoredAny>(data) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::usage(
            "invalid-payload",
            format!("the payload is not JSON: {error}"),
        )
        .with_help(
            r#"quote text as JSON (--data '"text"'), or send it as it is with --content-type text/plain"#,
        )),
    }
}

fn read_all(source: impl Read, name: &str) -> Result<Bytes> {
    let mut data = Vec::new();
    source
        .take(LIMIT + 1)
        .read_to_end(&mut data)
        .map_err(|error| unreadable(name, &error))?;
    if data.len() as u64 > LIMIT {
        return Err(Failure::usage(
            "payload-too-large",
            format!("{name} holds more than {} MiB", LIMIT >> 20),
        ));
    }
    Ok(data.into())
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::usage("unreadable-payload", format!("cannot read {name}: {error}"))
}
