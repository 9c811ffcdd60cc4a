//! How many replicas a consumer group should have. Pure: what is seen of the group at some moments in, a number out.
//!
//! What has to be done per second is what arrives, and what has piled up, spread over the time in which it is to be gone.
//! What one replica can do is learned while all of them have work: their settlements per second, divided by their number.
//! Until that is known, replicas are doubled for as long as the oldest message waits too long.

use std::time::Duration;

/// Moments nearer to each other than this tell no rate.
const SHORTEST: f64 = 1.0;
/// How much of the past a new rate replaces after this many seconds: older figures fade.
const MEMORY: f64 = 30.0;

/// What is seen of a group at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Sight {
    /// Seconds on a monotonic clock.
    pub(crate) at: f64,
    /// Messages ever appended to the topic, where the broker can tell.
    pub(crate) appended: Option<u64>,
    /// Messages that the group has not settled, delivered or not.
    pub(crate) backlog: u64,
    /// Messages that will appear, or come again, later.
    pub(crate) later: u64,
    /// Members that give signs of life.
    pub(crate) members: u64,
    /// How long the oldest message that is not delivered has waited.
    pub(crate) waited: Duration,
}

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wish {
    /// In which time what has piled up is to be gone.
    pub(crate) target: Duration,
    /// The least number of replicas.
    pub(crate) min: u32,
    /// The most replicas, at least one.
    pub(crate) max: u32,
}

/// What was learned of a group.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Estimate {
    seen: Option<Sight>,
    /// The moment that rates are measured from.
    base: Option<Sight>,
    /// Messages per second that arrive.
    pub(crate) arrival: Option<f64>,
    /// Messages per second that are settled.
    pub(crate) settle: Option<f64>,
    /// Messages per second that one replica can settle.
    pub(crate) per_replica: Option<f64>,
    /// Whether anything arrived or was settled since the moment before.
    busy: bool,
}

impl Estimate {
    /// Learns from what is seen now.
    pub(crate) fn observe(&mut self, now: Sight) {
        self.seen = Some(now);
        let Some(before) = self.base else {
            self.base = Some(now);
            return;
        };
        let seconds = now.at - before.at;
        if seconds < SHORTEST {
            return;
        }
        self.base = Some(now);
        let Some((arrived, settled)) = between(&before, &now) else {
            // The broker cannot tell, or began to count anew.
            self.busy = now.backlog > 0 || before.backlog > 0;
            return;
        };
        self.busy = arrived > 0 || settled > 0;
        let weight = 1.0 - (-seconds / MEMORY).exp();
        let (arrival, settle) = (arrived as f64 / seconds, settled as f64 / seconds);
        self.arrival = Some(faded(self.arrival, arrival, weight));
        self.settle = Some(faded(self.settle, settle, weight));
        let members = now.members.max(before.members);
        if settled == 0 || members == 0 {
            return;
        }
        let each = settle / members as f64;
        let all_had_work = now.backlog > members && before.backlog > members;
        self.per_replica = match self.per_replica {
            Some(known) if all_had_work => Some(faded(Some(known), each, weight.max(0.5))),
            // Those who had little to do did at least this.
            Some(known) => Some(known.max(each)),
            None => all_had_work.then_some(each),
        };
    }

    /// When it was last seen.
    pub(crate) fn seen_at(&self) -> f64 {
        self.seen.map_or(0.0, |seen| seen.at)
    }

    /// The number of replicas for what was seen last.
    pub(crate) fn desired(&self, wish: Wish) -> u32 {
        let seen = self.seen.unwrap_or_default();
        let idle = seen.backlog == 0 && seen.later == 0 && !self.busy;
        if idle {
            return wish.min.min(wish.max);
        }
        // Something is there, or comes: that takes one at least.
        let wanted = self.wanted(&seen, wish).max(1);
        wanted.clamp(wish.min.min(wish.max), wish.max)
    }

    fn wanted(&self, seen: &Sight, wish: Wish) -> u32 {
        let there = u32::try_from(seen.members).unwrap_or(u32::MAX);
        match self.per_replica {
            Some(each) if each > 0.0 => {
                let target = wish.target.as_secs_f64().max(1.0);
                let needed = self.arrival.unwrap_or(0.0) + seen.backlog as f64 / target;
                // A hair less, so that what one can do exactly does not take two.
                (needed / each - 1e-6).ceil() as u32
            }
            _ if seen.waited > wish.target => there.saturating_mul(2),
            _ => there,
        }
    }
}

/// What arrived and what was settled between two moments.
fn between(before: &Sight, now: &Sight) -> Option<(u64, u64)> {
    let arrived = now.appended?.checked_sub(before.appended?)?;
    // What was there, and what came, less what is left.
    let settled = (before.backlog + arrived).saturating_sub(now.backlog);
    Some((arrived, settled))
}

