//! Every failure that the gateway itself answers with, in one table. `docs/errors.md` explains each.

use http::StatusCode;

/// One kind of failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) code: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) title: &'static str,
    pub(crate) outcome: Outcome,
}

/// What has become of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing happened, and nothing will.
    Rejected,
    /// It may have happened, or may still happen.
    Unknown,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Outcome::Rejected => "rejected",
            Outcome::Unknown => "unknown",
        }
    }
}

macro_rules! codes {
    ($($name:ident = $code:literal, $status:ident, $outcome:ident, $title:literal;)*) => {
        $(pub(crate) const $name: &Code = &Code {
            code: $code,
            status: StatusCode::$status,
            title: $title,
            outcome: Outcome::$outcome,
        };)*

        /// All of them.
        #[cfg(test)]
        pub(crate) const ALL: &[&Code] = &[$($name),*];
    };
}

codes! {
    INVALID_PATH = "invalid-path", BAD_REQUEST, Rejected, "The path is not acceptable";
    INVALID_HEADER = "invalid-header", BAD_REQUEST, Rejected, "A header is not acceptable";
    INVALID_HOST = "invalid-host", BAD_REQUEST, Rejected, "The request does not name one host";
    INVALID_JSON = "invalid-json", BAD_REQUEST, Rejected, "The body is not JSON";
    INCOMPLETE_BODY = "incomplete-body", BAD_REQUEST, Rejected, "The body did not arrive whole";
    ROUTE_NOT_FOUND = "route-not-found", NOT_FOUND, Rejected, "There is no such route";
    METHOD_NOT_ALLOWED = "method-not-allowed", METHOD_NOT_ALLOWED, Rejected, "The route does not serve this method";
    REQUEST_TIMEOUT = "request-timeout", REQUEST_TIMEOUT, Rejected, "The request did not arrive in time";
    BODY_TOO_LARGE = "body-too-large", PAYLOAD_TOO_LARGE, Rejected, "The body is too large";
    URI_TOO_LONG = "uri-too-long", URI_TOO_LONG, Rejected, "The path and query are too long";
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, Rejected, "The content type is not accepted";
    BROKER_REFUSED = "broker-refused", INTERNAL_SERVER_ERROR, Rejected, "The broker refused the message";
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, Unknown, "The gateway failed";
    INVALID_REPLY = "invalid-reply", BAD_GATEWAY, Unknown, "The worker's reply is not usable";
    BROKER_UNAVAILABLE = "broker-unavailable", SERVICE_UNAVAILABLE, Rejected, "The broker does not take the request";
    OVERLOADED = "overloaded", SERVICE_UNAVAILABLE, Rejected, "Too many requests are in progress";
    DRAINING = "draining", SERVICE_UNAVAILABLE, Rejected, "The gateway is shutting down";
    NO_REPLY_IN_TIME = "no-reply-in-time", GATEWAY_TIMEOUT, Unknown, "No reply arrived in time";
    OUTCOME_UNKNOWN = "outcome-unknown", GATEWAY_TIMEOUT, Unknown, "It is not known whether the request was stored";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_explained() {
        let page = include_str!("../../../docs/errors.md");
        let mut seen = BTreeSet::new();
        for code in ALL {
            assert!(seen.insert(code.code), "{} is there twice", code.code);
            let heading = format!("| `{}` | {} |", code.code, code.status.as_u16());
            assert!(page.contains(&heading), "docs/errors.md lacks {heading}");
        }
    }
}
