//! The failure of a handler, as its caller sees it.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;
use streamerson_core::meta::Failure;
use streamerson_core::{Error, ErrorKind};

use super::{IntoReply, Reply};
use crate::client::RequestError;

/// A failed request: an HTTP status, a stable code for programs, and a message for people.
///
/// Make it the error of your handlers, and let your own errors convert into it:
///
/// ```
/// use streamerson::{Json, Problem};
///
/// struct OutOfStock;
///
/// impl From<OutOfStock> for Problem {
///     fn from(_: OutOfStock) -> Problem {
///         Problem::conflict("out-of-stock", "there is none left; try again tomorrow")
///     }
/// }
///
/// fn reserve() -> Result<u32, OutOfStock> { Err(OutOfStock) }
///
/// async fn order() -> Result<Json<u32>, Problem> {
///     Ok(Json(reserve()?))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
}

impl Problem {
    /// A failure with this status.
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem {
            status,
            code: code.into(),
            message: message.into(),
        }
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404: the thing named does not exist.
    pub fn not_found(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 409: the request does not fit the present state.
    pub fn conflict(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem::new(StatusCode::CONFLICT, code, message)
    }

    /// 503: it may work later.
    pub fn unavailable(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// 500 for an error that callers should not see: it is logged, and the caller learns only that the handler failed.
    ///
    /// For use as `.map_err(Problem::internal)?`.
    pub fn internal(error: impl fmt::Display) -> Problem {
        tracing::error!(%error, "a handler failed");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "handler-failed",
            "the handler failed; its log has the reason",
        )
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code, for programs.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The message, for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, status {})",
            self.message,
            self.code,
            self.status.as_u16()
        )
    }
}

impl std::error::Error for Problem {}

impl IntoReply for Problem {
    fn into_reply(self) -> Reply {
        let mut reply = Reply::new("").with_status(self.status);
        reply.failure = Some(Failure {
            code: self.code.into_owned(),
            message: self.message.into_owned(),
        });
        reply
    }
}

/// A failed call of ours within a handler: what the caller of the handler gets to see of it.
impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let status = match error.kind() {
            ErrorKind::Invalid | ErrorKind::Corrupt | ErrorKind::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::Fenced => StatusCode::CONFLICT,
            ErrorKind::Unknown => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error.code(), error.detail().to_owned())
    }
}

/// A failed nested request: the failure of the other handler is passed on as it is.
impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Problem {
        match error {
            RequestError::Problem(problem) => problem,
            RequestError::Error(error) => error.into(),
        }
    }
}
