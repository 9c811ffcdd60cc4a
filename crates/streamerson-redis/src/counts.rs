//! What happened that nobody was told in an answer.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the broker was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Times that the shared connection was lost.
    pub reconnects: u64,
    /// Entries that were not messages, moved to the dead letters.
    pub foreign_entries: u64,
    /// Messages that were trimmed away while a group had them pending: never processed.
    pub lost_messages: u64,
    /// Times that a consumer group, or its topic, was deleted while a member worked in it.
    pub lost_groups: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reconnects: Count,
    pub(crate) foreign_entries: Count,
    pub(crate) lost_messages: Count,
    pub(crate) lost_groups: Count,
}

impl Counts {
    pub(crate) fn read(&self) -> Counters {
        Counters {
            reconnects: self.reconnects.read(),
            foreign_entries: self.foreign_entries.read(),
            lost_messages: self.lost_messages.read(),
            lost_groups: self.lost_groups.read(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
