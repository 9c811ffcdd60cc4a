//! How slow a client may be: the rules, without clock and socket.
//!
//! A connection that has no request in progress must make progress itself: send the head of its next request, or take
//! the rest of the last answer, or end.

use std::time::Duration;

use streamerson_core::time::Millis;

/// An answer must be taken at this rate at least, once its time is up. In bytes per millisecond.
const SLOWEST_READER: u64 = 16;

/// The progress of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    head: Millis,
    idle: Millis,
    in_progress: usize,
    phase: Phase,
    since: Millis,
    multiplexed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The head of a request is due, or has begun.
    Head,
    /// Nothing is due.
    Idle,
}

/// What follows from the progress so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Look again then; before, nothing can be due.
    At(Millis),
    /// The client has had its time.
    Now,
}

impl Pace {
    /// A new connection: it owes the head of a request within `head`. Later it may be without any for `idle`.
    pub(super) fn new(head: Duration, idle: Duration, now: Millis) -> Pace {
        Pace {
            head: head.as_millis() as Millis,
            idle: idle.as_millis() as Millis,
            in_progress: 0,
            phase: Phase::Head,
            since: now,
            multiplexed: false,
        }
    }

    /// Bytes came in. Between requests, that is the begin of a head; except with HTTP/2, where it may be anything.
    pub(super) fn received(&mut self, now: Millis) {
        if self.in_progress == 0 && self.phase == Phase::Idle && !self.multiplexed {
            self.phase = Phase::Head;
            self.since = now;
        }
    }

    /// Bytes went out: who still takes an answer, and not too slowly, is not idle.
    pub(super) fn sent(&mut self, bytes: usize, now: Millis) {
        if self.phase == Phase::Idle {
            let credit = bytes as u64 / SLOWEST_READER;
            self.since = self.since.saturating_add(credit).min(now.max(self.since));
        }
    }

    /// A request is complete up to its body. `multiplexed`: others may come at the same time.
    pub(super) fn began(&mut self, multiplexed: bool) {
        self.in_progress += 1;
        self.multiplexed = multiplexed;
    }

    /// A request was answered, or given up.
    pub(super) fn ended(&mut self, now: Millis) {
        self.in_progress = self.in_progress.saturating_sub(1);
        if self.in_progress == 0 {
            self.phase = Phase::Idle;
            self.since = now;
        }
    }

    /// Whether several requests may be in progress at one time.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed
    }

    /// Whether the client has had its time.
    pub(super) fn due(&self, now: Millis) -> Due {
        // Any phase that begins later lasts at least as long as a head.
        let earliest = now.saturating_add(self.head.min(self.idle)).max(now + 1);
        if self.in_progress > 0 {
            return Due::At(earliest);
        }
        let allowed = match self.phase {
            Phase::Head => self.head,
            Phase::Idle => self.idle,
        };
        match self.since.saturating_add(allowed) {
            end if end <= now => Due::Now,
            end => Due::At(end.min(earliest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace() -> Pace {
        Pace::new(Duration::from_millis(10), Duration::from_millis(60), 0)
    }

    #[test]
    fn a_connection_that_sends_no_head_is_closed() {
        assert_eq!(pace().due(9), Due::At(10));
        assert_eq!(pace().due(10), Due::Now);
    }

    #[test]
    fn a_drip_of_bytes_does_not_extend_the_head() {
        let mut pace = pace();
        for now in 0..10 {
            pace.received(now);
        }
        assert_eq!(pace.due(10), Due::Now);
    }

    #[test]
    fn a_request_in_progress_has_all_the_time_its_route_gives_it() {
        let mut pace = pace();
        pace.began(false);
        assert_eq!(pace.due(1_000_000), Due::At(1_000_010));
    }

    #[test]
    fn between_requests_a_connection_may_be_idle_but_not_begin_and_stop() {
        let mut pace = pace();
        pace.began(false);
        pace.ended(100);
        assert_eq!(pace.due(159), Due::At(160));
        assert_eq!(pace.due(160), Due::Now);
        pace.received(150);
        assert_eq!(pace.due(159), Due::At(160));
        pace.began(false);
        pace.ended(155);
        pace.received(156);
        assert_eq!(pace.due(166), Due::Now);
    }

    #[test]
    fn multiplexed_connections_may_talk_without_a_request() {
        let mut pace = pace();
        pace.began(true);
        pace.ended(100);
        pace.received(101);
        assert_eq!(pace.due(120), Due::At(130));
        assert_eq!(pace.due(160), Due::Now);
    }

    #[test]
    fn a_reader_of_a_large_answer_has_time_by_its_size_and_no_more() {
        let mut pace = pace();
        pace.began(false);
        pace.ended(0);
        for now in 1..=50 {
            pace.sent(16, now);
        }
        assert_eq!(pace.due(109), Due::At(110));
        assert_eq!(pace.due(110), Due::Now);
        // Credit is for time that has passed, not for the future.
        pace.sent(1_000_000, 100);
        assert_eq!(pace.due(160), Due::Now);
    }

    proptest! {
        /// Looking only when told to never misses a connection that is due.
        #[test]
        fn no_end_comes_before_the_next_look(
            steps in proptest::collection::vec((0u8..4, 0u64..40), 0..60)
        ) {
            let mut pace = pace();
            let mut now = 0;
            let mut look = match pace.due(now) { Due::At(at) => at, Due::Now => 0 };
            for (step, passed) in steps {
                now += passed;
                if now >= look {
                    match pace.due(now) {
                        Due::At(at) => { prop_assert!(at > now); look = at; }
                        Due::Now => return Ok(()),
                    }
                } else {
                    prop_assert_ne!(pace.due(now), Due::Now);
                }
                match step {
                    0 => pace.received(now),
                    1 => pace.began(false),
                    2 => pace.ended(now),
                    _ => pace.sent(100, now),
                }
            }
        }
    }
}
