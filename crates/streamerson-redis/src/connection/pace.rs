//! How fast to try again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);

/// Exponential backoff with jitter, that survives the cancellation of whoever waits for it.
#[derive(Debug)]
pub(crate) struct Pace {
    delays: Option<ExponentialBackoff>,
    not_before: Instant,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace {
            delays: None,
            not_before: Instant::now(),
        }
    }

    /// It worked: the next failure starts over.
    pub(crate) fn succeeded(&mut self) {
        self.delays = None;
    }

    /// It failed: answers when to try again.
    pub(crate) fn failed(&mut self) -> Instant {
        let delays = self.delays.get_or_insert_with(delays);
        self.not_before = Instant::now() + delays.next().unwrap_or(LONGEST);
        self.not_before
    }

    /// When to try next; in the past when nothing failed.
    pub(crate) fn not_before(&self) -> Instant {
        self.not_before
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST)
        .with_max_delay(LONGEST)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}
