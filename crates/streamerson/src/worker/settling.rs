//! Settles what handlers ended: one task per member, batches, one of them in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use streamerson_core::{Append, Error, ErrorKind, Outcome, Position, Receipt, Settlement, Settler};
use tokio::sync::mpsc;

use super::held::Held;
use super::stats::{Counters, WorkerStats};
use crate::backoff::Backoff;

/// The most settlements in one call.
const BATCH: usize = 256;

/// How often the broker is asked to take a settlement. A repeat is harmless, because the first one that happened wins;
/// after the last the lease runs out, and the message is delivered again.
const TRIES: u32 = 8;

/// Settles what arrives until the channel is closed and empty.
pub(super) async fn run(
    settler: Arc<dyn Settler>,
    mut ended: mpsc::Receiver<Vec<Settlement>>,
    held: Arc<Held>,
    counters: Counters,
) {
    let mut queue: VecDeque<Ended> = VecDeque::new();
    let mut received = Vec::new();
    let mut backoff = Backoff::new();
    loop {
        if queue.is_empty() {
            let Some(first) = ended.recv().await else {
                return;
            };
            received.push(first);
        }
        while queue.len() + received.iter().map(Vec::len).sum::<usize>() < BATCH {
            let Ok(more) = ended.try_recv() else { break };
            received.push(more);
        }
        queue.extend(received.drain(..).flatten().map(Ended::new));
        let batch: Vec<Ended> = queue.drain(..queue.len().min(BATCH)).collect();
        let again = settle(&*settler, batch, &held, &counters).await;
        if again.is_empty() {
            backoff.reset();
            continue;
        }
        again
            .into_iter()
            .rev()
            .for_each(|ended| queue.push_front(ended));
        backoff.wait().await;
    }
}

/// A settlement, kept until the broker has taken it.
#[derive(Debug)]
struct Ended {
    position: Position,
    attempt: u32,
    outcome: Outcome,
    tries: u32,
}

impl Ended {
    fn new(settlement: Settlement) -> Ended {
        Ended {
            position: settlement.receipt.position(),
            attempt: settlement.receipt.attempt(),
            outcome: settlement.outcome,
            tries: 0,
        }
    }

    fn is_retry(&self) -> bool {
        matches!(self.outcome, Outcome::Retry { .. })
    }

    fn settlement(&self) -> Settlement {
        let outcome = match &self.outcome {
            Outcome::Complete { outputs } => Outcome::Complete {
                outputs: outputs.iter().map(Append::clone).collect(),
            },
            Outcome::Retry { after } => Outcome::Retry { after: *after },
        };
        Settlement {
            receipt: Receipt::new(self.position, self.attempt),
            outcome,
        }
    }
}

/// Settles `batch`, and answers what is to be tried again.
async fn settle(
    settler: &dyn Settler,
    batch: Vec<Ended>,
    held: &Held,
    counters: &Counters,
) -> Vec<Ended> {
    // What is to be tried again may come back before the answer to this call does; it must not look held then.
    held.remove(
        batch
            .iter()
            .filter(|ended| ended.is_retry())
            .map(|ended| ended.position),
    );
    let results = settler
        .settle(batch.iter().map(Ended::settlement).collect())
        .await;
    let mut stats = WorkerStats::default();
    let mut again = Vec::new();
    let mut done = Vec::with_capacity(batch.len());
    for (mut ended, result) in batch.into_iter().zip(results) {
        if let Err(error) = result {
            ended.tries += 1;
            if is_transient(&error) && ended.tries < TRIES {
                again.push(ended);
                continue;
            }
            note(&ended, &error, &mut stats);
        }
        if !ended.is_retry() {
            done.push(ended.position);
        }
    }
    held.remove(done.into_iter());
    counters.add(&stats);
    again
}

fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown)
}

fn note(ended: &Ended, error: &Error, stats: &mut WorkerStats) {
    let position = ended.position;
    if error.kind() == ErrorKind::Fenced {
        stats.fenced += 1;
        tracing::debug!(%position, "another member settled this message first; the result is discarded");
    } else {
        stats.unsettled += 1;
        tracing::error!(%position, %error, "the broker does not take this result; the message will be delivered again");
    }
}
