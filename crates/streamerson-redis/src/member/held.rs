//! What a member knows of its own work: enough to begin again at the right place when the group is lost.

use std::collections::BTreeSet;

use streamerson_core::Position;
use tokio::time::Instant;

/// The deliveries of one member, and how far it has come.
#[derive(Debug)]
pub(crate) struct Held {
    unsettled: BTreeSet<Position>,
    cursor: Position,
    retry_due: Option<Instant>,
}

impl Held {
    /// A member of a group that stands at `cursor`.
    pub(crate) fn new(cursor: Position) -> Held {
        Held {
            unsettled: BTreeSet::new(),
            cursor,
            retry_due: None,
        }
    }

    pub(crate) fn deliver(&mut self, position: Position) {
        self.cursor = self.cursor.max(position);
        self.unsettled.insert(position);
    }

    /// Taken over: the group's cursor has passed it before.
    pub(crate) fn claim(&mut self, position: Position) {
        self.unsettled.insert(position);
    }

    pub(crate) fn settle(&mut self, position: Position) {
        self.unsettled.remove(&position);
    }

    /// Sets the cursor to where the group stands.
    pub(crate) fn begin_at(&mut self, cursor: Position) {
        self.cursor = cursor;
    }

    /// A retry that this member asked for is due at `due`.
    pub(crate) fn retry_at(&mut self, due: Instant) {
        self.retry_due = Some(self.retry_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// The earliest retry asked for since the last call.
    pub(crate) fn take_retry_due(&mut self) -> Option<Instant> {
        self.retry_due.take()
    }

    /// The newest position.
    pub(crate) fn cursor(&self) -> Position {
        self.cursor
    }

    /// Everything up to here is settled, as far as this member knows.
    pub(crate) fn settled_up_to(&self) -> Position {
        let first = self.unsettled.first().copied().map(before);
        first.map_or(self.cursor, |first| first.min(self.cursor))
    }
}

/// The position before this one.
pub(crate) fn before(position: Position) -> Position {
    match (position.major(), position.minor()) {
        (0, 0) => Position::ZERO,
        (major, 0) => Position::new(major - 1, u64::MAX),
        (major, minor) => Position::new(major, minor - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unsettled_is_passed_over() {
        let at = |n| Position::new(n, 0);
        let mut held = Held::new(at(5));
        assert_eq!(held.settled_up_to(), at(5));
        held.deliver(at(7));
        held.deliver(at(9));
        assert_eq!(held.settled_up_to(), Position::new(6, u64::MAX));
        held.settle(at(7));
        assert_eq!(held.settled_up_to(), Position::new(8, u64::MAX));
        held.claim(at(3));
        assert_eq!(held.settled_up_to(), Position::new(2, u64::MAX));
        held.settle(at(3));
        held.settle(at(9));
        assert_eq!(held.settled_up_to(), at(9));
    }
}
