//! Failures as RFC 9457 problem documents.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use streamerson_core::time::unix_ms;
use streamerson_core::{Error, ErrorKind};

use crate::codes::{self, Code};
use crate::rarely::Rarely;
use crate::response;

/// A failure of the gateway, on its way to the client.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) code: &'static Code,
    detail: Cow<'static, str>,
    allow: Option<HeaderValue>,
}

impl Failure {
    pub(crate) fn new(code: &'static Code, detail: impl Into<Cow<'static, str>>) -> Failure {
        Failure {
            code,
            detail: detail.into(),
            allow: None,
        }
    }

    /// The same failure, which tells the methods that are allowed.
    pub(crate) fn with_allow(mut self, allow: &HeaderValue) -> Failure {
        self.allow = Some(allow.clone());
        self
    }

    /// A failure on the way to the worker. Its detail is for the log: it may name what clients should not see.
    pub(crate) fn of_broker(error: Error) -> Failure {
        match (error.kind(), error.code()) {
            (ErrorKind::Unavailable, "overloaded") => Failure::new(
                codes::OVERLOADED,
                "too many requests wait for their reply; try again soon",
            ),
            (ErrorKind::Unavailable, _) => {
                static REFUSED: Rarely = Rarely::new();
                if REFUSED.is_due(unix_ms()) {
                    tracing::warn!(%error, "the broker does not take requests; this is not repeated for each");
                }
                Failure::new(
                    codes::BROKER_UNAVAILABLE,
                    "the request was not stored; try again soon",
                )
            }
            (ErrorKind::Unknown, "no-reply-in-time") => Failure::new(
                codes::NO_REPLY_IN_TIME,
                "no reply arrived before the deadline; the request may have been handled, or may still be",
            ),
            (ErrorKind::Unknown, "given-up") => Failure::new(
                codes::NO_REPLY_IN_TIME,
                "the gateway shuts down before a reply arrived; the request may have been handled, or may still be",
            ),
            (ErrorKind::Unknown, _) => {
                tracing::debug!(%error, "it is not known whether a request was stored");
                Failure::new(
                    codes::OUTCOME_UNKNOWN,
                    "the broker did not confirm the request; it may have been stored, and may be handled",
                )
            }
            (ErrorKind::Closed, _) => Failure::new(codes::DRAINING, "try another gateway"),
            (ErrorKind::Invalid, "message-too-large") => Failure::new(
                codes::BODY_TOO_LARGE,
                "the broker does not take messages of this size",
            ),
            (ErrorKind::Invalid, "topic-reserved") => Failure::new(
                codes::ROUTE_NOT_FOUND,
                "this path names a partition of a topic: send to the topic, on a route that has a key",
            ),
            (ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict, _) => {
                tracing::error!(%error, "the broker refused a message");
                Failure::new(
                    codes::BROKER_REFUSED,
                    "the log of the gateway has the reason",
                )
            }
            _ => {
                tracing::error!(%error, "a request failed in a way that no request should");
                Failure::new(codes::INTERNAL, "the log of the gateway has the reason")
            }
        }
    }

    pub(crate) fn into_response(self, id: &str) -> Response<Full<Bytes>> {
        let Code {
            code,
            status,
            title,
            outcome,
        } = self.code;
        let mut response = Problem {
            kind: &urn(code),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code,
            instance: &instance(id),
            origin: "gateway",
            outcome: Some(outcome.as_str()),
        }
        .into_response(*status, id);
        let headers = response.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        if *status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The answer to a request whose worker replied with a failure.
pub(crate) fn of_worker(
    status: StatusCode,
    code: &str,
    detail: &str,
    id: &str,
) -> Response<Full<Bytes>> {
    Problem {
        kind: &urn(code),
        title: status.canonical_reason().unwrap_or("Failed"),
        status: status.as_u16(),
        detail,
        code,
        instance: &instance(id),
        origin: "worker",
        outcome: None,
    }
    .into_response(status, id)
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    code: &'a str,
    instance: &'a str,
    origin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
}

impl Problem<'_> {
    fn into_response(self, status: StatusCode, id: &str) -> Response<Full<Bytes>> {
        // Plain text and numbers cannot fail to encode.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let ctype = HeaderValue::from_static("application/problem+json");
        response::typed(status, ctype, body.into(), id)
    }
}

/// A code may come from a worker: what is not a plain token does not become part of a URN.
fn urn(code: &str) -> Cow<'static, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if code.is_empty() || !code.bytes().all(plain) {
        return "about:blank".into();
    }
    format!("urn:streamerson:error:{code}").into()
}

fn instance(id: &str) -> String {
    format!("urn:uuid:{id}")
}
