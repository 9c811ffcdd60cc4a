//! Requests that wait for their reply.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use bytestring::ByteString;

/// Maps correlation ids to whoever waits for the reply. Bounded; each waiter leaves once: answered, expired or cancelled.
///
/// ```
/// use std::time::{Duration, Instant};
/// use streamerson_core::pending::PendingReplies;
///
/// let now = Instant::now();
/// let mut pending = PendingReplies::new(10);
/// pending.insert("id-1".into(), now + Duration::from_secs(3), "waiter").unwrap();
/// assert_eq!(pending.complete("id-1"), Some("waiter"));
/// assert_eq!(pending.complete("id-1"), None); // late, or repeated
/// ```
#[derive(Debug)]
pub struct PendingReplies<W> {
    waiters: HashMap<ByteString, Waiting<W>, ahash::RandomState>,
    deadlines: BTreeMap<(Instant, u64), ByteString>,
    inserted: u64,
    limit: usize,
}

#[derive(Debug)]
struct Waiting<W> {
    waiter: W,
    due: (Instant, u64),
}

/// The table is full, or the id is taken: the request was not accepted. Carries the waiter back.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<W>(pub W);

impl<W> PendingReplies<W> {
    /// An empty table for at most `limit` waiters.
    pub fn new(limit: usize) -> PendingReplies<W> {
        PendingReplies {
            waiters: HashMap::default(),
            deadlines: BTreeMap::new(),
            inserted: 0,
            limit,
        }
    }

    /// Adds a waiter. Answers whether its deadline is now the earliest, so that a timer must be set anew.
    pub fn insert(
        &mut self,
        id: ByteString,
        deadline: Instant,
        waiter: W,
    ) -> Result<bool, Refused<W>> {
        if self.waiters.len() >= self.limit || self.waiters.contains_key(&id) {
            return Err(Refused(waiter));
        }
        // The count keeps equal deadlines apart.
        self.inserted += 1;
        let due = (deadline, self.inserted);
        let earliest = self
            .deadlines
            .first_key_value()
            .is_none_or(|(first, _)| due < *first);
        self.deadlines.insert(due, id.clone());
        self.waiters.insert(id, Waiting { waiter, due });
        Ok(earliest)
    }

    /// Removes the waiter for `id`, for its reply or because it no longer waits. `None`: late, unknown or repeated.
    pub fn complete(&mut self, id: &str) -> Option<W> {
        let Waiting { waiter, due } = self.waiters.remove(id)?;
        self.deadlines.remove(&due);
        Some(waiter)
    }

    /// Whether somebody still waits for `id`.
    pub fn contains(&self, id: &str) -> bool {
        self.waiters.contains_key(id)
    }

    /// Removes and answers every waiter whose deadline has come.
    pub fn expire(&mut self, now: Instant) -> Vec<W> {
        let mut expired = Vec::new();
        while let Some(entry) = self.deadlines.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let id = entry.remove();
            expired.extend(self.waiters.remove(&id).map(|waiting| waiting.waiter));
        }
        expired
    }

    /// Removes and answers every waiter.
    pub fn drain(&mut self) -> Vec<W> {
        self.deadlines.clear();
        self.waiters
            .drain()
            .map(|(_, waiting)| waiting.waiter)
            .collect()
    }

    /// When the next waiter expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[derive(Debug, Clone)]
    enum Step {
        Insert { id: u8, after: u8 },
        Complete { id: u8 },
        Pass { ms: u8 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..20, any::<u8>()).prop_map(|(id, after)| Step::Insert { id, after }),
            (0u8..20).prop_map(|id| Step::Complete { id }),
            (0u8..50).prop_map(|ms| Step::Pass { ms }),
        ]
    }

    proptest! {
        /// Against a plain map: every waiter leaves exactly once, for the right reason, and the bound holds.
        #[test]
        fn behaves_like_the_plain_model(steps in proptest::collection::vec(step(), 0..200)) {
            let mut now = Instant::now();
            let mut pending = PendingReplies::new(8);
            let mut model: BTreeMap<u8, Instant> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert { id, after } => {
                        let deadline = now + Duration::from_millis(after.into());
                        let accepted = pending.insert(id.to_string().into(), deadline, id).is_ok();
                        prop_assert_eq!(accepted, model.len() < 8 && !model.contains_key(&id));
                        if accepted {
                            model.insert(id, deadline);
                        }
                    }
                    Step::Complete { id } => {
                        let expected = model.remove(&id).map(|_| id);
                        prop_assert_eq!(pending.complete(&id.to_string()), expected);
                    }
                    Step::Pass { ms } => {
                        now += Duration::from_millis(ms.into());
                        let mut expired = pending.expire(now);
                        expired.sort_unstable();
                        let due: Vec<u8> =
                            model.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
                        model.retain(|_, at| *at > now);
                        prop_assert_eq!(expired, due);
                    }
                }
                prop_assert_eq!(pending.len(), model.len());
                prop_assert_eq!(pending.next_deadline(), model.values().min().copied());
            }
        }
    }

    #[test]
    fn only_an_earlier_deadline_needs_the_timer_again() {
        let now = Instant::now();
        let mut pending = PendingReplies::new(8);
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(pending.insert("a".into(), at(10), ()), Ok(true));
        assert_eq!(pending.insert("b".into(), at(20), ()), Ok(false));
        assert_eq!(pending.insert("c".into(), at(5), ()), Ok(true));
    }
}
