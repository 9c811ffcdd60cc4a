//! The failure of a handler, as its caller sees it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use streamerson_core::meta::{Failure, Headers};
use streamerson_core::retry::RetryPolicy;
use streamerson_core::{Error, ErrorKind};

use super::{IntoReply, Reply};
use crate::client::RequestError;

/// The header that says how long to wait, in seconds.
const RETRY_AFTER: &str = "retry-after";

/// A failed request: an HTTP status, a stable code for programs, and a message for people.
///
/// It is *transient* when another try may help, and *permanent* otherwise; a worker tries again what is transient and nobody
/// waits for. A status of 500 and above is transient, unless [`permanent`](Problem::permanent) says otherwise; any other is
/// permanent, unless [`transient`](Problem::transient) or [`retry_after`](Problem::retry_after) say otherwise.
///
/// Make it the error of your handlers, and let your own errors convert into it:
///
/// ```
/// use streamerson::{Json, Problem};
///
/// enum StockError { Empty, Locked }
///
/// impl From<StockError> for Problem {
///     fn from(error: StockError) -> Problem {
///         match error {
///             StockError::Empty => Problem::conflict("out-of-stock", "there is none left; try again tomorrow"),
///             StockError::Locked => Problem::conflict("stock-locked", "it is being counted").transient(),
///         }
///     }
/// }
///
/// fn reserve() -> Result<u32, StockError> { Err(StockError::Locked) }
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
    pub(super) again: Option<Again>,
}

/// Whether another try may help, where the status does not say it right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Useless,
    Useful,
    /// Not before this delay has passed.
    After(Duration),
}

impl Problem {
    /// A failure with this status.
    ///
    /// ```
    /// use streamerson::Problem;
    /// use streamerson::http::StatusCode;
    ///
    /// let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "odd", "this number is not even");
    /// assert!(!problem.is_transient());
    /// ```
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem {
            status,
            code: code.into(),
            message: message.into(),
            again: None,
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

    /// The same failure, as one that another try may mend, whatever its status.
    pub fn transient(mut self) -> Problem {
        self.again = Some(Again::Useful);
        self
    }

    /// The same failure, as one that no other try can mend, whatever its status.
    pub fn permanent(mut self) -> Problem {
        self.again = Some(Again::Useless);
        self
    }

    /// The same failure, as one that another try may mend once `delay` has passed, a year at most: a worker waits that long,
    /// instead of what its policy says, if the policy allows another attempt at all. A caller
    /// sees it in the header `retry-after`, in full seconds.
    pub fn retry_after(mut self, delay: Duration) -> Problem {
        self.again = Some(Again::After(delay.min(RetryPolicy::LONGEST_DELAY)));
        self
    }

    /// Whether another try may help.
    pub fn is_transient(&self) -> bool {
        match self.again {
            Some(again) => again != Again::Useless,
            None => self.status.is_server_error(),
        }
    }

    /// The failure that arrived with `headers`.
    pub(super) fn arrived(status: StatusCode, failure: Failure, headers: &Headers) -> Problem {
        let mut problem = Problem::new(status, failure.code, failure.message);
        problem.again = failure.transient.map(|transient| match transient {
            false => Again::Useless,
            true => {
                let seconds = headers.get(RETRY_AFTER).and_then(|text| text.parse().ok());
                seconds.map_or(Again::Useful, |seconds| {
                    let delay = Duration::from_secs(seconds);
                    Again::After(delay.min(RetryPolicy::LONGEST_DELAY))
                })
            }
        });
        problem
    }

    /// How long to wait before another try, where the failure says it.
    pub(crate) fn delay(&self) -> Option<Duration> {
        match self.again {
            Some(Again::After(delay)) => Some(delay),
            _ => None,
        }
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
        reply.again = self.again;
        if let Some(delay) = self.delay() {
            let seconds = delay.as_millis().div_ceil(1000);
            reply = reply.with_header(RETRY_AFTER, seconds.to_string());
        }
        reply.failure = Some(Failure {
            code: self.code.into_owned(),
            message: self.message.into_owned(),
            transient: self.again.map(|again| again != Again::Useless),
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
        let problem = Problem::new(status, error.code(), error.detail().to_owned());
        match error.kind() {
            ErrorKind::Invalid | ErrorKind::Corrupt => problem.permanent(),
            ErrorKind::Conflict => problem.transient(),
            _ => problem,
        }
    }
}

/// A failed nested request: the failure of the other handler is passed on as it is, also whether another try may help.
impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Problem {
        match error {
            RequestError::Problem(problem) => problem,
            RequestError::Error(error) => error.into(),
        }
    }
}
