//! What is kept aside until it is due.

use std::collections::BTreeMap;

/// Things in the order of their due times; what is due at the same time, in the order in which it came.
///
/// The numbers are those of any one clock.
///
/// ```
/// use streamerson_core::schedule::Schedule;
///
/// let mut schedule = Schedule::default();
/// schedule.add(200, "later");
/// schedule.add(100, "sooner");
/// assert_eq!(schedule.next_due(), Some(100));
/// assert_eq!(schedule.take_due(150), Some("sooner"));
/// assert_eq!(schedule.take_due(150), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule<T> {
    waiting: BTreeMap<(u64, u64), T>,
    added: u64,
}

impl<T> Default for Schedule<T> {
    fn default() -> Schedule<T> {
        Schedule {
            waiting: BTreeMap::new(),
            added: 0,
        }
    }
}

impl<T> Schedule<T> {
    /// Keeps `thing` until `due`.
    pub fn add(&mut self, due: u64, thing: T) {
        self.added += 1;
        self.waiting.insert((due, self.added), thing);
    }

    /// The first thing, if it is due.
    pub fn take_due(&mut self, now: u64) -> Option<T> {
        let first = self.waiting.first_entry()?;
        let (due, _) = *first.key();
        (due <= now).then(|| first.remove())
    }

    /// When the first thing is due.
    pub fn next_due(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// How many things are kept.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_together_comes_in_order() {
        let mut schedule = Schedule::default();
        for n in 0..10 {
            schedule.add(5, n);
        }
        let come: Vec<i32> = std::iter::from_fn(|| schedule.take_due(5)).collect();
        assert_eq!(come, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_clock_that_goes_back_delays_and_loses_nothing() {
        let mut schedule = Schedule::default();
        schedule.add(100, "a");
        assert_eq!(schedule.take_due(10), None);
        assert_eq!(schedule.len(), 1);
        assert_eq!(schedule.take_due(1_000_000), Some("a"));
        assert!(schedule.is_empty());
    }
}
