//! Saying something that happens thousands of times a second once in a while.

use std::sync::atomic::{AtomicU64, Ordering};

/// How long nothing is said after it was.
const QUIET_MS: u64 = 10_000;

/// When something was said last.
#[derive(Debug)]
pub(crate) struct Rarely {
    said_unix_ms: AtomicU64,
}

impl Rarely {
    pub(crate) const fn new() -> Rarely {
        Rarely {
            said_unix_ms: AtomicU64::new(0),
        }
    }

    /// Whether to say it now; of all who ask at one time, one is told so.
    pub(crate) fn is_due(&self, now_unix_ms: u64) -> bool {
        let said = self.said_unix_ms.load(Ordering::Relaxed);
        // The difference, so that a clock that goes back does not silence it.
        now_unix_ms.abs_diff(said) >= QUIET_MS
            && self
                .said_unix_ms
                .compare_exchange(said, now_unix_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_in_a_while() {
        let rarely = Rarely::new();
        let asked = [50_000, 50_000, 59_999, 60_000, 60_001, 10];
        let said = asked.map(|now| rarely.is_due(now));
        assert_eq!(said, [true, false, false, true, false, true]);
    }
}
