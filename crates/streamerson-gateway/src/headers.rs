//! The headers of a request, read once.

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::codes;
use crate::problem::Failure;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What of the headers of a request matters to a gateway.
#[derive(Debug, Default)]
pub(crate) struct RequestHeaders<'a> {
    pub(crate) content_type: Option<&'a str>,
    /// The `traceparent`, when it is well-formed.
    pub(crate) trace: Option<&'a str>,
    /// Headers that the worker gets to see; those of one name are neighbours.
    pub(crate) passed_on: Vec<(&'a HeaderName, &'a str)>,
}

impl<'a> RequestHeaders<'a> {
    /// Reads `headers` of a request of this `version`. Only those in `allowed` are passed on.
    pub(crate) fn read(
        version: Version,
        headers: &'a HeaderMap,
        allowed: &[HeaderName],
    ) -> Result<RequestHeaders<'a>, Failure> {
        let mut read = RequestHeaders::default();
        let mut hosts = 0;
        for (name, value) in headers {
            if name == HOST {
                hosts += 1;
            } else if name == CONTENT_TYPE {
                read.content_type = Some(text(name, value)?);
            } else if name == TRACEPARENT {
                read.trace = value.to_str().ok().filter(|it| is_trace_parent(it));
            }
            if allowed.contains(name) {
                read.passed_on.push((name, text(name, value)?));
            }
        }
        // Of two hosts, two readers may each believe another.
        if hosts > 1 {
            return Err(Failure::new(
                codes::INVALID_HOST,
                "there is more than one Host header",
            ));
        }
        // RFC 9112, 3.2. HTTP/2 has an authority, and HTTP/1.0 need not have either.
        if hosts == 0 && version == Version::HTTP_11 {
            return Err(Failure::new(
                codes::INVALID_HOST,
                "there is no Host header, which HTTP/1.1 requires",
            ));
        }
        Ok(read)
    }
}

/// A header value as text: other bytes cannot be kept in JSON, and dropping a value would change the request unseen.
fn text<'a>(name: &HeaderName, value: &'a HeaderValue) -> Result<&'a str, Failure> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| {
        Failure::new(
            codes::INVALID_HEADER,
            format!("the value of {name} is not UTF-8"),
        )
    })
}

/// Whether a `traceparent` is well-formed; another is as good as none (W3C Trace Context, 3.2).
fn is_trace_parent(value: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    let mut parts = value.split('-');
    let mut part = |length| {
        parts
            .next()
            .filter(|part| part.len() == length && hex(part))
    };
    let (version, trace, parent, flags) = (part(2), part(32), part(16), part(2));
    version == Some("00")
        && trace.is_some_and(some)
        && parent.is_some_and(some)
        && flags.is_some()
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::ACCEPT;

    fn map(name: &'static str, value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value).unwrap());
        headers
    }

    #[test]
    fn a_header_is_refused_when_the_worker_could_not_read_it() {
        let headers = map("accept", b"caf\xe9");
        let refused = RequestHeaders::read(Version::HTTP_2, &headers, &[ACCEPT]).unwrap_err();
        assert_eq!(refused.code, codes::INVALID_HEADER);
        assert!(RequestHeaders::read(Version::HTTP_2, &headers, &[]).is_ok());
    }

    #[test]
    fn a_request_to_two_hosts_is_refused() {
        let mut headers = map("host", b"a");
        assert!(RequestHeaders::read(Version::HTTP_2, &headers, &[]).is_ok());
        headers.append(HOST, HeaderValue::from_static("a"));
        let refused = RequestHeaders::read(Version::HTTP_2, &headers, &[]).unwrap_err();
        assert_eq!(refused.code, codes::INVALID_HOST);
    }

    #[test]
    fn a_trace_parent_is_passed_on_only_when_well_formed() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (given, told) in [
            (good, Some(good)),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                None,
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
                None,
            ),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
            ("nonsense", None),
        ] {
            let headers = map("traceparent", given.as_bytes());
            let read = RequestHeaders::read(Version::HTTP_2, &headers, &[]).unwrap();
            assert_eq!(read.trace, told, "{given}");
        }
    }
}
