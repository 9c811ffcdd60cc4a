//! What happened in a run: the material the oracle judges. All times are on one clock, see [`super::clock`].

use std::fmt;
use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use streamerson_core::Position;

use super::fault::Fault;

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// What was sent, and what came of it, in no order.
    pub(crate) calls: Vec<Call>,
    /// The streams that workers read, at the end: every entry ever appended.
    pub(crate) entries: Vec<Stored>,
    /// The topic that handlers' outputs go to, at the end, in order.
    pub(crate) effects: Vec<Effect>,
    /// Dead letters, at the end.
    pub(crate) letters: Vec<Letter>,
    /// Handlers that began, in no order.
    pub(crate) handlings: Vec<Handling>,
    /// Workers killed.
    pub(crate) kills: Vec<Kill>,
    /// Times in which something else went wrong.
    pub(crate) episodes: Vec<Window>,
    /// Results that were refused because another member had settled first.
    pub(crate) fenced: u64,
    /// From the end of all faults until nothing was left to do; none: something was.
    pub(crate) drained: Option<Duration>,
    /// What the group had left to do at the end.
    pub(crate) rest: Rest,
}

/// Where an entry stands. A position says it within one stream only: the topic of queued work, or a partition of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) stream: u32,
    pub(crate) position: Position,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.stream, self.position)
    }
}

/// A place in the order of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) key: u32,
    /// Grows with every message of the key.
    pub(crate) number: u32,
}

/// A message sent by the load, or by a fault.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) id: ByteString,
    /// Comes back with the effect and the reply.
    pub(crate) nonce: u64,
    pub(crate) kind: Kind,
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) end: End,
    /// Where the broker said it stands; several when it was sent several times.
    pub(crate) places: Vec<Place>,
    /// When it has an order to keep.
    pub(crate) turn: Option<Turn>,
}

/// What was wanted of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An answer.
    Request,
    /// An effect.
    Send,
    /// Nothing but harm.
    Poison,
}

/// What its sender learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Answered, with this nonce in the reply; none if there was no such thing in it.
    Answered(Option<u64>),
    /// Answered with a failure of this code.
    Failed(String),
    /// Stored, and no answer wanted.
    Stored,
    /// Nothing happened, says this code.
    Refused(String),
    /// It may have happened, says this code.
    Unknown(String),
}

/// An entry of a stream that workers read.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) place: Place,
    pub(crate) id: ByteString,
}

/// What a handler published: the id of its message, and the nonce in it.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) id: ByteString,
    pub(crate) nonce: u64,
    pub(crate) turn: Option<Turn>,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) id: ByteString,
    pub(crate) place: Option<Place>,
    pub(crate) attempts: u32,
}

/// A handler that ran.
#[derive(Debug, Clone)]
pub(crate) struct Handling {
    pub(crate) worker: u32,
    pub(crate) place: Place,
    /// Which delivery of the message it was.
    pub(crate) attempt: u32,
    pub(crate) began: Duration,
    /// None: it did not end, or nobody heard.
    pub(crate) ended: Option<Duration>,
}

/// The end of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    pub(crate) worker: u32,
    pub(crate) at: Duration,
    /// Messages in its handlers at that moment.
    pub(crate) holding: usize,
    /// The partitions that were its own just before, by the numbers of their streams; none: the broker did not say.
    pub(crate) owned: Option<Vec<u32>>,
}

/// A fault from its beginning to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) fault: Fault,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// What it hit: messages held by who was stopped, connections cut, processes or groups lost.
    pub(crate) hit: usize,
}

impl Window {
    /// Whether it overlaps with `from..to`, when it has an effect for `after` beyond its end.
    pub(crate) fn touches(&self, from: Duration, to: Duration, after: Duration) -> bool {
        self.from <= to && from <= self.to + after
    }
}

/// What the groups have left to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) lag: Option<u64>,
    pub(crate) pending: u64,
    pub(crate) scheduled: u64,
}

impl Rest {
    /// Whether there is nothing.
    pub(crate) fn is_none(&self) -> bool {
        *self
            == Rest {
                lag: Some(0),
                pending: 0,
                scheduled: 0,
            }
    }
}
