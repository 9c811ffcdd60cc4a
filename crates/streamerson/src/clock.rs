//! This machine's wall clock, next to the broker's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use streamerson_core::Broker;
use streamerson_core::time::{Monotonic, unix_ms};

/// How long a comparison counts.
const FRESH: Duration = Duration::from_secs(10);

/// How long the broker may take to tell the time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Less than this is the way to the broker and back, and no difference.
const SAME: u64 = 1_000;

/// More than this is worth a warning.
const ASTRAY: u64 = 5_000;

/// How far this machine's wall clock is ahead of the broker's, or behind: deadlines travel on the broker's.
#[derive(Debug)]
pub(crate) struct Clock {
    broker: Arc<dyn Broker>,
    ahead: AtomicI64,
    clock: Monotonic,
    compared: AtomicU64,
}

impl Clock {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Clock {
        Clock {
            broker,
            ahead: AtomicI64::new(0),
            clock: Monotonic::start(),
            compared: AtomicU64::new(0),
        }
    }

    /// By how many milliseconds this machine's clock is ahead, as it was when they were last compared.
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// The broker's clock, as far as it is known here.
    pub(crate) fn broker_unix_ms(&self) -> u64 {
        unix_ms().saturating_add_signed(-self.ahead())
    }

    /// Whether it is time to compare again. Answers so to one caller.
    pub(crate) fn is_due(&self) -> bool {
        let (now, last) = (self.clock.now(), self.compared.load(Ordering::Relaxed));
        let due = now >= last + FRESH.as_millis() as u64;
        due && self
            .compared
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Asks the broker, and answers how far this machine's clock is ahead now. When the broker does not answer, what was
    /// known holds.
    pub(crate) async fn compare(&self) -> i64 {
        let (begun, before) = (Instant::now(), unix_ms());
        let answer = tokio::time::timeout(PATIENCE, self.broker.time()).await;
        let Ok(Ok(theirs)) = answer else {
            return self.ahead();
        };
        self.compared.store(self.clock.now(), Ordering::Relaxed);
        let ours = before + begun.elapsed().as_millis() as u64 / 2;
        let ahead = match ours.cast_signed().saturating_sub(theirs.cast_signed()) {
            small if small.unsigned_abs() < SAME => 0,
            ahead => ahead,
        };
        let was = self.ahead.swap(ahead, Ordering::Relaxed);
        if was.abs_diff(ahead) > ASTRAY {
            tracing::warn!(
                ahead_ms = ahead,
                "the wall clock of this machine is not the broker's: deadlines are judged by the broker's"
            );
        }
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::memory::MemoryBroker;

    #[tokio::test]
    async fn the_clock_of_a_broker_in_the_process_is_the_same() {
        let clock = Clock::new(Arc::new(MemoryBroker::new()));
        assert_eq!(clock.compare().await, 0);
        assert!(!clock.is_due());
        assert!(clock.broker_unix_ms().abs_diff(unix_ms()) < SAME);
    }
}
