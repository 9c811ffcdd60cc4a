//! What a handler may return.

use std::convert::Infallible;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use streamerson_core::meta::Headers;

use super::{Problem, Publish, Reply};
use crate::Json;
use crate::draft::{OCTETS, TEXT};

/// What a handler may return.
///
/// | type | reply |
/// |---|---|
/// | `Json<T>` | 200, JSON |
/// | `()` | 204, empty |
/// | `&'static str`, `String` | 200, `text/plain` |
/// | `Bytes`, `Vec<u8>`, `&'static [u8]` | 200, `application/octet-stream` |
/// | [`StatusCode`] | that status, empty |
/// | `(StatusCode, R)`, `(Headers, R)`, `(StatusCode, Headers, R)` | `R` with status and headers; headers also as `[("name", "value")]` |
/// | `Result<T, E>` | either |
/// | [`Problem`] | a failure with status, code and message |
/// | [`Forward`](crate::Forward) | none: the next stage of the pipeline answers |
/// | [`NoReply`](crate::NoReply) | none: another group answers |
/// | `(Publish, R)`, `(Vec<Publish>, R)` | `R`, with further messages that appear together with it |
/// | [`Reply`] | itself |
///
/// ```
/// use http::StatusCode;
/// use streamerson::{IntoReply, Json};
///
/// let created = (StatusCode::CREATED, [("location", "/orders/7")], Json(7)).into_reply();
/// assert_eq!(created.status(), 201);
/// assert_eq!(created.headers().get("location"), Some("/orders/7"));
/// assert_eq!(&created.data()[..], b"7");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the reply of a handler",
    note = "return `Json<T>`, `()`, text, bytes, a status, `Problem`, `Forward`, or a `Result` or tuple of these"
)]
pub trait IntoReply {
    /// The reply.
    fn into_reply(self) -> Reply;
}

impl IntoReply for Reply {
    fn into_reply(self) -> Reply {
        self
    }
}

impl<T: Serialize> IntoReply for Json<T> {
    fn into_reply(self) -> Reply {
        match serde_json::to_vec(&self.0) {
            Ok(data) => Reply::new(data),
            Err(error) => {
                tracing::error!(%error, "a reply cannot be written as JSON");
                let message =
                    "the handler's answer cannot be written as JSON; its log has the reason";
                Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "unserializable-reply",
                    message,
                )
                .into_reply()
            }
        }
    }
}

impl IntoReply for () {
    fn into_reply(self) -> Reply {
        StatusCode::NO_CONTENT.into_reply()
    }
}

impl IntoReply for StatusCode {
    fn into_reply(self) -> Reply {
        Reply::new("").with_status(self)
    }
}

impl IntoReply for Infallible {
    fn into_reply(self) -> Reply {
        match self {}
    }
}

impl IntoReply for &'static str {
    fn into_reply(self) -> Reply {
        Reply::new(self).with_content_type(TEXT)
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Reply {
        Reply::new(self).with_content_type(TEXT)
    }
}

impl IntoReply for Bytes {
    fn into_reply(self) -> Reply {
        Reply::new(self).with_content_type(OCTETS)
    }
}

impl IntoReply for Vec<u8> {
    fn into_reply(self) -> Reply {
        Reply::new(self).with_content_type(OCTETS)
    }
}

impl IntoReply for &'static [u8] {
    fn into_reply(self) -> Reply {
        Reply::new(self).with_content_type(OCTETS)
    }
}

impl<T: IntoReply, E: IntoReply> IntoReply for Result<T, E> {
    fn into_reply(self) -> Reply {
        match self {
            Ok(reply) => reply.into_reply(),
            Err(reply) => reply.into_reply(),
        }
    }
}

impl<R: IntoReply> IntoReply for (StatusCode, R) {
    fn into_reply(self) -> Reply {
        self.1.into_reply().with_status(self.0)
    }
}

impl<R: IntoReply> IntoReply for (Headers, R) {
    fn into_reply(self) -> Reply {
        let reply = self.1.into_reply();
        self.0
            .iter()
            .fold(reply, |reply, (name, value)| reply.with_header(name, value))
    }
}

impl<K: Into<String>, V: Into<String>, R: IntoReply, const N: usize> IntoReply
    for ([(K, V); N], R)
{
    fn into_reply(self) -> Reply {
        let reply = self.1.into_reply();
        self.0
            .into_iter()
            .fold(reply, |reply, (name, value)| reply.with_header(name, value))
    }
}

impl<R: IntoReply> IntoReply for (StatusCode, Headers, R) {
    fn into_reply(self) -> Reply {
        (self.1, self.2).into_reply().with_status(self.0)
    }
}

impl<K: Into<String>, V: Into<String>, R: IntoReply, const N: usize> IntoReply
    for (StatusCode, [(K, V); N], R)
{
    fn into_reply(self) -> Reply {
        (self.1, self.2).into_reply().with_status(self.0)
    }
}

impl<R: IntoReply> IntoReply for (Publish, R) {
    fn into_reply(self) -> Reply {
        self.1.into_reply().with_output(self.0)
    }
}

impl<R: IntoReply> IntoReply for (Vec<Publish>, R) {
    fn into_reply(self) -> Reply {
        let reply = self.1.into_reply();
        self.0.into_iter().fold(reply, Reply::with_output)
    }
}
