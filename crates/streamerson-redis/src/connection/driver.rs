//! The task that owns the shared connection: it writes, reads, and connects again. Nothing else does.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use streamerson_core::Error;
use streamerson_core::stats::IncidentCounts;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::live::{Live, Outgoing};
use super::socket::Socket;
use super::{Connector, Pace, SILENCE};
use crate::error;

/// Requests taken from the callers and not written yet.
const MOST_UNSENT: usize = 256;

pub(super) struct Driver {
    pub(super) connector: Arc<Connector>,
    pub(super) requests: mpsc::Receiver<Outgoing>,
    pub(super) counts: Arc<IncidentCounts>,
    pub(super) unsent: VecDeque<Outgoing>,
    pub(super) closing: bool,
}

impl Driver {
    /// Serves requests over `socket` and its successors, until every caller is gone and all is answered.
    pub(super) async fn run(mut self, socket: Socket) {
        let mut next = Some(socket);
        let mut pace = Pace::new();
        while let Some(socket) = next {
            let begun = Instant::now();
            let Err(reason) = self.serve(Live::new(socket)).await else {
                return;
            };
            // A connection that did not last counts as a failed attempt.
            if begun.elapsed() > SILENCE {
                pace.succeeded();
            }
            self.counts.reconnects.add(1);
            tracing::warn!(broker = %self.connector.target(), %reason, "connection to Redis lost");
            next = self.reconnect(&mut pace, reason).await;
        }
    }

    /// Until the connection is lost (an error), or no longer needed.
    async fn serve(&mut self, mut live: Live) -> Result<(), io::Error> {
        let mut alarm = Box::pin(sleep_until(Instant::now() + SILENCE));
        let ended = poll_fn(|cx| self.poll(&mut live, alarm.as_mut(), cx)).await;
        if let Err(reason) = &ended {
            let lost = error::lost(self.connector.target(), reason);
            live.abandon(&lost);
        }
        ended
    }

    fn poll(
        &mut self,
        live: &mut Live,
        mut alarm: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), io::Error>> {
        let was_idle = live.is_idle() && self.unsent.is_empty();
        loop {
            // Reading comes first: a server that cannot get rid of its answers stops reading requests.
            if let Poll::Ready(error) = live.poll_read(cx) {
                return Poll::Ready(Err(error));
            }
            let taken = self.take(cx);
            if let Poll::Ready(Err(error)) = live.poll_write(&mut self.unsent, cx) {
                return Poll::Ready(Err(error));
            }
            if !taken || live.is_writing() {
                break;
            }
        }
        if live.is_idle() && self.unsent.is_empty() {
            return if self.closing {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        if was_idle {
            live.progress = Instant::now();
            alarm.as_mut().reset(live.progress + SILENCE);
        }
        // One timer for all requests: it is moved only when it rings.
        while alarm.as_mut().poll(cx).is_ready() {
            let due = live.progress + SILENCE;
            if due <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Takes what callers have queued. Answers whether there may be more.
    fn take(&mut self, cx: &mut Context<'_>) -> bool {
        while self.unsent.len() < MOST_UNSENT {
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(request)) => self.unsent.push_back(request),
                Poll::Ready(None) => {
                    self.closing = true;
                    return false;
                }
                Poll::Pending => return false,
            }
        }
        true
    }

    /// Connects again, however long it takes; fails requests that have waited long enough meanwhile.
    async fn reconnect(&mut self, pace: &mut Pace, reason: io::Error) -> Option<Socket> {
        let mut reason = error::unreachable(self.connector.target(), reason);
        loop {
            let connector = self.connector.clone();
            let attempt_at = pace.failed();
            let attempt = async move {
                sleep_until(attempt_at).await;
                connector.open().await
            };
            match self.wait_for(attempt, &reason).await? {
                Ok(socket) => {
                    tracing::info!(broker = %self.connector.target(), "connected to Redis again");
                    return Some(socket);
                }
                Err(error) => reason = error,
            }
        }
    }

    /// Waits for `attempt`, and gives up requests in time. `None`: nobody needs a connection any more.
    async fn wait_for<T>(&mut self, attempt: impl Future<Output = T>, reason: &Error) -> Option<T> {
        tokio::pin!(attempt);
        loop {
            self.give_up(reason);
            if self.closing && self.unsent.is_empty() {
                return None;
            }
            let first = self.unsent.front().map(|request| request.give_up);
            tokio::select! {
                outcome = &mut attempt => return Some(outcome),
                request = self.requests.recv(), if !self.closing && self.unsent.len() < MOST_UNSENT => {
                    match request {
                        Some(request) => self.unsent.push_back(request),
                        None => self.closing = true,
                    }
                }
                () = sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {}
            }
        }
    }

    fn give_up(&mut self, reason: &Error) {
        let now = Instant::now();
        while self
            .unsent
            .front()
            .is_some_and(|request| request.give_up <= now)
        {
            if let Some(request) = self.unsent.pop_front() {
                request.fail(Error::unavailable(
                    "broker-unreachable",
                    reason.detail().to_owned(),
                ));
            }
        }
    }
}
