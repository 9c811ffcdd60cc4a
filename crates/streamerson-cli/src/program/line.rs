//! The line protocol between `reply` and a program: one JSON object in, one JSON value out.
//!
//! The value is a payload, or an object that names the message it answers: `{"id":…,"payload":…}`, or `{"id":…,"problem":…}`
//! for a failure.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use streamerson::Problem;
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
    /// The program answers that it failed.
    Problem(Problem),
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
#[derive(Debug)]
pub(crate) struct Named<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) answer: Answer,
}

impl<'a> Named<'a> {
    /// Reads `json` as an object with the keys `id` (text) and `payload` or `problem`, and no others.
    pub(crate) fn read(json: &'a [u8]) -> Option<Named<'a>> {
        // A list would do for the deserializer too.
        if json.first() != Some(&b'{') {
            return None;
        }
        if let Ok(Done { id, payload }) = serde_json::from_slice(json) {
            let answer = Answer::Payload(Bytes::copy_from_slice(payload.get().as_bytes()));
            return Some(Named { id, answer });
        }
        let Failed { id, problem } = serde_json::from_slice(json).ok()?;
        let answer = match problem_of(problem) {
            Ok(problem) => Answer::Problem(problem),
            Err(why) => Answer::Unusable(why),
        };
        Some(Named { id, answer })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Done<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failed<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    problem: &'a RawValue,
}

/// A failure, with the names of a problem document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Details {
    status: u16,
    code: String,
    detail: String,
}

fn problem_of(json: &RawValue) -> Result<Problem, String> {
    let wrong = |why: &str| format!("the program answered with a problem that is none: {why}");
    let Details {
        status,
        code,
        detail,
    } = serde_json::from_str(json.get()).map_err(|error| wrong(&error.to_string()))?;
    match StatusCode::from_u16(status) {
        Ok(status) if status.is_client_error() || status.is_server_error() => {
            Ok(Problem::new(status, code, detail))
        }
        _ => Err(wrong("its status is not between 400 and 599")),
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
    fn only_an_object_with_id_and_answer_names_a_message() {
        let named = Named::read(br#"{"payload": [1], "id":"a\u0062"}"#).unwrap();
        assert_eq!(
            (&*named.id, named.answer),
            ("ab", Answer::Payload("[1]".into()))
        );
        for json in [
            r#"{"id":"a"}"#,
            r#"{"payload":1}"#,
            r#"{"id":1,"payload":1}"#,
            r#"{"id":"a","payload":1,"type":"t"}"#,
            r#"{"id":"a","id":"b","payload":1}"#,
            r#"{"id":"a","payload":1,"problem":1}"#,
            r#"["a",1]"#,
            "null",
        ] {
            assert!(Named::read(json.as_bytes()).is_none(), "{json}");
        }
    }

    #[test]
    fn a_problem_is_a_failure_with_its_status() {
        let say = |problem: &str| {
            let json = format!(r#"{{"id":"a","problem":{problem}}}"#);
            Named::read(json.as_bytes()).unwrap().answer
        };
        assert_eq!(
            say(r#"{"status":422,"code":"odd","detail":"not even"}"#),
            Answer::Problem(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "odd",
                "not even"
            ))
        );
        for problem in [
            "null",
            r#""oops""#,
            r#"{"status":422}"#,
            r#"{"status":200,"code":"odd","detail":"fine"}"#,
            r#"{"status":600,"code":"odd","detail":"fine"}"#,
            r#"{"status":422,"code":"odd","detail":"not even","title":"x"}"#,
        ] {
            assert!(matches!(say(problem), Answer::Unusable(_)), "{problem}");
        }
    }
}
