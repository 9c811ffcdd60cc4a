//! What a worker has done so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// How many reasons of dead letters are told apart: codes are the application's, and it may make up any number.
const REASONS: usize = 100;
/// The reason of all others.
const OTHER: &str = "other";

/// What a worker has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct WorkerStats {
    /// Messages whose handling ended, well or not.
    pub handled: u64,
    /// Of these, failures: replies with a status of 400 and above.
    pub failed: u64,
    /// Messages dropped unseen because their deadline had passed.
    pub expired: u64,
    /// Messages given back, to be tried again.
    pub retried: u64,
    /// Messages moved to the dead letters.
    pub dead: u64,
    /// Results discarded because another member settled the message first.
    pub fenced: u64,
    /// Results that the broker did not take; their messages are delivered again.
    pub unsettled: u64,
    /// Messages given up to other members, because their handlers neither ended nor could be stopped at their time limit.
    pub overdue: u64,
    /// Processed messages removed by the retention.
    pub trimmed: u64,
    /// Messages removed before a group had processed them: as many as a forced retention removed, and at least one for
    /// each loss found. An alarm.
    pub lost: u64,
}

/// Counts along while a worker runs. Cheap to clone; all clones count the same.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    handled: AtomicU64,
    failed: AtomicU64,
    expired: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    fenced: AtomicU64,
    unsettled: AtomicU64,
    overdue: AtomicU64,
    trimmed: AtomicU64,
    lost: AtomicU64,
    letters: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    /// The messages moved to the dead letters, by the code of the reason. Of more than 100 codes, the rest is `other`.
    pub fn dead_letters(&self) -> BTreeMap<String, u64> {
        self.shared.letters.lock().clone()
    }

    /// Counts a dead letter by its reason.
    pub(super) fn dead_letter(&self, code: &str) {
        let mut letters = self.shared.letters.lock();
        let known = letters.len() < REASONS || letters.contains_key(code);
        let code = if known { code } else { OTHER };
        *letters.entry(code.to_owned()).or_default() += 1;
    }

    /// What has been counted so far.
    pub fn read(&self) -> WorkerStats {
        let Shared {
            handled,
            failed,
            expired,
            retried,
            dead,
            fenced,
            unsettled,
            overdue,
            trimmed,
            lost,
            letters: _,
        } = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WorkerStats {
            handled: read(handled),
            failed: read(failed),
            expired: read(expired),
            retried: read(retried),
            dead: read(dead),
            fenced: read(fenced),
            unsettled: read(unsettled),
            overdue: read(overdue),
            trimmed: read(trimmed),
            lost: read(lost),
        }
    }

    /// Adds `more`.
    pub(super) fn add(&self, more: &WorkerStats) {
        let add = |counter: &AtomicU64, n: u64| {
            if n > 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        };
        add(&self.shared.handled, more.handled);
        add(&self.shared.failed, more.failed);
        add(&self.shared.expired, more.expired);
        add(&self.shared.retried, more.retried);
        add(&self.shared.dead, more.dead);
        add(&self.shared.fenced, more.fenced);
        add(&self.shared.unsettled, more.unsettled);
        add(&self.shared.overdue, more.overdue);
        add(&self.shared.trimmed, more.trimmed);
        add(&self.shared.lost, more.lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded() {
        let counters = Counters::default();
        for n in 0..2 * REASONS {
            counters.dead_letter(&format!("code-{n}"));
            counters.dead_letter("code-0");
        }
        let letters = counters.dead_letters();
        assert_eq!(letters.len(), REASONS + 1);
        assert_eq!(letters["code-0"], 1 + 2 * REASONS as u64);
        assert_eq!(letters[OTHER], REASONS as u64);
    }
}
