//! Being asked to stop, and how long that may take.
//!
//! All stages of an end share one budget of time, which begins when the end is asked for: what comes first and takes its time
//! leaves less for the rest.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// How long settling may take, once the handlers have ended.
const SETTLING: Duration = Duration::from_secs(4);

/// How long leaving may take then.
const LEAVING: Duration = Duration::from_secs(1);

/// Longer than anybody waits, and not too long for a clock.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Asks for an end and bounds it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    token: CancellationToken,
    /// How long handlers may take to end.
    drain: Duration,
    /// When the budget began.
    begun: OnceLock<Instant>,
    /// The end of which this one is a part.
    outer: Option<Stop>,
}

impl Stop {
    pub(super) fn new(drain: Duration) -> Stop {
        Stop::within(None, CancellationToken::new(), drain.min(FOREVER))
    }

    /// The end of a part: it is asked for with the whole, or before.
    pub(super) fn child(&self) -> Stop {
        Stop::within(Some(self), self.0.token.child_token(), self.0.drain)
    }

    /// A later stage of the same end, in the same budget: it is asked for on its own.
    pub(super) fn stage(&self) -> Stop {
        Stop::within(Some(self), CancellationToken::new(), self.0.drain)
    }

    fn within(outer: Option<&Stop>, token: CancellationToken, drain: Duration) -> Stop {
        Stop(Arc::new(Inner {
            token,
            drain,
            begun: OnceLock::new(),
            outer: outer.cloned(),
        }))
    }

    pub(super) fn ask(&self) {
        self.0.begun.get_or_init(Instant::now);
        self.0.token.cancel();
    }

    /// Cancelled, it asks as well; the budget begins when that is first noticed.
    pub(super) fn token(&self) -> CancellationToken {
        self.0.token.clone()
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.token.is_cancelled()
    }

    pub(super) fn asked(&self) -> WaitForCancellationFuture<'_> {
        self.0.token.cancelled()
    }

    /// Until when what has not begun may still begin, where an order is kept; the rest of the time is for what runs then.
    pub(super) fn begin_by(&self) -> Instant {
        self.begun() + self.0.drain / 2
    }

    /// Until when handlers may end.
    pub(super) fn end_by(&self) -> Instant {
        self.begun() + self.0.drain
    }

    /// Until when settling may go on that begins now. Not for all that is left of the budget: nobody who let handlers take
    /// an hour waits so long for a broker that is away.
    pub(super) fn settle_by(&self) -> Instant {
        Instant::now().min(self.end_by()) + SETTLING
    }

    /// Until when leaving may go on that begins now.
    pub(super) fn leave_by(&self) -> Instant {
        Instant::now().min(self.end_by() + SETTLING) + LEAVING
    }

    /// Completes when it was asked for, and all that may still be settled had its time.
    pub(super) async fn late(&self) {
        self.asked().await;
        tokio::time::sleep_until(self.end_by() + SETTLING).await;
    }

    /// Completes when it was asked for, and the whole budget is used up.
    pub(super) async fn over(&self) {
        self.late().await;
        tokio::time::sleep_until(self.end_by() + SETTLING + LEAVING).await;
    }

    /// When the budget began. An end that nobody asked for, because there was a failure, begins with its first stage.
    fn begun(&self) -> Instant {
        self.asked_at()
            .unwrap_or_else(|| *self.0.begun.get_or_init(Instant::now))
    }

    fn asked_at(&self) -> Option<Instant> {
        let outer = self.0.outer.as_ref().and_then(Stop::asked_at);
        let own = self.0.begun.get().copied();
        own.into_iter().chain(outer).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn the_budget_of_all_parts_and_stages_begins_with_the_first_that_is_asked() {
        let whole = Stop::new(DRAIN);
        let (part, other) = (whole.child(), whole.child());
        let stage = part.stage();
        let begun = Instant::now();
        part.ask();
        tokio::time::advance(DRAIN / 4).await;
        assert!(!stage.is_asked() && !other.is_asked());
        whole.ask();
        tokio::time::advance(DRAIN / 4).await;
        stage.ask();
        assert_eq!(stage.begin_by(), begun + DRAIN / 2);
        assert_eq!(stage.end_by(), begun + DRAIN);
        assert_eq!(part.settle_by(), Instant::now() + SETTLING);
        assert_eq!(part.leave_by(), Instant::now() + LEAVING);
        assert!(other.is_asked());
        assert_eq!(other.end_by(), begun + DRAIN / 4 + DRAIN);
        tokio::time::advance(2 * DRAIN).await;
        assert_eq!(part.settle_by(), begun + DRAIN + SETTLING);
        assert_eq!(part.leave_by(), begun + DRAIN + SETTLING + LEAVING);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_nobody_asked_for_begins_with_its_first_stage() {
        let stop = Stop::new(DRAIN);
        tokio::time::advance(DRAIN).await;
        let begun = Instant::now();
        assert_eq!(stop.end_by(), begun + DRAIN);
        tokio::time::advance(2 * DRAIN).await;
        assert_eq!(stop.settle_by(), begun + DRAIN + SETTLING);
    }

    #[tokio::test]
    async fn a_budget_may_be_as_long_as_can_be() {
        assert!(Stop::new(Duration::MAX).leave_by() > Instant::now());
    }
}
