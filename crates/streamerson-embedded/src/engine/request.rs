//! What is asked of the engine, and what it shows.

use std::collections::BTreeMap;

use streamerson_core::group::{Grant, Group};
use streamerson_core::retention::Retention;
use streamerson_core::time::Millis;
use streamerson_core::{Name, Position, Topic};

use crate::body::Body;

/// An entry to append.
#[derive(Debug)]
pub(crate) struct NewEntry {
    /// Where it goes; created as needed.
    pub(crate) topic: Topic,
    /// What is stored.
    pub(crate) body: Body,
    /// Its position, if the writer insists; must be greater than every earlier one of the topic, else the append is
    /// refused as `Invalid`, code `position-not-greater`. `None`: the engine gives the next one.
    pub(crate) position: Option<Position>,
}

/// Names a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    /// The topic it shares.
    pub(crate) topic: Topic,
    /// Its name.
    pub(crate) group: Name,
}

/// What a member may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Only what nobody has had yet (`XREADGROUP … >`).
    New,
    /// Only what was given back and is due, or whose holder was silent for `lease`.
    Abandoned {
        /// In milliseconds.
        lease: Millis,
    },
    /// The abandoned first, then the new.
    Any {
        /// In milliseconds.
        lease: Millis,
    },
    /// The same, for an owner, who keeps an order.
    Owned {
        /// In milliseconds.
        lease: Millis,
    },
}

/// A delivery. `body` is `None` when the entry was trimmed away: settle it, there is nothing to work on.
#[derive(Debug)]
pub(crate) struct Work {
    /// Position and attempt.
    pub(crate) grant: Grant,
    /// What to work on.
    pub(crate) body: Option<Body>,
}

/// Which way a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

/// What to remove from a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trim {
    /// What the retention allows.
    Retain(Retention),
    /// Everything before this position, processed or not (`XTRIM MINID`).
    Before(Position),
    /// Everything but the newest so many, processed or not (`XTRIM MAXLEN`).
    Newest(u64),
}

/// A topic as it stands, seen under the lock: look, copy out what is needed, do not wait.
pub(crate) struct TopicView<'a> {
    /// Entries held.
    pub(crate) length: u64,
    /// Entries committed since it was opened, and those found then.
    pub(crate) appended: u64,
    /// Position of the oldest entry held.
    pub(crate) first: Option<Position>,
    /// Position of the newest entry ever committed.
    pub(crate) last: Option<Position>,
    /// When it expires on the engine's clock, if it is an inbox.
    pub(crate) expires: Option<Millis>,
    /// Its groups.
    pub(crate) groups: &'a BTreeMap<Name, Group>,
    /// How many entries stand after a position: a group's lag, from its cursor.
    pub(crate) count_after: &'a dyn Fn(Position) -> u64,
    /// Where the first entry after a position stands: what a group is given next, from its cursor.
    pub(crate) next_after: &'a dyn Fn(Position) -> Option<Position>,
    /// Messages kept aside until they are due.
    pub(crate) scheduled: u64,
    /// Into how many partitions it is divided; 0: it is not.
    pub(crate) partitions: u32,
}
