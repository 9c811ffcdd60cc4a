//! Requests on their way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytestring::ByteString;
use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{Error, Message, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Shared;
use super::replies::{Waiter, closed};
use super::sender::Outgoing;

type Answer = oneshot::Receiver<Result<Message>>;

/// A request on its way, from [`Client::dispatch`](super::Client::dispatch). Await it for the answer.
///
/// It is small: of the message it holds the id, and what shares memory with that. A gateway keeps one of these for everyone
/// who waits. Dropped, the request is given up; it is not sent if it still was in the queue.
#[derive(Debug)]
#[must_use = "a request that is dropped is given up"]
pub struct InFlight {
    state: State,
}

enum State {
    /// It was not sent. `None`: all was told.
    Refused(Option<Error>),
    /// It waits for its answer.
    Waits { waiting: Waiting, answer: Answer },
    /// There was no room in the queue.
    QueuesUp(BoxFuture<'static, Result<Message>>),
}

impl InFlight {
    pub(super) fn refused(error: Error) -> InFlight {
        InFlight {
            state: State::Refused(Some(error)),
        }
    }

    pub(super) fn waits(waiting: Waiting, answer: Answer) -> InFlight {
        InFlight {
            state: State::Waits { waiting, answer },
        }
    }

    /// Waits for room in the queue first; for that, too, at most until the deadline of the request.
    pub(super) fn queues_up(waiting: Waiting, mut answer: Answer, outgoing: Outgoing) -> InFlight {
        let queued = async move {
            let answer = tokio::select! {
                biased;
                queued = waiting.client.outbox.send(outgoing) => {
                    queued.map_err(|_| closed())?;
                    answer.await
                }
                early = &mut answer => early,
            };
            waiting.ended();
            answer.unwrap_or_else(|_| Err(closed()))
        };
        InFlight {
            state: State::QueuesUp(queued.boxed()),
        }
    }
}

impl Future for InFlight {
    type Output = Result<Message>;

    /// There is one answer: after it, this never ends.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Message>> {
        let answer = match &mut self.state {
            State::Waits { answer, .. } => {
                ready!(answer.poll_unpin(cx)).unwrap_or_else(|_| Err(closed()))
            }
            State::QueuesUp(queued) => ready!(queued.poll_unpin(cx)),
            State::Refused(error) => match error.take() {
                Some(error) => Err(error),
                None => return Poll::Pending,
            },
        };
        if let State::Waits { waiting, .. } =
            std::mem::replace(&mut self.state, State::Refused(None))
        {
            waiting.ended();
        }
        Poll::Ready(answer)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Refused(_) => "Refused",
            State::Waits { .. } => "Waits",
            State::QueuesUp(_) => "QueuesUp",
        })
    }
}

/// A place in the table of those who wait; given up when dropped. While somebody waits, the client lives.
pub(super) struct Waiting {
    client: Arc<Shared>,
    id: Option<ByteString>,
}

impl Waiting {
    pub(super) fn begin(
        client: &Arc<Shared>,
        id: ByteString,
        deadline: Instant,
        waiter: Waiter,
    ) -> Result<Waiting> {
        client
            .replies
            .insert(id.clone(), deadline.into_std(), waiter)?;
        Ok(Waiting {
            client: client.clone(),
            id: Some(id),
        })
    }

    /// The waiter was answered, and has left the table by that.
    fn ended(mut self) {
        self.id = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.client.replies.cancel(id);
        }
    }
}
