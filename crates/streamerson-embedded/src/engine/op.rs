//! What is asked of the committer.

use std::time::Duration;

use streamerson_core::group::{Grant, Held};
use streamerson_core::lease::Fence;
use streamerson_core::retention::Trimmed;
use streamerson_core::{
    Append, Error, Name, Outcome, Position, Result, Settlement, Start, Topic, dead_letter,
};
use tokio::sync::oneshot;

use super::terms::{Effect, Terms};
use super::{GroupKey, NewEntry, Trim};
use crate::body::Body;
use crate::log::encode::{entry_bound, settle_bound, take_bound};

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
        /// The lease under which the member may settle.
        fence: Option<Box<Fence>>,
        /// In order.
        items: Vec<Item>,
        /// In the same order.
        answer: oneshot::Sender<Vec<Result<()>>>,
    },
    /// Take an entry out of a topic.
    Take {
        /// Of which topic.
        topic: Topic,
        /// Which.
        position: Position,
        /// What is appended with it.
        outputs: Vec<Pending>,
        /// Whether it was there.
        taken: Result<bool>,
        /// The same.
        answer: oneshot::Sender<Result<bool>>,
    },
    /// Note that messages are delivered again.
    Deliver {
        /// To which group.
        key: GroupKey,
        /// Which, and how often.
        grants: Vec<Grant>,
        /// That it is noted.
        answer: oneshot::Sender<Result<()>>,
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
    /// When, and how often, it is to appear. Boxed, because few have any.
    pub(crate) terms: Option<Box<Terms>>,
}

/// A settlement on its way.
#[derive(Debug)]
pub(crate) struct Item {
    /// Of which delivery.
    pub(crate) position: Position,
    /// Of which attempt; 0: whichever it is.
    pub(crate) attempt: u32,
    /// How it is to end.
    pub(crate) end: End,
    /// What is to happen once. Boxed, because few have any.
    pub(crate) effect: Option<Box<Effect>>,
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
    /// The same, because somebody joins it: if it was lost, or `was_there` and is gone, it goes on where all was settled.
    JoinGroup {
        /// Which group.
        key: GroupKey,
        /// Where a new one begins.
        start: Start,
        /// Who joins was in it.
        was_there: bool,
    },
    /// A group ends.
    RemoveGroup(GroupKey),
    /// A group is destroyed by somebody who does not know us.
    LoseGroup(GroupKey),
    /// A group goes on elsewhere.
    SeekGroup(GroupKey, Start),
    /// The same, or it begins there: if the lease of the fence is held.
    BeginOrSeek {
        /// Which group.
        key: GroupKey,
        /// Where it goes on.
        start: Start,
        /// Who does it.
        fence: Option<Fence>,
    },
    /// The oldest entries go.
    Trim(Topic, Trim),
    /// A topic goes.
    RemoveTopic(Topic),
    /// A topic is divided.
    Divide(Topic, u32),
    /// A lease of a topic goes to a holder anew.
    Acquire {
        /// Of which topic.
        topic: Topic,
        /// Which lease.
        name: Name,
        /// To whom.
        holder: Name,
        /// For so many milliseconds.
        ttl: u64,
    },
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Whether anything.
    Done(bool),
    /// A group that was gone goes on behind this position.
    Resumed(Position),
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
            Op::Take { topic, outputs, .. } => {
                let bound: usize = outputs.iter().map(Pending::bound).sum();
                bound + take_bound(topic)
            }
            Op::Deliver { key, grants, .. } => {
                settle_bound(&key.topic, &key.group) + grants.len() * GRANT
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
            Op::Take { answer, .. } => {
                let _ = answer.send(Err(error.clone()));
            }
            Op::Deliver { answer, .. } => {
                let _ = answer.send(Err(error.clone()));
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
            terms: None,
        }
    }

    /// A message to append, on its terms.
    pub(crate) fn of(append: Append) -> Pending {
        let terms = Terms::of(&append);
        let mut pending = Pending::new(NewEntry {
            topic: append.topic,
            body: Body::Message(append.message),
            position: None,
        });
        pending.terms = terms;
        pending
    }

    /// Whether it may be kept aside.
    pub(crate) fn may_wait(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.may_wait())
    }

    /// No more bytes than this are written for it.
    pub(crate) fn bound(&self) -> usize {
        let terms = self.terms.as_ref().map_or(0, |terms| terms.bound());
        entry_bound(&self.topic, &self.body) + terms
    }
}

impl Item {
    /// A settlement to decide.
    pub(crate) fn new(settlement: Settlement) -> Item {
        let (end, once) = match settlement.outcome {
            Outcome::Complete { outputs, once } => {
                let outputs = outputs.into_iter().map(Pending::of).collect();
                (End::Complete(outputs), once)
            }
            Outcome::Retry { after } => (End::Retry(after), None),
        };
        Item {
            position: settlement.receipt.position(),
            attempt: settlement.receipt.attempt(),
            end,
            effect: once.map(|once| Effect::new(&once)),
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
            End::Complete(outputs) => {
                let effect = self.effect.as_ref();
                let bound: usize = outputs.iter().map(Pending::bound).sum();
                bound + effect.map_or(0, |effect| effect.bound(outputs))
            }
            End::Retry(_) => 0,
        }
    }

    /// Whether an output of it may be kept aside.
    pub(crate) fn may_wait(&self) -> bool {
        match &self.end {
            End::Complete(outputs) => outputs.iter().any(Pending::may_wait),
            End::Retry(_) => false,
        }
    }
}

/// What a delivery takes in the record of many.
const GRANT: usize = 20;

/// The largest message, all fields together; the outputs of a settlement count as one, because they are written as one.
/// Dead letters have more room, of their own.
pub(crate) const MESSAGE: usize = 32 << 20;

/// Whether `entries`, written as one, can be stored.
pub(crate) fn check_sizes(entries: &[Pending]) -> Result<()> {
    let (mut letters, mut others) = (0, 0);
    for entry in entries {
        let (bytes, limit) = match entry.topic.is_dead_letters() {
            true => (&mut letters, dead_letter::largest(&entry.topic, MESSAGE)),
            false => (&mut others, MESSAGE),
        };
        *bytes += entry.body.size();
        if *bytes > limit {
            return Err(Error::invalid(
                "message-too-large",
                format!(
                    "{bytes} bytes to {} are more than the {limit} that can be stored at once: store large content \
                     elsewhere, and send where it is",
                    entry.topic
                ),
            ));
        }
    }
    Ok(())
}
