//! Records: what is written to the log. The numbers are stable; a gap is a retired kind.
//!
//! A record is its kind (one byte) and its fields, little-endian; names are `u8` length and text, positions two `u64`,
//! lists a `u32` count and the items. An entry is its position, a tag, and its fields, so that it can be read alone,
//! given where it stands in its frame.

use bytes::Bytes;
use bytestring::ByteString;
use streamerson_core::{Name, Position, Topic};

/// The number that begins a record.
pub(super) mod kind {
    pub(crate) const APPEND: u8 = 1;
    pub(crate) const SETTLE: u8 = 2;
    pub(crate) const RETRY: u8 = 3;
    pub(crate) const GROUP_CREATED: u8 = 4;
    pub(crate) const GROUP_MOVED: u8 = 5;
    pub(crate) const GROUP_REMOVED: u8 = 6;
    pub(crate) const TRIMMED: u8 = 7;
    pub(crate) const TOPIC_REMOVED: u8 = 8;
    pub(crate) const CHECKPOINT: u8 = 9;
    pub(crate) const TOPIC: u8 = 10;
    pub(crate) const SEGMENT_REMOVED: u8 = 11;
    pub(crate) const CLOSED: u8 = 12;
    pub(crate) const DELIVERED: u8 = 13;
    pub(crate) const SCHEDULED: u8 = 14;
    pub(crate) const APPEARED: u8 = 15;
    pub(crate) const TAKEN: u8 = 16;
    pub(crate) const STORED_ONCE: u8 = 17;
    pub(crate) const DONE_ONCE: u8 = 18;
    pub(crate) const DIVIDED: u8 = 19;
    pub(crate) const EPOCH: u8 = 20;
    pub(crate) const WAITING: u8 = 21;
    pub(crate) const HOLES: u8 = 22;
    pub(crate) const GROUP_GONE: u8 = 23;
    pub(crate) const GROUP_MOVED_FROM: u8 = 24;
}

/// The tag of an entry.
pub(super) mod tag {
    pub(crate) const MESSAGE: u8 = 0;
    pub(crate) const FOREIGN: u8 = 1;
}

