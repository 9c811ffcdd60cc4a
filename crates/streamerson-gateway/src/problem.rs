//! Failures as RFC 9457 problem documents.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use crate::codes::Code;
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

    pub(crate) fn into_response(self, id: &ByteString) -> Response<Full<Bytes>> {
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
    id: &ByteString,
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
    fn into_response(self, status: StatusCode, id: &ByteString) -> Response<Full<Bytes>> {
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
