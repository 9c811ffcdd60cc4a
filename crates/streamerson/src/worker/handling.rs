//! Runs the router over one request, whatever the router does.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::FutureExt;
use http::StatusCode;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::{Service, ServiceExt};

use crate::{IntoReply, Problem, Reply, Request};

/// The reply of `service` to `request`, within `limit`; a panic is a failure.
pub(super) async fn reply<S>(service: S, request: Request, limit: Option<Duration>) -> Reply
where
    S: Service<Request, Response = Reply, Error = Infallible>,
{
    let kind = request.message().kind.clone();
    let deadline = request.deadline();
    let handling = deadline.inherit(async move { service.oneshot(request).await });
    let handling = AssertUnwindSafe(handling).catch_unwind();
    match Within::new(handling, limit).await {
        Some(Ok(Ok(reply))) => reply,
        Some(Err(panic)) => {
            tracing::error!(%kind, panic = text(&*panic), "a handler panicked");
            let message = format!("the handler of {kind} panicked; its log has the reason");
            failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "handler-panicked",
                message,
            )
        }
        None => {
            tracing::error!(%kind, ?limit, "a handler was stopped at its time limit");
            let message = format!("the handler of {kind} took longer than its worker lets it");
            failure(StatusCode::GATEWAY_TIMEOUT, "handler-timeout", message)
        }
    }
}

fn failure(status: StatusCode, code: &str, message: String) -> Reply {
    Problem::new(status, code.to_owned(), message).into_reply()
}

/// What a panic says.
pub(crate) fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

pin_project! {
    /// The output of a future, `None` when that takes too long. Without a limit it costs nothing.
    struct Within<F> {
        #[pin]
        future: F,
        limit: Option<Pin<Box<Sleep>>>,
    }
}

impl<F> Within<F> {
    fn new(future: F, limit: Option<Duration>) -> Within<F> {
        Within {
            future,
            limit: limit.map(|limit| Box::pin(tokio::time::sleep(limit))),
        }
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        match this.limit {
            Some(limit) => {
                ready!(limit.as_mut().poll(cx));
                Poll::Ready(None)
            }
            None => Poll::Pending,
        }
    }
}
