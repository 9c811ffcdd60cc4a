//! Which handlers get a task of their own from the start: those that would keep the reading task from its work.
//!
//! On a busy machine the system now and then takes the processor away for some milliseconds in the middle of any handler. That
//! must not count as long: tasks cost more than most handlers do.

use std::time::Duration;

/// Longer than a handler may keep the reading task.
const LONG: Duration = Duration::from_micros(200);

/// Longer than the system takes the processor away.
const FAR_TOO_LONG: Duration = Duration::from_millis(20);

/// What a long handler adds to the suspicion, which every other one lowers by 1.
const WEIGHT: u32 = 16;

/// So much suspicion is enough: three long ones among few.
const ENOUGH: u32 = 2 * WEIGHT + 1;

/// How many handlers get tasks before one is tried in place again.
const SPELL: u32 = 256;

/// Learns from how long handlers take.
#[derive(Debug, Default)]
pub(super) struct Caution {
    suspicion: u32,
    spell: u32,
}

impl Caution {
    /// Whether the next handler had better get a task.
    pub(super) fn advises_a_task(&mut self) -> bool {
        let advises = self.spell > 0;
        self.spell = self.spell.saturating_sub(1);
        advises
    }

    /// A handler kept the reading task for so long.
    pub(super) fn note(&mut self, took: Duration) {
        if took <= LONG {
            self.suspicion = self.suspicion.saturating_sub(1);
            return;
        }
        self.suspicion += WEIGHT;
        if self.suspicion >= ENOUGH || took > FAR_TOO_LONG {
            // The first one after the spell decides whether there is another.
            self.suspicion = ENOUGH - 1;
            self.spell = SPELL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(2);
    const SLOW: Duration = Duration::from_millis(3);

    fn after(handlers: impl IntoIterator<Item = Duration>) -> bool {
        let mut caution = Caution::default();
        handlers.into_iter().for_each(|took| caution.note(took));
        caution.advises_a_task()
    }

    #[test]
    fn handlers_that_are_long_again_and_again_get_tasks() {
        assert!(after([SLOW; 3]));
        let one_in_eight = (0..64).map(|n| if n % 8 == 0 { SLOW } else { QUICK });
        assert!(after(one_in_eight));
    }

    #[test]
    fn a_handler_that_blocks_for_long_is_enough() {
        assert!(after([FAR_TOO_LONG * 2]));
    }

    #[test]
    fn quick_handlers_that_were_interrupted_do_not() {
        let one_in_a_hundred = (0..10_000).map(|n| if n % 100 == 0 { SLOW } else { QUICK });
        assert!(!after(one_in_a_hundred));
    }

    #[test]
    fn a_spell_ends_and_the_next_handler_decides() {
        let mut caution = Caution::default();
        (0..3).for_each(|_| caution.note(SLOW));
        assert_eq!(
            (0..1000).filter(|_| caution.advises_a_task()).count(),
            SPELL as usize
        );
        caution.note(SLOW);
        assert!(caution.advises_a_task());
    }
}