/// A record, as recovery sees it. Bodies of entries are not read: see [`super::decode::entry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// An entry was appended.
    Append(Placed),
    /// A delivery was completed, and its outputs appended.
    Settle {
        /// Of which topic.
        topic: Topic,
        /// Of which group.
        group: Name,
        /// Which delivery.
        position: Position,
        /// What was appended with it.
        outputs: Vec<Placed>,
    },
    /// A delivery was given back.
    Retry {
        /// Of which topic.
        topic: Topic,
        /// Of which group.
        group: Name,
        /// Which delivery, when it is due, how often it has been delivered.
        held: HeldRecord,
    },
    /// A group was created.
    GroupCreated {
        /// Of which topic.
        topic: Topic,
        /// Its name.
        group: Name,
        /// Where it began.
        cursor: Position,
    },
    /// A group's cursor was moved.
    GroupMoved {
        /// Of which topic.
        topic: Topic,
        /// Its name.
        group: Name,
        /// Up to where it had been delivered: what is pending of that stays so. Zero in `GROUP_MOVED`, which is no longer written.
        from: Position,
        /// Where to.
        cursor: Position,
    },
    /// A group was removed.
    GroupRemoved {
        /// Of which topic.
        topic: Topic,
        /// Its name.
        group: Name,
    },
    /// A group is gone, and where all was settled in it is kept for those who join it again: a group that was destroyed by somebody
    /// who does not know us; in a checkpoint, every one.
    GroupGone {
        /// Of which topic.
        topic: Topic,
        /// Its name.
        group: Name,
        /// Up to where all was settled.
        cursor: Position,
        /// Nobody asked us to remove it: whoever joins it next goes on there, not only who was in it.
        lost: bool,
    },
    /// Everything before `boundary` was removed.
    Trimmed {
        /// From which topic.
        topic: Topic,
        /// The first position kept.
        boundary: Position,
    },
    /// A topic was removed, with all it had.
    TopicRemoved {
        /// Which.
        topic: Topic,
    },
    /// The head of a segment: what follows replaces everything the segments before it said about groups.
    Checkpoint {
        /// The newest position given in any topic.
        newest: Position,
        /// The segments before this one that are still needed.
        segments: Vec<Sealed>,
    },
    /// Part of a checkpoint: a topic as it stood.
    Topic(TopicRecord),
    /// A segment is about to be deleted: nothing in it is needed any more.
    SegmentRemoved {
        /// Its number.
        number: u64,
    },
    /// The log was closed in order: everything before was written as intended.
    Closed,
    /// Messages were delivered again.
    Delivered {
        /// Of which topic.
        topic: Topic,
        /// To which group.
        group: Name,
        /// Which, and how often each has been delivered, this time included.
        grants: Vec<(Position, u32)>,
    },
    /// An entry was kept aside until it is due: its position is the due time, in unix milliseconds, and a number.
    Scheduled(Placed),
    /// What was kept aside stands in its topic.
    Appeared {
        /// What it was kept as.
        id: Position,
        /// Where it stands now.
        placed: Placed,
    },
    /// An entry was taken out of a topic, and others appended.
    Taken {
        /// Of which topic.
        topic: Topic,
        /// Which entry.
        position: Position,
        /// What was appended with it.
        outputs: Vec<Placed>,
    },
    /// An entry was stored under a key, so that it is stored once.
    StoredOnce {
        /// In which topic.
        topic: Topic,
        /// Its key.
        key: ByteString,
        /// Where it stands.
        position: Position,
        /// When the key is forgotten, in unix milliseconds.
        until: u64,
    },
    /// A completion had its effect, under a key.
    DoneOnce {
        /// In which topic.
        topic: Topic,
        /// In which group.
        group: Name,
        /// Its key.
        key: ByteString,
        /// When the key is forgotten, in unix milliseconds.
        until: u64,
        /// What was answered, if anything: `meta` and `data`.
        answer: Option<(Bytes, Bytes)>,
    },
    /// A topic was divided.
    Divided {
        /// Which.
        topic: Topic,
        /// Into how many partitions.
        partitions: u32,
    },
    /// An epoch was given to the holder of a lease: later ones are greater.
    Epoch {
        /// Of which topic.
        topic: Topic,
        /// Which.
        epoch: u64,
    },
    /// Part of a checkpoint: what is still kept aside, of what the segments before say.
    Waiting {
        /// What each is kept as.
        ids: Vec<Position>,
    },
    /// Part of a checkpoint: what was taken out of a topic, of what the segments before say.
    Holes {
        /// Of which topic.
        topic: Topic,
        /// Which entries.
        positions: Vec<Position>,
    },
}

/// An entry in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Its topic.
    pub(crate) topic: Topic,
    /// Its position.
    pub(crate) position: Position,
    /// Where in the frame's body it stands: see [`super::decode::entry`].
    pub(crate) at: u32,
}

/// A topic as it stood at a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRecord {
    /// Which.
    pub(crate) topic: Topic,
    /// The newest position given.
    pub(crate) last: Position,
    /// Everything before was removed.
    pub(crate) boundary: Position,
    /// Whether it was removed, and nothing was appended since.
    pub(crate) removed: bool,
    /// Its groups.
    pub(crate) groups: Vec<GroupRecord>,
}

/// A group as it stood at a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupRecord {
    /// Its name.
    pub(crate) name: Name,
    /// The newest position delivered.
    pub(crate) cursor: Position,
    /// What was delivered and not settled.
    pub(crate) held: Vec<HeldRecord>,
}

/// A delivery as it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldRecord {
    /// Of the message at this position.
    pub(crate) position: Position,
    /// When it may be delivered again, in unix milliseconds; 0: at once.
    pub(crate) due_unix_ms: u64,
    /// How often it has been delivered.
    pub(crate) attempt: u32,
}

/// A segment that is no longer written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Its number.
    pub(crate) number: u64,
    /// Where its last frame ends.
    pub(crate) end: u64,
}