fn faded(known: Option<f64>, new: f64, weight: f64) -> f64 {
    known.map_or(new, |known| known + (new - known) * weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish {
        target: Duration::from_secs(30),
        min: 0,
        max: 20,
    };

    fn sight(at: f64, appended: u64, backlog: u64, members: u64) -> Sight {
        Sight {
            at,
            appended: Some(appended),
            backlog,
            members,
            ..Sight::default()
        }
    }

    fn after(sights: &[Sight]) -> Estimate {
        let mut estimate = Estimate::default();
        for sight in sights {
            estimate.observe(*sight);
        }
        estimate
    }

    #[test]
    fn a_group_with_nothing_to_do_needs_nobody() {
        let idle = after(&[sight(0.0, 50, 0, 3), sight(10.0, 50, 0, 3)]);
        assert_eq!(idle.desired(WISH), 0);
        assert_eq!(idle.desired(Wish { min: 2, ..WISH }), 2);
        assert_eq!(Estimate::default().desired(WISH), 0);
    }

    #[test]
    fn a_single_message_wakes_the_group_at_once() {
        assert_eq!(after(&[sight(0.0, 1, 1, 0)]).desired(WISH), 1);
        let idle_before = after(&[sight(0.0, 50, 0, 0), sight(10.0, 51, 1, 0)]);
        assert_eq!(idle_before.desired(WISH), 1);
    }

    #[test]
    fn a_message_that_comes_later_keeps_one() {
        let scheduled = Sight {
            later: 1,
            ..sight(0.0, 0, 0, 0)
        };
        assert_eq!(after(&[scheduled]).desired(WISH), 1);
    }

    #[test]
    fn a_message_that_came_and_went_in_between_counts_as_work() {
        let quick = after(&[sight(0.0, 50, 0, 1), sight(10.0, 51, 0, 1)]);
        assert_eq!(quick.desired(WISH), 1);
    }

    #[test]
    fn the_number_follows_what_one_replica_can_do() {
        // Two members settle 100 a second together, 50 each; 100 a second arrive, and 3000 have piled up.
        let busy = after(&[sight(0.0, 0, 3_000, 2), sight(10.0, 1_000, 3_000, 2)]);
        assert_eq!(busy.per_replica, Some(50.0));
        assert_eq!((busy.arrival, busy.settle), (Some(100.0), Some(100.0)));
        // (100 + 3000 / 30) / 50
        assert_eq!(busy.desired(WISH), 4);
        let sooner = Wish {
            target: Duration::from_secs(10),
            ..WISH
        };
        assert_eq!(busy.desired(sooner), 8);
        assert_eq!(busy.desired(Wish { max: 3, ..sooner }), 3);
        assert_eq!(busy.desired(Wish { min: 6, ..WISH }), 6);
    }

    #[test]
    fn a_group_that_drains_gives_replicas_back() {
        let mut estimate = after(&[sight(0.0, 0, 4_000, 4), sight(10.0, 0, 2_000, 4)]);
        let before = estimate.desired(WISH);
        estimate.observe(sight(20.0, 0, 10, 4));
        assert!(estimate.desired(WISH) < before);
        estimate.observe(sight(30.0, 0, 0, 4));
        estimate.observe(sight(40.0, 0, 0, 4));
        assert_eq!(estimate.desired(WISH), 0);
    }

    #[test]
    fn replicas_double_while_their_speed_is_unknown_and_messages_wait_too_long() {
        let stuck = |waited| Sight {
            waited: Duration::from_secs(waited),
            ..sight(10.0, 100, 100, 3)
        };
        assert_eq!(after(&[stuck(5)]).desired(WISH), 3);
        assert_eq!(after(&[stuck(31)]).desired(WISH), 6);
    }

    #[test]
    fn idle_replicas_do_not_count_as_slow() {
        // One message in ten seconds says nothing about what four members can do.
        let mut estimate = after(&[sight(0.0, 0, 900, 4), sight(10.0, 100, 600, 4)]);
        let known = estimate.per_replica;
        estimate.observe(sight(20.0, 701, 1, 4));
        estimate.observe(sight(30.0, 702, 1, 4));
        assert!(estimate.per_replica >= known, "{estimate:?}");
    }

    #[test]
    fn a_broker_that_counts_anew_or_not_at_all_is_borne() {
        let anew = after(&[sight(0.0, 900, 10, 1), sight(10.0, 5, 10, 1)]);
        assert_eq!((anew.arrival, anew.desired(WISH)), (None, 1));
        let silent = |at, backlog| Sight {
            appended: None,
            ..sight(at, 0, backlog, 1)
        };
        assert_eq!(after(&[silent(0.0, 5), silent(10.0, 5)]).desired(WISH), 1);
        let over = after(&[silent(0.0, 5), silent(10.0, 0), silent(20.0, 0)]);
        assert_eq!(over.desired(WISH), 0);
    }

    #[test]
    fn moments_too_near_each_other_tell_no_rate() {
        let near = after(&[sight(0.0, 0, 10, 1), sight(0.5, 1_000, 10, 1)]);
        assert_eq!((near.arrival, near.desired(WISH)), (None, 1));
        // But what is there now counts.
        let woken = after(&[sight(0.0, 0, 0, 0), sight(0.5, 1, 1, 0)]);
        assert_eq!(woken.desired(WISH), 1);
    }
}
