//! Intake: how many messages a member asks for, so that what it holds stays within its bounds.
//!
//! Pure: what runs and what waits in, a number out. A broker is asked for messages before their sizes are known, so the
//! bound in bytes goes by the sizes seen of late, and errs on the side of asking for less. Before the first, none is to wait.

use crate::sizes::Sizes;

/// The bounds of what a member holds.
///
/// ```
/// use streamerson_core::intake::Intake;
///
/// let mut intake = Intake::new(4, 100, 1000);
/// assert_eq!(intake.room(0, 0, 0), 4, "what may begin, before a size is known");
/// intake.seen(300);
/// assert_eq!(intake.room(4, 0, 0), 3, "as many of 300 bytes as fit into 1000");
/// intake.seen(16 << 20);
/// assert_eq!(intake.room(4, 0, 0), 0, "one so large has to wait for a free handler");
/// assert_eq!(intake.room(3, 0, 0), 1, "and then it passes, alone");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intake {
    concurrency: usize,
    ahead: usize,
    bytes: usize,
    /// At most so many begin at once.
    burst: usize,
    sizes: Sizes,
}

impl Intake {
    /// For `concurrency` handlers, and up to `ahead` messages of together up to `bytes` that wait for one.
    pub fn new(concurrency: usize, ahead: usize, bytes: usize) -> Intake {
        Intake {
            concurrency,
            ahead,
            bytes,
            burst: usize::MAX,
            sizes: Sizes::default(),
        }
    }

    /// The same, where no more than `burst` handlers may begin at once: others could have what would only wait here.
    pub fn with_burst(mut self, burst: usize) -> Intake {
        self.burst = burst;
        self
    }

    /// Whether the sizes of messages are of interest.
    pub fn counts_bytes(&self) -> bool {
        self.ahead > 0 || self.burst < usize::MAX
    }

    /// Notes the size of a message: a large one is remembered for a while.
    pub fn seen(&mut self, size: usize) {
        self.sizes.seen(size, self.bytes);
    }

    /// How many messages to ask for while `running` handlers run and `waiting` messages of together `waiting_bytes` wait.
    pub fn room(&self, running: usize, waiting: usize, waiting_bytes: usize) -> usize {
        let slots = self.concurrency.saturating_sub(running).min(self.burst);
        let begin = slots.saturating_sub(waiting);
        let ahead = self.ahead.saturating_sub(waiting.saturating_sub(slots));
        if self.burst < usize::MAX {
            // None is sure to begin at once. One passes, however large.
            let alone = usize::from(waiting == 0).min(begin);
            return (begin + ahead).min(self.fitting(waiting_bytes)).max(alone);
        }
        begin + ahead.min(self.fitting(waiting_bytes))
    }

    fn fitting(&self, waiting_bytes: usize) -> usize {
        let free = self.bytes.saturating_sub(waiting_bytes);
        self.sizes.fitting(free).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_bytes_to_mind_the_bounds_are_numbers() {
        let mut intake = Intake::new(3, 2, usize::MAX);
        intake.seen(10);
        assert_eq!(intake.room(0, 0, 0), 5);
        assert_eq!(intake.room(2, 0, 0), 3);
        assert_eq!(intake.room(3, 1, 10), 1);
        assert_eq!(intake.room(3, 2, 10), 0);
    }

    #[test]
    fn nothing_waits_before_a_size_is_known() {
        let mut intake = Intake::new(2, 50, 200_000);
        assert_eq!(intake.room(0, 0, 0), 2);
        assert_eq!(intake.with_burst(10).room(0, 0, 0), 1);
        intake.seen(50_000);
        assert_eq!(intake.room(2, 0, 0), 4);
    }

    #[test]
    fn free_handlers_are_fed_whatever_the_sizes() {
        let mut intake = Intake::new(3, 2, 100);
        intake.seen(1_000_000);
        assert_eq!(intake.room(1, 0, 0), 2);
        assert_eq!(intake.room(3, 0, 0), 0);
    }

    #[test]
    fn a_large_message_is_forgotten_after_small_ones() {
        let mut intake = Intake::new(1, 10, 1000);
        intake.seen(100_000);
        assert_eq!(intake.room(1, 0, 0), 0);
        for _ in 0..60 {
            intake.seen(100);
        }
        assert_eq!(intake.room(1, 0, 0), 10);
    }

    #[test]
    fn who_may_begin_only_few_takes_only_few() {
        let mut intake = Intake::new(64, 0, 1000).with_burst(2);
        intake.seen(10);
        assert_eq!(intake.room(0, 0, 0), 2);
        assert_eq!(intake.room(0, 2, 10), 0);
        let mut large = intake;
        large.seen(5000);
        assert_eq!(large.room(0, 0, 0), 1);
        assert_eq!(large.room(0, 1, 5000), 0);
    }

    proptest! {
        /// Whatever is asked for, and whatever comes: as long as sizes do not grow, the bounds hold.
        #[test]
        fn the_bounds_hold(
            concurrency in 1usize..8, ahead in 0usize..8, bytes in 0usize..2000, size in 1usize..500,
            steps in proptest::collection::vec(any::<bool>(), 0..100),
        ) {
            let mut intake = Intake::new(concurrency, ahead, bytes);
            let (mut running, mut waiting) = (0, 0);
            for takes in steps {
                let room = intake.room(running, waiting, waiting * size);
                if takes && room > 0 {
                    waiting += room;
                    intake.seen(size);
                } else {
                    running -= running.min(1);
                }
                let begin = waiting.min(concurrency - running);
                (running, waiting) = (running + begin, waiting - begin);
                prop_assert!(running <= concurrency && waiting <= ahead && waiting * size <= bytes);
                prop_assert!(running > 0 || intake.room(running, waiting, waiting * size) > 0);
            }
        }
    }
}
