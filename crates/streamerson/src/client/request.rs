//! Requests and messages, built step by step.

use std::future::IntoFuture;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{Error, Position, Result};

use super::Client;
use crate::draft::{Draft, payload_methods, schedule_methods};
use crate::{Deadline, Problem, Reply};

/// How long the key of a message that is to be stored once is remembered, unless told otherwise: a day.
pub const IDEMPOTENCY_KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// A request in the making, from [`Client::request`]. Await it to send it and wait for the answer.
///
/// Safe to cancel: dropping the future gives the request up; it is not sent if it still was in the queue.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct RequestBuilder<'a> {
    client: &'a Client,
    draft: Draft,
    deadline: Deadline,
    timeout: Option<Duration>,
}

impl<'a> RequestBuilder<'a> {
    pub(super) fn new(client: &'a Client, draft: Draft) -> RequestBuilder<'a> {
        RequestBuilder {
            client,
            draft,
            deadline: Deadline::NONE,
            timeout: None,
        }
    }

    payload_methods!();

    /// How long to wait for the answer, instead of the client's default. Within a handler the deadline of the message
    /// being handled holds as well.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Names what is to happen once: a worker with [`Dedupe::by_key`](crate::Dedupe::by_key) gives every request of this type
    /// with the same key the answer of the first. For a request that ended unknown it is the way to find out.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.draft.idempotency_key(key.into());
        self
    }

    /// Until when to wait for the answer, when that is earlier than the timeout.
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = deadline;
        self
    }

    async fn send(self) -> Result<Reply, RequestError> {
        let timeout = self.timeout.unwrap_or(self.client.shared.options.timeout);
        let deadline = Deadline::after(timeout)
            .min(self.deadline)
            .min(Deadline::inherited());
        let mut draft = self.draft;
        let now = self.client.broker_unix_ms();
        draft.meta.exp = deadline.unix_ms_at(now);
        let append = draft.compose(now)?;
        let until = tokio::time::Instant::now() + deadline.remaining().unwrap_or(timeout);
        let message = self
            .client
            .dispatch(append.topic, append.message, until)
            .await?;
        Reply::from_message(&message)
    }
}

impl<'a> IntoFuture for RequestBuilder<'a> {
    type Output = Result<Reply, RequestError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.send().boxed()
    }
}

/// A message in the making, from [`Client::send`]. Await it to send it; the answer is its position in the topic, and
/// [`Position::ZERO`] for one that is scheduled.
///
/// Dropping the future does not take a queued message back.
///
/// ```
/// use std::time::Duration;
/// use streamerson::{Client, connect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::open(connect("memory:").await?).await?;
/// let invoice = || client.send("invoices", "invoice.print").text("7").idempotency_key("invoice-7");
/// assert_eq!(invoice().await?, invoice().await?);
///
/// client.send("mail", "invoice.remind").text("7").delay(Duration::from_secs(3600)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a message is not sent until it is awaited"]
pub struct SendBuilder<'a> {
    client: &'a Client,
    draft: Draft,
    deadline: Deadline,
}

impl<'a> SendBuilder<'a> {
    pub(super) fn new(client: &'a Client, draft: Draft) -> SendBuilder<'a> {
        SendBuilder {
            client,
            draft,
            deadline: Deadline::NONE,
        }
    }

    payload_methods!();
    schedule_methods!();

    /// Names what is to happen once: of all messages of this type with the same key, the topic stores the first, for
    /// [`IDEMPOTENCY_KEEP`]; a later one is answered with the position of the first. The key also travels to the worker, as
    /// the header `idempotency-key`. So it is safe to send again what may have been stored.
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        self.idempotency_key_for(key, IDEMPOTENCY_KEEP)
    }

    /// The same, remembered for `keep`.
    pub fn idempotency_key_for(mut self, key: impl Into<String>, keep: Duration) -> Self {
        self.draft.store_once(key.into(), keep);
        self
    }

    /// When the message expires: after that it is not handled any more.
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = deadline;
        self
    }
}

impl<'a> IntoFuture for SendBuilder<'a> {
    type Output = Result<Position>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let mut draft = self.draft;
            let now = self.client.broker_unix_ms();
            draft.meta.exp = self.deadline.unix_ms_at(now);
            self.client.store(draft.compose(now)?).await
        }
        .boxed()
    }
}

/// Why a request has no good answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The worker answered with a failure.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// There is no answer: the kind of the error tells whether the request may have been handled.
    #[error(transparent)]
    Error(#[from] Error),
}

impl RequestError {
    /// The stable code, for programs.
    pub fn code(&self) -> &str {
        match self {
            RequestError::Problem(problem) => problem.code(),
            RequestError::Error(error) => error.code(),
        }
    }
}
