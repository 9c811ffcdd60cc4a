//! How much of a topic is kept.

use std::time::Duration;

use crate::Position;

/// What to keep when a topic is trimmed. With several limits, the one that removes more wins; with none, all is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Keep messages younger than this.
    pub max_age: Option<Duration>,
    /// Keep this many of the newest messages.
    pub max_len: Option<u64>,
    /// Also remove what a group has not processed, or what no group has read yet. That is data loss, and is answered as such.
    pub force: bool,
}

/// What a trim did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Messages removed.
    pub removed: u64,
    /// Of these, messages that some group had not processed, or that there was no group to process: lost. Only with
    /// [`Retention::force`].
    pub lost: u64,
}

impl Retention {
    /// The first position to keep: everything before it may go.
    ///
    /// `nth_newest` answers the position of the nth newest message (the newest is the first), if there are that many;
    /// `first_unprocessed` is where the first message that some group has not processed stands or would stand, `None`
    /// without groups.
    pub fn boundary(
        &self,
        now_unix_ms: u64,
        nth_newest: impl FnOnce(u64) -> Option<Position>,
        first_unprocessed: Option<Position>,
    ) -> Option<Position> {
        let by_age = self
            .max_age
            .map(|age| Position::new(now_unix_ms.saturating_sub(age.as_millis() as u64), 0));
        let by_length = match self.max_len {
            Some(0) => Some(Position::new(u64::MAX, u64::MAX)),
            Some(keep) => nth_newest(keep),
            None => None,
        };
        let wanted = by_age.max(by_length)?;
        if self.force {
            return Some(wanted);
        }
        Some(wanted.min(first_unprocessed?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(max_len: u64) -> Retention {
        Retention {
            max_len: Some(max_len),
            ..Retention::default()
        }
    }

    #[test]
    fn unprocessed_messages_bound_every_trim() {
        let boundary = keep(0).boundary(0, |_| None, Some(Position::new(5, 1)));
        assert_eq!(boundary, Some(Position::new(5, 1)));
        assert_eq!(keep(0).boundary(0, |_| None, None), None);
    }

    #[test]
    fn force_ignores_groups() {
        let retention = Retention {
            force: true,
            ..keep(2)
        };
        let boundary = retention.boundary(0, |_| Some(Position::new(9, 0)), Some(Position::ZERO));
        assert_eq!(boundary, Some(Position::new(9, 0)));
    }

    #[test]
    fn the_stricter_limit_wins() {
        let retention = Retention {
            max_age: Some(Duration::from_millis(10)),
            ..keep(1)
        };
        let first_unprocessed = Some(Position::new(1000, 0));
        let boundary = retention.boundary(100, |_| Some(Position::new(50, 0)), first_unprocessed);
        assert_eq!(boundary, Some(Position::new(90, 0)));
    }
}
