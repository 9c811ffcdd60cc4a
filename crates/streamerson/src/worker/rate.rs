//! How many handlers may begin per second.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Handlers are let begin in bursts of at most a tenth of a second's worth.
const BURSTS_PER_SECOND: u32 = 10;

/// The rate shared by all topics of a worker.
#[derive(Debug)]
pub(super) struct Rate {
    limiter: DefaultDirectRateLimiter,
    burst: NonZeroU32,
}

impl Rate {
    pub(super) fn new(per_second: NonZeroU32) -> Rate {
        let burst = NonZeroU32::new(per_second.get() / BURSTS_PER_SECOND);
        let burst = burst.unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Rate {
            limiter: RateLimiter::direct(quota),
            burst,
        }
    }

    /// How many may begin at once.
    pub(super) fn burst(&self) -> usize {
        usize::try_from(self.burst.get()).unwrap_or(usize::MAX)
    }

    /// Lets one handler begin, or says when to ask again.
    pub(super) fn begin(&self) -> Result<(), Duration> {
        self.limiter
            .check()
            .map_err(|early| early.wait_time_from(self.limiter.clock().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_begins_at_once_and_the_next_is_told_when() {
        let rate = Rate::new(NonZeroU32::new(20).unwrap());
        assert_eq!(rate.burst(), 2);
        assert!(rate.begin().is_ok() && rate.begin().is_ok());
        let wait = rate.begin().unwrap_err();
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_millis(50),
            "{wait:?}"
        );
    }

    #[test]
    fn the_slowest_rate_lets_one_begin() {
        let rate = Rate::new(NonZeroU32::MIN);
        assert_eq!(rate.burst(), 1);
        assert!(rate.begin().is_ok());
        assert!(rate.begin().unwrap_err() > Duration::from_millis(500));
    }
}
