//! What is asked of the committer.

use std::time::Duration;

use streamerson_core::group::Held;
use streamerson_core::retention::Trimmed;
use streamerson_core::{Error, Name, Outcome, Position, Result, Settlement, Start, Topic};
use tokio::sync::oneshot;

use super::{GroupKey, NewEntry, Trim};
use crate::body::Body;
use crate::log::encode::{entry_bound, settle_bound};

/// What is asked of the committer. The answer is sent once it is stored.
#[derive(Debug)]
pub(crate) enum Op {
    /// Append entries.
    Append {
        /// In order.
        entries: Vec<Pending>,
        /// Positions, in the same order.
        answer: oneshot::Sender<Vec<Result<Position>>>,
    },
    /// Settle deliveries of a group.
    Settle {
        /// Of which group.
        key: GroupKey,
        /// In whose name.
        member: Name,
        /// In order.
        items: Vec<Item>,
        /// In the same order.
        answer: oneshot::Sender<Vec<Result<()>>>,
    },
    /// Change a topic or group. Committed alone.
    Change {
        /// What.
        change: Change,
        /// What it did.
        answer: oneshot::Sender<Result<Changed>>,
    },
}

/// An entry on its way.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Where it goes.
    pub(crate) topic: Topic,
    /// What it holds.
    pub(crate) body: Body,
    /// The position that its writer insists on.
    pub(crate) insisted: Option<Position>,
    /// The position it is given, or why it is refused.
    pub(crate) position: Result<Position>,
    /// Where in the frame it stands.
    pub(crate) at: u32,
}

/// A settlement on its way.
#[derive(Debug)]
pub(crate) struct Item {
    /// Of which delivery.
    pub(crate) position: Position,
    /// How it is to end.
    pub(crate) end: End,
    /// What was decided.
    pub(crate) verdict: Verdict,
}

/// How a delivery is to end.
#[derive(Debug)]
pub(crate) enum End {
    /// With these outputs.
    Complete(Vec<Pending>),
    /// Again, later.
    Retry(Duration),
}

/// What was decided about a settlement.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing yet.
    Open,
    /// It ends the delivery, which was so before.
    Won(Held),
    /// It gives the delivery back, which was so before.
    Returned {
        /// The delivery before.
        before: Held,
        /// When it is due.
        due_unix_ms: u64,
    },
    /// It does not count.
    Lost(Error),
}

/// A change of a topic or group.
#[derive(Debug)]
pub(crate) enum Change {
    /// A group begins.
    CreateGroup(GroupKey, Start),
    /// A group ends.
    RemoveGroup(GroupKey),
    /// A group goes on elsewhere.
    SeekGroup(GroupKey, Start),
    /// The oldest entries go.
    Trim(Topic, Trim),
    /// A topic goes.
    RemoveTopic(Topic),
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Whether anything.
    Done(bool),
    /// What was trimmed.
    Trimmed(Trimmed),
}

impl Op {
    /// No more bytes than this are written for it.
    pub(crate) fn bound(&self) -> usize {
        match self {
            Op::Append { entries, .. } => {
                let accepted = entries.iter().filter(|entry| entry.position.is_ok());
                accepted.map(Pending::bound).sum()
            }
            Op::Settle { key, items, .. } => {
                let head = settle_bound(&key.topic, &key.group);
                items.iter().map(|item| head + item.bound()).sum()
            }
            Op::Change { .. } => 1024,
        }
    }

    /// Whether it adds to what is stored, so that it must wait when there is no space.
    pub(crate) fn is_append(&self) -> bool {
        matches!(self, Op::Append { .. })
    }

    /// Answers that it failed.
    pub(crate) fn refuse(self, error: &Error) {
        // Who no longer waits does not need the answer.
        match self {
            Op::Append { entries, answer } => {
                let refusals = entries
                    .into_iter()
                    .map(|entry| Err(entry.position.err().unwrap_or_else(|| error.clone())));
                let _ = answer.send(refusals.collect());
            }
            Op::Settle { items, answer, .. } => {
                let _ = answer.send(items.iter().map(|_| Err(error.clone())).collect());
            }
            Op::Change { answer, .. } => {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

impl Pending {
    /// An entry to append.
    pub(crate) fn new(entry: NewEntry) -> Pending {
        Pending {
            topic: entry.topic,
            body: entry.body,
            insisted: entry.position,
            position: Ok(Position::ZERO),
            at: 0,
        }
    }

    /// No more bytes than this are written for it.
    pub(crate) fn bound(&self) -> usize {
        entry_bound(&self.topic, &self.body)
    }
}

impl Item {
    /// A settlement to decide.
    pub(crate) fn new(settlement: Settlement) -> Item {
        let end = match settlement.outcome {
            Outcome::Complete { outputs, .. } => {
                let pending = outputs.into_iter().map(|output| {
                    Pending::new(NewEntry {
                        topic: output.topic,
                        body: Body::Message(output.message),
                        position: None,
                    })
                });
                End::Complete(pending.collect())
            }
            Outcome::Retry { after } => End::Retry(after),
        };
        Item {
            position: settlement.receipt.position(),
            end,
            verdict: Verdict::Open,
        }
    }

    /// Whether each of its outputs can be stored, and all of them together.
    pub(crate) fn check_size(&self) -> Result<()> {
        match &self.end {
            End::Complete(outputs) => check_sizes(outputs),
            End::Retry(_) => Ok(()),
        }
    }

    fn bound(&self) -> usize {
        match &self.end {
            End::Complete(outputs) => outputs.iter().map(Pending::bound).sum(),
            End::Retry(_) => 0,
        }
    }
}

/// The largest message, all fields together; the outputs of a settlement count as one, because they are written as one.
const MESSAGE: usize = 32 << 20;

/// Whether `entries`, written as one, can be stored.
pub(crate) fn check_sizes(entries: &[Pending]) -> Result<()> {
    let bytes: usize = entries.iter().map(|entry| entry.body.size()).sum();
    if bytes <= MESSAGE {
        return Ok(());
    }
    Err(Error::invalid(
        "message-too-large",
        format!(
            "{bytes} bytes are more than the {MESSAGE} that can be stored at once: store large content elsewhere, and \
             send where it is"
        ),
    ))
}
