//! The line protocol between `reply` and a program: one JSON object in, one JSON value out.
//!
//! The value is a payload, or `{"id":…,"payload":…}`, which names the message that it answers.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use streamerson_core::Message;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::view::Work;

/// The longest answer. A longer one is not kept, and counts as unusable.
pub(crate) const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// One line of a program's output, without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Whole(Vec<u8>),
    /// More than the limit; what it held is gone.
    TooLong,
}

/// What a program makes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The payload of the reply, as JSON.
    Payload(Bytes),
    /// Not usable as a reply, and why.
    Unusable(String),
}

/// The line that asks a program to handle `message`.
pub(crate) fn question(message: &Message) -> Bytes {
    // Map keys are text and payloads are checked or encoded: this cannot fail.
    let mut line = serde_json::to_vec(&Work(message)).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// What a program's line says.
pub(crate) fn answer(line: Line) -> Answer {
    match line {
        Line::TooLong => Answer::Unusable(format!(
            "the program answered with more than {} MiB",
            MAX_ANSWER >> 20
        )),
        Line::Whole(line) => match serde_json::from_slice::<&RawValue>(&line) {
            Ok(json) => Answer::Payload(Bytes::copy_from_slice(json.get().as_bytes())),
            Err(error) => Answer::Unusable(format!(
                "the program answered with a line that is not JSON: {error}"
            )),
        },
    }
}

/// An answer that names its message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named<'a> {
    #[serde(borrow)]
    pub(crate) id: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl<'a> Named<'a> {
    /// Reads `json` as an object with the keys `id` (text) and `payload`, and no others.
    pub(crate) fn read(json: &'a [u8]) -> Option<Named<'a>> {
        // A list would do for the deserializer too.
        let is_object = json.first() == Some(&b'{');
        is_object.then(|| serde_json::from_slice(json).ok())?
    }

    /// The payload of the reply.
    pub(crate) fn payload(&self) -> Bytes {
        Bytes::copy_from_slice(self.payload.get().as_bytes())
    }
}

/// Reads lines, each of limited length.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    source: R,
    limit: usize,
    line: Vec<u8>,
    too_long: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(source: R, limit: usize) -> Lines<R> {
        Lines {
            source,
            limit,
            line: Vec::new(),
            too_long: false,
        }
    }

    /// The next line; none at the end. What follows the last line feed is no line. Safe to cancel.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let chunk = self.source.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + part.len() > self.limit {
                self.too_long = true;
                self.line = Vec::new();
            }
            if !self.too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.source.consume(used);
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                return Ok(Some(match std::mem::take(&mut self.too_long) {
                    true => Line::TooLong,
                    false => Line::Whole(line),
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(tokio::io::BufReader::with_capacity(3, input), 5);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_skipped_as_a_whole() {
        let whole = |text: &[u8]| Line::Whole(text.to_vec());
        assert_eq!(
            lines(b"12345\n123456\n\n123456789012\nab\nno line").await,
            [
                whole(b"12345"),
                Line::TooLong,
                whole(b""),
                Line::TooLong,
                whole(b"ab")
            ]
        );
    }

    #[test]
    fn only_json_is_an_answer() {
        let say = |line: &str| answer(Line::Whole(line.as_bytes().to_vec()));
        assert_eq!(say(" {\"a\": 1}\r"), Answer::Payload("{\"a\": 1}".into()));
        for line in ["", "hello", "{} {}", "{\"a\":", "\u{1b}"] {
            assert!(matches!(say(line), Answer::Unusable(_)), "{line:?}");
        }
        assert!(matches!(answer(Line::TooLong), Answer::Unusable(_)));
    }

    #[test]
    fn only_an_object_with_id_and_payload_names_a_message() {
        let named = Named::read(br#"{"payload": [1], "id":"a\u0062"}"#).unwrap();
        assert_eq!((&*named.id, named.payload()), ("ab", "[1]".into()));
        for json in [
            r#"{"id":"a"}"#,
            r#"{"payload":1}"#,
            r#"{"id":1,"payload":1}"#,
            r#"{"id":"a","payload":1,"type":"t"}"#,
            r#"{"id":"a","id":"b","payload":1}"#,
            r#"["a",1]"#,
            "null",
        ] {
            assert!(Named::read(json.as_bytes()).is_none(), "{json}");
        }
    }
}
