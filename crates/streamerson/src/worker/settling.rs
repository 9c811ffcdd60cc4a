//! Settles what handlers ended: one task per member, batches, one of them in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use http::StatusCode;
use streamerson_core::{
    Append, Error, ErrorKind, Message, Outcome, Position, Receipt, Settlement, Settler,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::held::Held;
use super::outcome::Rules;
use super::stats::WorkerStats;
use crate::backoff::Backoff;
use crate::{IntoReply, Problem};

/// The most settlements in one call.
const BATCH: usize = 256;

/// So many settlements that the broker did not take may wait to be repeated; beyond that, new ones wait as well.
const MOST_AGAIN: usize = 1024;

/// Settles what arrives until the channel is closed and empty. What the broker cannot take at the moment is repeated again and
/// again, and keeps nothing else waiting: a repeat is harmless, because the first one that happened wins, and the work is
/// done already.
pub(super) async fn run(
    settler: Arc<dyn Settler>,
    mut ended: mpsc::Receiver<Vec<Ended>>,
    held: Arc<Held>,
    rules: Arc<Rules>,
) {
    let mut fresh: VecDeque<Ended> = VecDeque::new();
    let mut again = Again::default();
    let mut open = true;
    loop {
        let takes = open && again.waiting.len() < MOST_AGAIN;
        if fresh.is_empty() {
            tokio::select! {
                more = ended.recv(), if takes => match more {
                    Some(more) => fresh.extend(more),
                    None => open = false,
                },
                () = again.due(), if !again.waiting.is_empty() => (),
                else => return,
            }
        }
        while takes && fresh.len() < BATCH {
            let Ok(more) = ended.try_recv() else { break };
            fresh.extend(more);
        }
        let batch = fresh.drain(..fresh.len().min(BATCH)).collect();
        for batch in [batch, again.take(Instant::now())] {
            if !batch.is_empty() {
                again.add(settle(&*settler, batch, &held, &rules).await);
            }
        }
    }
}

/// What is to be repeated, and when.
#[derive(Default)]
struct Again {
    waiting: Vec<(Instant, Ended)>,
}

impl Again {
    /// Waits until something is due.
    async fn due(&self) {
        if let Some(next) = self.waiting.iter().map(|(at, _)| *at).min() {
            tokio::time::sleep_until(next).await;
        }
    }

    /// What is due, as far as it fits in one call.
    fn take(&mut self, now: Instant) -> Vec<Ended> {
        let mut due = Vec::new();
        let mut later = Vec::new();
        for (at, ended) in self.waiting.drain(..) {
            match at <= now && due.len() < BATCH {
                true => due.push(ended),
                false => later.push((at, ended)),
            }
        }
        self.waiting = later;
        due
    }

    /// Repeats `failed`, those that failed equally often together.
    fn add(&mut self, failed: Vec<Ended>) {
        let (now, chance) = (Instant::now(), rand::random());
        self.waiting.extend(failed.into_iter().map(|mut ended| {
            let at = now + ended.backoff.next(chance);
            (at, ended)
        }));
    }
}

/// A settlement, kept until the broker has taken it.
#[derive(Debug)]
pub(super) struct Ended {
    /// What becomes a dead letter when the broker refuses the outputs, where nobody would hear of it.
    message: Option<Box<Message>>,
    position: Position,
    attempt: u32,
    outcome: Outcome,
    replaced: bool,
    backoff: Backoff,
}

impl Ended {
    /// The settlement of `message`.
    pub(super) fn new(message: &Message, settlement: Settlement) -> Ended {
        let letter = match &settlement.outcome {
            Outcome::Complete { outputs, .. } => !outputs.iter().any(is_awaited),
            Outcome::Retry { .. } => false,
        };
        Ended {
            message: letter.then(|| Box::new(message.clone())),
            position: settlement.receipt.position(),
            attempt: settlement.receipt.attempt(),
            outcome: settlement.outcome,
            replaced: false,
            backoff: Backoff::new(),
        }
    }

    fn is_retry(&self) -> bool {
        matches!(self.outcome, Outcome::Retry { .. })
    }

    /// Whether to ask again after `error`. A retry that may have happened is not repeated: it could take the message from
    /// this member's own next attempt. Its lease runs out instead.
    fn may_repeat(&self, error: &Error) -> bool {
        match error.kind() {
            ErrorKind::Unavailable => true,
            ErrorKind::Unknown => !self.is_retry(),
            _ => false,
        }
    }

    /// Replaces outputs that the broker will never take by a failure, for each caller who waits, or by a dead letter when
    /// nobody does; then the work need not be done again. `false`: a failure was refused already.
    fn replace_refused(&mut self, error: &Error, rules: &Rules, stats: &mut WorkerStats) -> bool {
        let Outcome::Complete { outputs, once } = &mut self.outcome else {
            return false;
        };
        if error.kind() != ErrorKind::Invalid || self.replaced {
            return false;
        }
        // A failure is no effect, to be remembered.
        *once = None;
        let detail = format!(
            "the work was done, but the broker refuses what follows from it: {} ({})",
            error.detail(),
            error.code()
        );
        let problem = || {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, "outputs-refused", detail.clone())
        };
        let failures =
            outputs
                .drain(..)
                .filter(is_awaited)
                .map(|Append { topic, message, .. }| {
                    let failure = problem().into_reply().answer(&message);
                    let inbox = message.reply_to().filter(|_| !topic.is_inbox());
                    Append::new(inbox.unwrap_or(topic), failure)
                });
        *outputs = failures.collect();
        if let Some(message) = self.message.take() {
            let receipt = Receipt::new(self.position, self.attempt);
            stats.dead += 1;
            outputs.push(rules.dead_letter(&message, &receipt, &problem(), rules.moment()));
        }
        self.replaced = true;
        true
    }

    fn settlement(&self) -> Settlement {
        let outcome = match &self.outcome {
            Outcome::Complete { outputs, once } => Outcome::Complete {
                outputs: outputs.iter().map(Append::clone).collect(),
                once: once.clone(),
            },
            Outcome::Retry { after } => Outcome::Retry { after: *after },
        };
        Settlement {
            receipt: Receipt::new(self.position, self.attempt),
            outcome,
        }
    }
}

/// Whether somebody waits: for this answer, or for that of the next stage.
fn is_awaited(output: &Append) -> bool {
    output.topic.is_inbox() || output.message.reply_to().is_some()
}

/// Settles `batch`, and answers what is to be tried again.
async fn settle(
    settler: &dyn Settler,
    batch: Vec<Ended>,
    held: &Held,
    rules: &Rules,
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
            if ended.may_repeat(&error) || ended.replace_refused(&error, rules, &mut stats) {
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
    rules.counters.add(&stats);
    again
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
