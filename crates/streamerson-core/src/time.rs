//! Time as a number, so that decisions take it as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds on a monotonic clock of this process: for leases and waits. Wall-clock jumps do not move it.
pub type Millis = u64;

/// Milliseconds since 1970 by the wall clock: for positions and for deadlines that travel between machines.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// `duration` in whole milliseconds; what is too long for that is as long as can be.
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// A monotonic clock that counts milliseconds from its creation.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic {
    origin: Instant,
}

impl Monotonic {
    /// Starts at zero.
    pub fn start() -> Monotonic {
        Monotonic {
            origin: Instant::now(),
        }
    }

    /// Milliseconds since the start.
    pub fn now(&self) -> Millis {
        self.origin.elapsed().as_millis() as Millis
    }

    /// The instant of `at`.
    pub fn instant(&self, at: Millis) -> Instant {
        self.origin + Duration::from_millis(at)
    }
}
