//! Until when an answer is of use, and how nested requests inherit it.

use std::future::Future;
use std::time::Duration;

use streamerson_core::time::{millis, unix_ms};

tokio::task_local! {
    static CURRENT: Deadline;
}

/// Until when the answer to a message is of use. A message whose deadline has passed is not handled.
///
/// As a handler's argument it is the deadline of the message, or none. Requests made within a handler inherit it by
/// themselves; in a task that the handler spawns, pass it on with
/// [`RequestBuilder::deadline`](crate::client::RequestBuilder::deadline).
///
/// ```
/// use std::time::Duration;
/// use streamerson::Deadline;
///
/// let deadline = Deadline::after(Duration::from_secs(3));
/// assert!(deadline.remaining().is_some_and(|left| left > Duration::from_secs(2)));
/// assert_eq!(Deadline::NONE.remaining(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    unix_ms: Option<u64>,
}

impl Deadline {
    /// No deadline.
    pub const NONE: Deadline = Deadline { unix_ms: None };

    /// The deadline at `unix_ms` milliseconds since 1970, by the clock of this machine. In `meta.exp` it travels by the broker's.
    pub const fn at(unix_ms: u64) -> Deadline {
        Deadline {
            unix_ms: Some(unix_ms),
        }
    }

    /// The deadline `timeout` from now.
    pub fn after(timeout: Duration) -> Deadline {
        Deadline::at(unix_ms().saturating_add(millis(timeout)))
    }

    /// Milliseconds since 1970, by the clock of this machine.
    pub const fn unix_ms(self) -> Option<u64> {
        self.unix_ms
    }

    /// The time left, zero when it has passed; `None` without a deadline.
    pub fn remaining(self) -> Option<Duration> {
        self.unix_ms
            .map(|at| Duration::from_millis(at.saturating_sub(unix_ms())))
    }

    /// Whether it has passed at `now_unix_ms`.
    pub fn has_passed(self, now_unix_ms: u64) -> bool {
        self.unix_ms.is_some_and(|at| at <= now_unix_ms)
    }

    /// The same moment on another clock, which says `now`.
    pub(crate) fn unix_ms_at(self, now: u64) -> Option<u64> {
        Some(now.saturating_add(millis(self.remaining()?)))
    }

    /// This deadline, of a clock that says `now`, on the clock of this machine.
    pub(crate) fn moved_here(self, now: u64) -> Deadline {
        let ahead = unix_ms().cast_signed().saturating_sub(now.cast_signed());
        Deadline {
            unix_ms: self.unix_ms.map(|at| at.saturating_add_signed(ahead)),
        }
    }

    /// The earlier of the two.
    pub fn min(self, other: Deadline) -> Deadline {
        let both = self.unix_ms.zip(other.unix_ms).map(|(a, b)| a.min(b));
        Deadline {
            unix_ms: both.or(self.unix_ms).or(other.unix_ms),
        }
    }

    /// The deadline of the message that is being handled, if any.
    pub(crate) fn inherited() -> Deadline {
        CURRENT
            .try_with(|deadline| *deadline)
            .unwrap_or(Deadline::NONE)
    }

    /// Runs `handling`, whose requests inherit this deadline.
    pub(crate) fn inherit<F: Future>(self, handling: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, handling)
    }
}

impl From<Option<u64>> for Deadline {
    fn from(unix_ms: Option<u64>) -> Deadline {
        Deadline { unix_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_deadline_counts_and_none_does_not() {
        let (early, late) = (Deadline::at(1), Deadline::at(2));
        assert_eq!(late.min(early), early);
        assert_eq!(Deadline::NONE.min(late), late);
        assert_eq!(late.min(Deadline::NONE), late);
        assert_eq!(Deadline::NONE.min(Deadline::NONE), Deadline::NONE);
    }

    #[test]
    fn a_deadline_passes_when_its_time_has_come() {
        assert!(!Deadline::at(5).has_passed(4));
        assert!(Deadline::at(5).has_passed(5));
        assert!(!Deadline::NONE.has_passed(u64::MAX));
    }

    #[tokio::test]
    async fn what_runs_within_inherits() {
        assert_eq!(Deadline::inherited(), Deadline::NONE);
        let within = Deadline::at(7)
            .inherit(async { Deadline::inherited() })
            .await;
        assert_eq!(within, Deadline::at(7));
    }
}
