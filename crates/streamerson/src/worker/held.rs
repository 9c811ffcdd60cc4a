//! What a member holds.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use streamerson_core::{Delivery, Position};

/// The positions a member holds: delivered, and not settled yet.
#[derive(Debug, Default)]
pub(super) struct Held {
    positions: Mutex<HashSet<Position, ahash::RandomState>>,
    limit: Option<Limit>,
}

/// How long a handler may take, and which have begun when.
#[derive(Debug)]
struct Limit {
    time: Duration,
    begun: Mutex<HashMap<Position, Instant, ahash::RandomState>>,
}

impl Held {
    /// Nothing yet. A handler that takes longer than `limit` does not hold its message any more.
    pub(super) fn new(limit: Option<Duration>) -> Held {
        Held {
            positions: Mutex::default(),
            limit: limit.map(|time| Limit {
                time,
                begun: Mutex::default(),
            }),
        }
    }

    /// Adds `deliveries`, and drops those held already: while signs of life get lost, a member may take over from
    /// itself what its handlers still work on.
    pub(super) fn add(&self, deliveries: &mut Vec<Delivery>) {
        let mut held = self.positions.lock();
        deliveries.retain(|delivery| held.insert(delivery.receipt.position()));
    }

    pub(super) fn remove(&self, positions: impl Iterator<Item = Position>) {
        let mut held = self.positions.lock();
        for position in positions {
            held.remove(&position);
        }
    }

    /// A handler begins with the message at `position`.
    pub(super) fn begin(&self, position: Position) {
        if let Some(limit) = &self.limit {
            limit.begun.lock().insert(position, Instant::now());
        }
    }

    /// It has ended; until it is settled, the message stays held.
    pub(super) fn end(&self, position: Position) {
        if let Some(limit) = &self.limit {
            limit.begun.lock().remove(&position);
        }
    }

    /// Gives up what handlers have had for longer than their limit, and answers how many there are. Who is given up may
    /// still end first, and settle.
    pub(super) fn give_up(&self, now: Instant) -> u64 {
        let Some(limit) = &self.limit else {
            return 0;
        };
        let mut overdue = Vec::new();
        limit.begun.lock().retain(|position, begun| {
            let is_overdue = now.saturating_duration_since(*begun) > limit.time;
            if is_overdue {
                overdue.push(*position);
            }
            !is_overdue
        });
        self.remove(overdue.iter().copied());
        overdue.len() as u64
    }

    pub(super) fn snapshot(&self) -> Vec<Position> {
        self.positions.lock().iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::{Message, Receipt};

    fn deliveries(positions: &[u64]) -> Vec<Delivery> {
        let delivery = |at: &u64| Delivery {
            receipt: Receipt::new(Position::new(*at, 0), 1),
            message: Message::new("a", ""),
        };
        positions.iter().map(delivery).collect()
    }

    #[test]
    fn what_is_held_is_not_taken_twice() {
        let held = Held::new(None);
        held.add(&mut deliveries(&[1]));
        let mut again = deliveries(&[1, 2]);
        held.add(&mut again);
        assert_eq!(again.len(), 1);
    }

    #[test]
    fn who_takes_too_long_holds_no_more_and_who_has_ended_or_not_begun_does() {
        let limit = Duration::from_secs(10);
        let held = Held::new(Some(limit));
        held.add(&mut deliveries(&[1, 2, 3]));
        for at in [1, 2] {
            held.begin(Position::new(at, 0));
        }
        held.end(Position::new(2, 0));
        let now = Instant::now();
        assert_eq!(held.give_up(now), 0);
        assert_eq!(held.give_up(now + limit + Duration::from_secs(1)), 1);
        let mut left = held.snapshot();
        left.sort_unstable();
        assert_eq!(left, [Position::new(2, 0), Position::new(3, 0)]);
        let mut again = deliveries(&[1]);
        held.add(&mut again);
        assert_eq!(again.len(), 1, "it may be taken again");
    }
}
