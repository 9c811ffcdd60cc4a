//! Sends what is queued: whatever arrives while a batch is in flight forms the next one.

use std::sync::Arc;

use bytestring::ByteString;
use streamerson_core::{Append, Position, Result};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::replies::Replies;
use crate::partitions::Partitions;

/// The most messages in one append: more would only delay the answer to the first of them.
const BATCH: usize = 512;

/// A message on its way to the broker, and who wants to know what became of it.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) append: Append,
    pub(super) confirm: Confirm,
}

#[derive(Debug)]
pub(super) enum Confirm {
    /// A request: its waiter, by correlation id, learns only of failure.
    Request(ByteString),
    /// A plain message: its position, once stored.
    Stored(oneshot::Sender<Result<Position>>),
}

impl Outgoing {
    fn request(&self) -> Option<&ByteString> {
        match &self.confirm {
            Confirm::Request(id) => Some(id),
            Confirm::Stored(_) => None,
        }
    }
}

/// Runs until every client is gone or `stop` was given, and everything queued has been sent.
pub(super) async fn run(
    partitions: Partitions,
    replies: Arc<Replies>,
    mut outbox: mpsc::Receiver<Outgoing>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !outbox.is_closed() => {
                outbox.close();
                continue;
            }
            received = outbox.recv_many(&mut batch, BATCH) => if received == 0 {
                return;
            },
        }
        // Whoever stands in line may have more to send: waiting for a turn costs less than another batch.
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(more) = outbox.try_recv()
        {
            batch.push(more);
        }
        // Who hung up or ran out of time while queued must not cause work.
        replies.retain_waiting(&mut batch, Outgoing::request);
        if !batch.is_empty() {
            send(&partitions, &replies, &mut batch).await;
        }
    }
}

async fn send(partitions: &Partitions, replies: &Replies, batch: &mut Vec<Outgoing>) {
    let mut appends = Vec::with_capacity(batch.len());
    let mut confirms = Vec::with_capacity(batch.len());
    for outgoing in batch.drain(..) {
        appends.push(outgoing.append);
        confirms.push(outgoing.confirm);
    }
    let results = partitions.append(appends).await;
    let mut stored = 0;
    for (confirm, result) in confirms.into_iter().zip(results) {
        stored += usize::from(result.is_ok());
        replies.counters.failed.add(result.is_err().into());
        match (confirm, result) {
            (Confirm::Stored(waiter), result) => {
                let _ = waiter.send(result);
            }
            (Confirm::Request(id), Err(error)) => replies.fail(&id, error),
            (Confirm::Request(_), Ok(_)) => (),
        }
    }
    replies.counters.sent.add(stored);
}
