//! What a client has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What a client has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ClientStats {
    /// Requests that wait for their answer now.
    pub in_flight: u64,
    /// Messages stored by the broker.
    pub sent: u64,
    /// Messages that the broker did not take.
    pub failed: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests whose deadline passed without an answer.
    pub timed_out: u64,
    /// Requests given up by their caller before an answer.
    pub cancelled: u64,
    /// Requests refused because too many were in flight.
    pub overloaded: u64,
    /// Answers that nobody waited for: late, repeated, or to nobody's request.
    pub late: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: Counter,
    pub(super) failed: Counter,
    pub(super) answered: Counter,
    pub(super) timed_out: Counter,
    pub(super) cancelled: Counter,
    pub(super) overloaded: Counter,
    pub(super) late: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: usize) {
        if n > 0 {
            self.0.fetch_add(n as u64, Ordering::Relaxed);
        }
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn read(&self, in_flight: usize) -> ClientStats {
        ClientStats {
            in_flight: in_flight as u64,
            sent: self.sent.read(),
            failed: self.failed.read(),
            answered: self.answered.read(),
            timed_out: self.timed_out.read(),
            cancelled: self.cancelled.read(),
            overloaded: self.overloaded.read(),
            late: self.late.read(),
        }
    }
}
