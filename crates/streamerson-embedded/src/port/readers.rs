//! Which members read over a connection of their own, so that one whose connection has closed is given nothing more.
//!
//! A client reads over one connection and takes over on another. A search that it sent before it went may be looked at
//! after its reading connection closed; what it found then would be held for a whole lease by nobody.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use streamerson_core::Name;

use crate::engine::GroupKey;

/// The members that read, and those that did a moment ago.
#[derive(Debug, Default)]
pub(super) struct Readers {
    members: Mutex<HashMap<(GroupKey, Name), Presence>>,
}

#[derive(Debug, Clone, Copy)]
enum Presence {
    /// Over so many connections.
    Reads(usize),
    /// No more, since.
    Gone(Instant),
}

/// What was sent before a connection closed has arrived by then.
const STRAGGLERS: Duration = Duration::from_secs(10);

impl Readers {
    /// `member` reads over one connection more.
    pub(super) fn enter(&self, key: &GroupKey, member: &Name) {
        let mut members = self.members.lock();
        let presence = members
            .entry((key.clone(), member.clone()))
            .or_insert(Presence::Reads(0));
        *presence = match presence {
            Presence::Reads(connections) => Presence::Reads(*connections + 1),
            Presence::Gone(_) => Presence::Reads(1),
        };
    }

    /// `member` reads over one connection less.
    pub(super) fn leave(&self, key: &GroupKey, member: &Name, now: Instant) {
        let mut members = self.members.lock();
        members.retain(|_, presence| match presence {
            Presence::Reads(_) => true,
            Presence::Gone(since) => now.duration_since(*since) < STRAGGLERS,
        });
        if let Some(presence) = members.get_mut(&(key.clone(), member.clone())) {
            *presence = match presence {
                Presence::Reads(connections @ 2..) => Presence::Reads(*connections - 1),
                _ => Presence::Gone(now),
            };
        }
    }

    /// Whether `member` has read, and no longer does.
    pub(super) fn is_gone(&self, key: &GroupKey, member: &Name) -> bool {
        let members = self.members.lock();
        let presence = members.get(&(key.clone(), member.clone()));
        matches!(presence, Some(Presence::Gone(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::Topic;

    #[test]
    fn a_member_is_gone_with_its_last_connection_until_it_comes_again() {
        let key = GroupKey {
            topic: Topic::new("a").unwrap(),
            group: Name::new("g").unwrap(),
        };
        let (ada, bob) = (Name::new("ada").unwrap(), Name::new("bob").unwrap());
        let readers = Readers::default();
        let now = Instant::now();
        assert!(!readers.is_gone(&key, &ada));
        readers.enter(&key, &ada);
        readers.enter(&key, &ada);
        readers.leave(&key, &ada, now);
        assert!(!readers.is_gone(&key, &ada));
        readers.leave(&key, &ada, now);
        assert!(readers.is_gone(&key, &ada) && !readers.is_gone(&key, &bob));
        readers.enter(&key, &ada);
        assert!(!readers.is_gone(&key, &ada));

        // Who left long ago is forgotten.
        readers.leave(&key, &ada, now);
        readers.enter(&key, &bob);
        readers.leave(&key, &bob, now + STRAGGLERS);
        assert!(!readers.is_gone(&key, &ada));
        assert_eq!(readers.members.lock().len(), 1);
    }
}
