//! What the handles, the committer and the readers share.

use parking_lot::Mutex;
use streamerson_core::time::Monotonic;

use super::marks::Marks;
use super::queue::Queue;
use super::state::State;
use super::timer::Alarm;

/// What the handles, the committer and the readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Everything known. Held for short; never while a file is touched.
    pub(crate) state: Mutex<State>,
    /// The way to the committer.
    pub(crate) queue: Queue,
    /// Wakes the timer.
    pub(crate) alarm: Alarm,
    /// What was delivered; `None` for class `memory`.
    pub(crate) marks: Option<Marks>,
    /// Leases.
    pub(crate) clock: Monotonic,
    /// The wall clock: positions.
    pub(crate) unix_ms: fn() -> u64,
}

impl Shared {
    /// Begins with `state`.
    pub(crate) fn new(
        state: State,
        marks: Option<Marks>,
        clock: Monotonic,
        unix_ms: fn() -> u64,
    ) -> Shared {
        Shared {
            state: Mutex::new(state),
            queue: Queue::default(),
            alarm: Alarm::default(),
            marks,
            clock,
            unix_ms,
        }
    }
}
