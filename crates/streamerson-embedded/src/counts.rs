//! What happened that nobody was told in an answer, since the broker was opened.

use std::sync::atomic::{AtomicU64, Ordering};

use streamerson_core::stats::Incidents;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Entries that were not messages, moved to the dead letters.
    pub(crate) foreign_entries: Count,
    /// Messages that were removed while a group had them pending.
    pub(crate) lost_messages: Count,
    /// Groups that were destroyed, or whose topic was removed, while somebody worked in them.
    pub(crate) lost_groups: Count,
}

impl Counts {
    pub(crate) fn read(&self) -> Incidents {
        Incidents {
            reconnects: 0,
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
