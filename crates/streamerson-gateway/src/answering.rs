//! Answers in the making: what is kept of a request while its reply is waited for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use http_body_util::Full;
use streamerson::client::InFlight;
use streamerson_core::message::Id;
use streamerson_core::{Message, Result};

use crate::headers::X_REQUEST_ID;
use crate::metrics::InProgress;
use crate::problem::Failure;
use crate::{reply, response};

/// The answer to a request in the making, from a [`Gateway`](crate::Gateway).
#[derive(Debug)]
#[must_use = "a request is given up when this is dropped"]
pub struct Answering {
    state: State,
}

enum State {
    /// It waits for its reply.
    Waits { reply: InFlight, asker: Asker },
    /// More is to be done first. Boxed, because it is large.
    Works(BoxFuture<'static, Response<Full<Bytes>>>),
    /// It is there. `None`: it was taken.
    Ended(Option<Response<Full<Bytes>>>),
}

impl Answering {
    pub(crate) fn waits(reply: InFlight, asker: Asker) -> Answering {
        Answering {
            state: State::Waits { reply, asker },
        }
    }

    pub(crate) fn works(
        work: impl Future<Output = Response<Full<Bytes>>> + Send + 'static,
    ) -> Answering {
        Answering {
            state: State::Works(work.boxed()),
        }
    }

    pub(crate) fn ended(response: Response<Full<Bytes>>) -> Answering {
        Answering {
            state: State::Ended(Some(response)),
        }
    }
}

impl Future for Answering {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    /// There is one answer: after it, this never ends.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut self.state {
            State::Waits { reply, .. } => {
                let reply = ready!(reply.poll_unpin(cx));
                match std::mem::replace(&mut self.state, State::Ended(None)) {
                    State::Waits { asker, .. } => {
                        let answer = answer(reply, asker.id());
                        asker.answered(answer)
                    }
                    _ => return Poll::Pending,
                }
            }
            State::Works(work) => ready!(work.poll_unpin(cx)),
            State::Ended(response) => match response.take() {
                Some(response) => response,
                None => return Poll::Pending,
            },
        };
        self.state = State::Ended(None);
        Poll::Ready(Ok(response))
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Waits { .. } => "Waits",
            State::Works(_) => "Works",
            State::Ended(_) => "Ended",
        })
    }
}

/// What an answer needs of its request.
pub(crate) struct Asker {
    id: Id,
    /// The name that the client gave the request, for the answer to carry.
    request_id: Option<HeaderValue>,
    is_head: bool,
    progress: InProgress,
}

impl Asker {
    pub(crate) fn new(head: &Parts, id: Id, progress: InProgress) -> Asker {
        // A copy, because the value keeps all that was read with it.
        let copied = |theirs: &HeaderValue| HeaderValue::from_bytes(theirs.as_bytes()).ok();
        Asker {
            id,
            request_id: head.headers.get(X_REQUEST_ID).and_then(copied),
            is_head: head.method == Method::HEAD,
            progress,
        }
    }

    /// The id of the message that the request becomes.
    pub(crate) fn id(&self) -> &str {
        self.id.as_str()
    }

    pub(crate) fn progress(&self) -> &InProgress {
        &self.progress
    }

    /// The response to `answer`, counted.
    pub(crate) fn answered(
        mut self,
        answer: Result<Response<Full<Bytes>>, Failure>,
    ) -> Response<Full<Bytes>> {
        let mut response = answer.unwrap_or_else(|failure| failure.into_response(self.id()));
        if let Some(theirs) = self.request_id.take() {
            response.headers_mut().insert(X_REQUEST_ID, theirs);
        }
        if self.is_head {
            response = response::without_body(response);
        }
        self.progress.answered(response.status());
        response
    }
}

/// The response that a reply stands for, to the request `id`.
pub(crate) fn answer(reply: Result<Message>, id: &str) -> Result<Response<Full<Bytes>>, Failure> {
    reply::into_response(reply.map_err(Failure::of_broker)?, id)
}
