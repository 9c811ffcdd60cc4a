//! How long to wait before a broker is tried again.

use std::time::Duration;

use streamerson_core::retry::RetryPolicy;

/// Delays that grow with each failure in a row, half of each left to chance.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    failures: u32,
}

impl Backoff {
    /// From 50 ms up to 5 s.
    pub(crate) fn new() -> Backoff {
        let policy = RetryPolicy {
            base: Duration::from_millis(50),
            cap: Duration::from_secs(5),
            ..RetryPolicy::default()
        };
        Backoff {
            policy,
            failures: 0,
        }
    }

    /// It worked: the next failure begins anew.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The delay after one more failure. `chance` is a random number in 0..1.
    pub(crate) fn next(&mut self, chance: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.policy.delay(self.failures, chance)
    }

    /// Waits as long as [`Backoff::next`] says.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next(rand::random())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_begin_anew() {
        let mut backoff = Backoff::new();
        let delays: Vec<u128> = (0..9).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 50);
    }
}
