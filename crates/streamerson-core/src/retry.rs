//! When to try again, and when to give up.

use std::time::Duration;

/// How often and how fast a failed attempt is repeated.
///
/// ```
/// use std::time::Duration;
/// use streamerson_core::retry::{Decision, RetryPolicy};
///
/// let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
/// let decision = policy.decide(2, Duration::ZERO, 0.5);
/// assert_eq!(decision, Decision::Retry { after: Duration::from_millis(200) });
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub max_attempts: u32,
    /// Delay after the first attempt; it doubles with each further one.
    pub base: Duration,
    /// The longest delay.
    pub cap: Duration,
    /// The share of each delay that is left to chance, 0 to 1, so that what failed together does not come back together.
    pub jitter: f64,
    /// No more attempts once the message is this old.
    pub max_age: Option<Duration>,
}

/// What follows from a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// Try again after this delay.
    Retry {
        /// The delay.
        after: Duration,
    },
    /// Give up: the attempts are used up, or the message is too old.
    GiveUp,
}

impl Default for RetryPolicy {
    /// Five attempts, from 100 ms up to 30 s, half of each delay left to chance.
    fn default() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 5,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(30),
            jitter: 0.5,
            max_age: None,
        }
    }
}

impl RetryPolicy {
    /// No delay is longer than this, whatever the policy says: a year.
    pub const LONGEST_DELAY: Duration = Duration::from_secs(365 * 24 * 3600);

    /// What follows from the failure of the `attempt`th attempt (the first is 1) at a message of this `age`.
    /// `chance` is a random number in 0..1.
    pub fn decide(&self, attempt: u32, age: Duration, chance: f64) -> Decision {
        let too_old = self.max_age.is_some_and(|max| age >= max);
        if attempt >= self.max_attempts || too_old {
            return Decision::GiveUp;
        }
        Decision::Retry {
            after: self.delay(attempt, chance),
        }
    }

    /// The delay after the `attempt`th attempt.
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let full = self.base.saturating_mul(1 << doublings);
        let full = full.min(self.cap).min(RetryPolicy::LONGEST_DELAY);
        let jitter = self.jitter.clamp(0.0, 1.0);
        full.mul_f64(1.0 - jitter * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_stay_between_the_jitter_and_the_cap(attempt in 1u32..1000, chance in 0.0f64..1.0) {
            let policy = RetryPolicy { max_attempts: u32::MAX, ..RetryPolicy::default() };
            let delay = policy.delay(attempt, chance);
            prop_assert!(delay <= policy.cap);
            prop_assert!(delay >= policy.base / 2);
        }
    }

    #[test]
    fn a_delay_without_measure_is_a_year() {
        let policy = RetryPolicy {
            base: Duration::MAX,
            cap: Duration::MAX,
            ..RetryPolicy::default()
        };
        assert_eq!(policy.delay(1, 0.0), RetryPolicy::LONGEST_DELAY);
    }

    #[test]
    fn gives_up_after_the_last_attempt_and_the_last_moment() {
        let policy = RetryPolicy {
            max_age: Some(Duration::from_secs(60)),
            ..RetryPolicy::default()
        };
        assert!(matches!(
            policy.decide(4, Duration::ZERO, 0.0),
            Decision::Retry { .. }
        ));
        assert_eq!(policy.decide(5, Duration::ZERO, 0.0), Decision::GiveUp);
        assert_eq!(
            policy.decide(1, Duration::from_secs(60), 0.0),
            Decision::GiveUp
        );
    }
}
