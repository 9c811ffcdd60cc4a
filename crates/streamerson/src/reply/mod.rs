//! Replies: what handlers answer, and what callers get.

mod into_reply;
mod output;
mod problem;

use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;
use streamerson_core::meta::{Failure, Headers};
use streamerson_core::{Error, ErrorKind, Message, Meta, Result};

use crate::client::RequestError;
use crate::draft::Draft;
pub use into_reply::IntoReply;
pub use output::{Forward, NoReply, Publish};
use problem::Again;
pub use problem::Problem;

/// What a handler answers, and what a caller gets: status, headers and payload.
///
/// Handlers return anything that is [`IntoReply`]; layers see the `Reply`.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    headers: Headers,
    content_type: Option<String>,
    data: Bytes,
    failure: Option<Failure>,
    again: Option<Again>,
    outputs: Vec<Draft>,
    source: Source,
}

/// Where the answer comes from.
#[derive(Debug, Default)]
pub(crate) enum Source {
    /// It is this reply.
    #[default]
    Here,
    /// From whoever handles this message.
    Elsewhere(Box<Draft>),
    /// There is none.
    Nowhere,
}

impl Reply {
    /// Status 200 with a payload of JSON text. For values, [`Json`](crate::Json) is the way.
    pub fn new(data: impl Into<Bytes>) -> Reply {
        Reply {
            status: StatusCode::OK,
            headers: Headers::new(),
            content_type: None,
            data: data.into(),
            failure: None,
            again: None,
            outputs: Vec::new(),
            source: Source::Here,
        }
    }

    /// The same reply with another status.
    pub fn with_status(mut self, status: StatusCode) -> Reply {
        self.status = status;
        self
    }

    /// The same reply with another content type.
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Reply {
        self.content_type = Some(content_type.into());
        self
    }

    /// The same reply with a header more. The content type has a place of its own, and is set by the header of that name too.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Reply {
        let name = name.into();
        if name.eq_ignore_ascii_case("content-type") {
            return self.with_content_type(value);
        }
        self.headers.append(name, value);
        self
    }

    /// The same reply; `publish` appears together with it, or not at all.
    pub fn with_output(mut self, publish: Publish) -> Reply {
        self.outputs.push(publish.draft);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers, without the content type.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The content type of the payload.
    pub fn content_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or("application/json")
    }

    /// The payload.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The payload, parsed as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.data)
            .map_err(|error| unusable(format!("the payload of the reply does not fit: {error}")))
    }

    /// The payload as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.data)
            .map_err(|error| unusable(format!("the payload of the reply is not UTF-8: {error}")))
    }

    /// Code and message, if this is a failure: of a [`Problem`], or of a status of 400 and above.
    pub fn problem(&self) -> Option<Problem> {
        if let Some(failure) = &self.failure {
            let mut problem =
                Problem::new(self.status, failure.code.clone(), failure.message.clone());
            problem.again = self.again;
            return Some(problem);
        }
        let failed = self.status.is_client_error() || self.status.is_server_error();
        failed.then(|| {
            let reason = self.status.canonical_reason().unwrap_or("failed");
            Problem::new(
                self.status,
                format!("http-{}", self.status.as_u16()),
                reason,
            )
        })
    }

    /// The reply that `message` carries; a failure is an error.
    pub(crate) fn from_message(message: &Message) -> Result<Reply, RequestError> {
        let meta = message
            .parse_meta()
            .map_err(|error| unusable(format!("the reply is not usable: {error}")))?;
        let status = match meta.status {
            None => meta
                .err
                .as_ref()
                .map_or(StatusCode::OK, |_| StatusCode::INTERNAL_SERVER_ERROR),
            Some(status) => StatusCode::from_u16(status)
                .map_err(|_| unusable(format!("the reply has the impossible status {status}")))?,
        };
        if let Some(failure) = meta.err {
            return Err(Problem::arrived(status, failure, &meta.hdr).into());
        }
        Ok(Reply {
            status,
            headers: meta.hdr,
            content_type: meta.ctype,
            data: message.data.clone(),
            failure: None,
            again: None,
            outputs: Vec::new(),
            source: Source::Here,
        })
    }

    /// The message that answers `request` with this reply.
    pub(crate) fn answer(self, request: &Message) -> Message {
        let answer = request.answer(self.data);
        let plain = self.status == StatusCode::OK
            && self.headers.is_empty()
            && self.content_type.is_none()
            && self.failure.is_none();
        if plain {
            return answer;
        }
        let meta = Meta {
            status: (self.status != StatusCode::OK).then(|| self.status.as_u16()),
            hdr: self.headers,
            ctype: self.content_type,
            err: self.failure,
            ..Meta::default()
        };
        answer.with_meta(&meta)
    }

    /// Takes out where the answer comes from, and what else is to be published.
    pub(crate) fn take_outputs(&mut self) -> (Source, Vec<Draft>) {
        (
            std::mem::take(&mut self.source),
            std::mem::take(&mut self.outputs),
        )
    }
}

fn unusable(detail: String) -> Error {
    Error::new(ErrorKind::Corrupt, "reply-unusable", detail)
}
