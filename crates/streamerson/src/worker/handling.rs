//! Runs the router over one request, whatever the router does.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;

use futures::future::FutureExt;
use http::StatusCode;
use tower::{Service, ServiceExt};

use crate::{IntoReply, Problem, Reply, Request};

/// The reply of `service` to `request`; a panic is a failure.
pub(super) async fn reply<S>(service: S, request: Request) -> Reply
where
    S: Service<Request, Response = Reply, Error = Infallible>,
{
    let kind = request.message().kind.clone();
    let deadline = request.deadline();
    let handling = deadline.inherit(async move { service.oneshot(request).await });
    match AssertUnwindSafe(handling).catch_unwind().await {
        Ok(Ok(reply)) => reply,
        Err(panic) => {
            tracing::error!(%kind, panic = text(&*panic), "a handler panicked");
            let message = format!("the handler of {kind} panicked; its log has the reason");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "handler-panicked",
                message,
            )
            .into_reply()
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
