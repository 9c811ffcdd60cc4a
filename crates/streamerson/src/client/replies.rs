//! Who waits for which answer: the pending table, its lock, and its one timer.

use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;
use parking_lot::Mutex;
use streamerson_core::pending::{PendingReplies, Refused};
use streamerson_core::{Error, Message, Result};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::stats::{ClientStats, Counters};

pub(super) type Waiter = oneshot::Sender<Result<Message>>;

/// The requests in flight of one client.
#[derive(Debug)]
pub(super) struct Replies {
    state: Mutex<State>,
    limit: usize,
    rearm: Notify,
    emptied: Notify,
    pub(super) counters: Counters,
}

#[derive(Debug)]
struct State {
    table: PendingReplies<Waiter>,
    /// When the timer goes off. It is not moved when the waiter it was set for leaves, because the next one is later anyway.
    armed: Option<Instant>,
}

impl Replies {
    pub(super) fn new(limit: usize) -> Replies {
        Replies {
            state: Mutex::new(State {
                table: PendingReplies::new(limit),
                armed: None,
            }),
            limit,
            rearm: Notify::new(),
            emptied: Notify::new(),
            counters: Counters::default(),
        }
    }

    /// Adds a waiter, which is answered at `deadline` at the latest.
    pub(super) fn insert(&self, id: ByteString, deadline: Instant, waiter: Waiter) -> Result<()> {
        let mut state = self.state.lock();
        if state.table.len() >= self.limit {
            drop(state);
            self.counters.overloaded.add(1);
            return Err(Error::unavailable(
                "overloaded",
                format!(
                    "{} requests are in flight, which is the limit of this client; try again later",
                    self.limit
                ),
            ));
        }
        if let Err(Refused(_)) = state.table.insert(id, deadline, waiter) {
            return Err(Error::invalid(
                "request-repeated",
                "a request with the same correlation id is in flight; give each request an id of its own",
            ));
        }
        let earlier = state.armed.is_none_or(|armed| deadline < armed);
        if earlier {
            state.armed = Some(deadline);
            drop(state);
            self.rearm.notify_one();
        }
        Ok(())
    }

    /// Drops every request from `batch` that is no longer waited for.
    pub(super) fn retain_waiting<T>(
        &self,
        batch: &mut Vec<T>,
        id: impl Fn(&T) -> Option<&ByteString>,
    ) {
        let state = self.state.lock();
        batch.retain(|outgoing| id(outgoing).is_none_or(|id| state.table.contains(id)));
    }

    /// Answers the waiters of `replies`, with one lock for all of them.
    pub(super) fn complete(&self, replies: Vec<Message>) {
        let count = replies.len();
        let mut answers = Vec::with_capacity(count);
        let empty = {
            let mut state = self.state.lock();
            answers.extend(
                replies
                    .into_iter()
                    .filter_map(|reply| Some((state.table.complete(&reply.corr)?, reply))),
            );
            state.table.is_empty()
        };
        self.counters.answered.add(answers.len());
        self.counters.late.add(count - answers.len());
        for (waiter, reply) in answers {
            // A caller that has just gone is no loss.
            let _ = waiter.send(Ok(reply));
        }
        self.left(empty);
    }

    /// Fails the waiter of `id`, because its request was not stored.
    pub(super) fn fail(&self, id: &str, error: Error) {
        let (waiter, empty) = {
            let mut state = self.state.lock();
            (state.table.complete(id), state.table.is_empty())
        };
        if let Some(waiter) = waiter {
            let _ = waiter.send(Err(error));
        }
        self.left(empty);
    }

    /// Removes the waiter of `id`, because its caller gave up.
    pub(super) fn cancel(&self, id: &str) {
        let (waiter, empty) = {
            let mut state = self.state.lock();
            (state.table.complete(id), state.table.is_empty())
        };
        self.counters.cancelled.add(waiter.is_some().into());
        self.left(empty);
    }

    /// Fails whoever waited until `now`, and answers when to look again.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let (expired, next, empty) = {
            let mut state = self.state.lock();
            let expired = state.table.expire(now);
            state.armed = state.table.next_deadline();
            (expired, state.armed, state.table.is_empty())
        };
        self.counters.timed_out.add(expired.len());
        for waiter in expired {
            let _ = waiter.send(Err(Error::unknown(
                "no-reply-in-time",
                "no answer arrived before the deadline; the request may have been handled, or may still be",
            )));
        }
        self.left(empty);
        next
    }

    /// Fails everyone who still waits.
    pub(super) fn close(&self) {
        let waiters = self.state.lock().table.drain();
        for waiter in waiters {
            let _ = waiter.send(Err(closed()));
        }
        self.emptied.notify_waiters();
    }

    /// Tells everyone who still waits that their answers are not waited for any longer. Answers how many that were.
    pub(super) fn give_up(&self) -> usize {
        let waiters = self.state.lock().table.drain();
        let count = waiters.len();
        for waiter in waiters {
            let _ = waiter.send(Err(Error::unknown(
                "given-up",
                "the answer is not waited for any longer; the request may have been handled, or may still be",
            )));
        }
        self.emptied.notify_waiters();
        count
    }

    /// Completes once nobody waits.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Registered before looking, so that a change in between is not missed.
            emptied.as_mut().enable();
            if self.state.lock().table.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn stats(&self) -> ClientStats {
        let in_flight = self.state.lock().table.len();
        self.counters.read(in_flight)
    }

    fn left(&self, empty: bool) {
        if empty {
            self.emptied.notify_waiters();
        }
    }
}

pub(super) fn closed() -> Error {
    Error::closed("this client is closed; open a new one if it is still needed")
}

/// Expires waiters: one timer, for the earliest deadline.
pub(super) async fn run_timer(replies: Arc<Replies>, stop: CancellationToken) {
    loop {
        let now = tokio::time::Instant::now().into_std();
        let next = replies.expire(now);
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => (),
            () = replies.rearm.notified() => (),
            () = stop.cancelled() => return,
        }
    }
}
