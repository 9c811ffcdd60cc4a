//! This machine's wall clock, next to the broker's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use streamerson_core::Broker;
use streamerson_core::time::unix_ms;

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(10);

/// How long the broker may take to tell the time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// A difference worth a warning, in milliseconds.
const ASTRAY: u64 = 5_000;

/// How far this machine's wall clock is ahead of the broker's, or behind: deadlines travel on the broker's.
#[derive(Debug)]
pub(crate) struct Clock {
    broker: Arc<dyn Broker>,
    ahead_ms: AtomicI64,
}

impl Clock {
    /// Until the first comparison they are taken for the same.
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Clock {
        Clock {
            broker,
            ahead_ms: AtomicI64::new(0),
        }
    }

    /// What the broker's clock says, in milliseconds since 1970, as far as it is known here.
    pub(crate) fn broker_unix_ms(&self) -> u64 {
        unix_ms().saturating_add_signed(-self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Compares the clocks now and then, for ever.
    pub(crate) async fn run(&self) {
        loop {
            self.ask().await;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// What the broker's clock says, in milliseconds since 1970; `None` when it does not tell in time.
    pub(crate) async fn ask(&self) -> Option<u64> {
        let (begun, before) = (Instant::now(), unix_ms());
        let answer = tokio::time::timeout(PATIENCE, self.broker.time()).await;
        let theirs = answer.ok()?.ok()?;
        let (took, after) = (begun.elapsed().as_millis() as u64, unix_ms());
        // Set meanwhile, this machine's clock would be compared with itself.
        if (before + took).abs_diff(after) <= took + 1 {
            self.note(difference(before + took / 2, theirs, took / 2 + 1));
        }
        Some(theirs)
    }

    fn note(&self, ahead_ms: i64) {
        let was = self.ahead_ms.swap(ahead_ms, Ordering::Relaxed);
        let astray = |ahead: i64| ahead.unsigned_abs() > ASTRAY;
        if astray(ahead_ms) && !astray(was) {
            tracing::warn!(
                ahead_ms,
                "the wall clock of this machine is not the broker's: deadlines are judged by the broker's"
            );
        }
    }
}

/// By how much `ours` is ahead of `theirs`; what the way to the broker and back explains is no difference.
fn difference(ours: u64, theirs: u64, error: u64) -> i64 {
    match ours.abs_diff(theirs) <= error {
        true => 0,
        false => ours.cast_signed().saturating_sub(theirs.cast_signed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::memory::MemoryBroker;

    #[tokio::test]
    async fn the_clock_of_a_broker_in_the_process_is_the_same() {
        let clock = Clock::new(Arc::new(MemoryBroker::new()));
        let before = unix_ms();
        assert!((before..=unix_ms()).contains(&clock.ask().await.unwrap()));
        assert!(clock.broker_unix_ms() >= before);
    }

    #[test]
    fn a_difference_is_what_the_way_does_not_explain() {
        assert_eq!(difference(1_005, 1_000, 5), 0);
        assert_eq!(difference(1_006, 1_000, 5), 6);
        assert_eq!(difference(1_000, 8_000, 5), -7_000);
    }

    #[test]
    fn what_is_ahead_here_is_earlier_there() {
        let clock = Clock::new(Arc::new(MemoryBroker::new()));
        for ahead in [7_200_000, -7_200_000] {
            clock.note(ahead);
            let there = unix_ms().saturating_add_signed(-ahead);
            assert!(clock.broker_unix_ms().abs_diff(there) < 1_000);
        }
    }
}
