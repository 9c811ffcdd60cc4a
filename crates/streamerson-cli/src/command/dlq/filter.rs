//! Which dead letters are meant.

use std::time::Duration;

use clap::Args;
use streamerson_core::Position;

use super::letter::Letter;
use crate::duration;

/// Only the dead letters for which all of this is true; without any, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Which dead letters")]
pub(super) struct Filter {
    /// Given up for this reason; may be repeated
    #[arg(long, value_name = "CODE")]
    pub(super) code: Vec<String>,

    /// Of this message type; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    kind: Vec<String>,

    /// Given up by this group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,

    /// With this message id; may be repeated
    #[arg(long, value_name = "ID")]
    id: Vec<String>,

    /// With this text in the reason, in any case
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Given up longer ago than this, for example 30m, 12h or 7d
    #[arg(long, value_name = "AGE", value_parser = duration::age)]
    older_than: Option<Duration>,

    /// Given up more lately than this
    #[arg(long, value_name = "AGE", value_parser = duration::age)]
    newer_than: Option<Duration>,

    /// At this position or later
    #[arg(long, value_name = "POSITION")]
    from: Option<Position>,

    /// At this position or earlier
    #[arg(long, value_name = "POSITION")]
    to: Option<Position>,
}

impl Filter {
    /// Whether all letters are meant.
    pub(super) fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Where the letters that may match begin (the position before) and end, at `now_unix_ms`: positions tell time.
    pub(super) fn bounds(&self, now_unix_ms: u64) -> (Position, Position) {
        let ago = |age: Duration| now_unix_ms.saturating_sub(age.as_millis() as u64);
        let newer = self.newer_than.map(|age| Position::new(ago(age), u64::MAX));
        let from = self.from.and_then(Position::predecessor);
        let older = self.older_than.map(|age| Position::new(ago(age), 0));
        let older = older.and_then(Position::predecessor);
        let last = Position::new(u64::MAX, u64::MAX);
        (
            newer.max(from).unwrap_or_default(),
            older.unwrap_or(last).min(self.to.unwrap_or(last)),
        )
    }

    /// Whether `letter`, within the bounds, is meant.
    pub(super) fn matches(&self, letter: &Letter) -> bool {
        let among = |wanted: &[String], found: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted == found)
        };
        let contains = |text: &String| {
            let reason = letter.why.reason.to_lowercase();
            reason.contains(&text.to_lowercase())
        };
        among(&self.code, &letter.why.code)
            && among(&self.kind, letter.kind())
            && among(&self.id, letter.id())
            && self
                .group
                .as_ref()
                .is_none_or(|group| *group == letter.why.group)
            && self.reason.as_ref().is_none_or(contains)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::meta::DeadLetter;
    use streamerson_core::{Entry, Message, Topic, dead_letter};

    fn letter() -> Letter {
        let topic = Topic::new("orders").unwrap();
        let why = DeadLetter {
            code: "busy".into(),
            reason: "Card service is away".into(),
            group: "billing".into(),
            ..DeadLetter::default()
        };
        let mut message = Message::new("order.create", "{}");
        message.id = "7".into();
        Letter::new(Entry {
            position: Position::new(5_000, 3),
            message: Ok(dead_letter::letter(&topic, &message, why).message),
        })
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn every_condition_has_to_be_true() {
        let all = Filter {
            code: vec!["x".into(), "busy".into()],
            kind: vec!["order.create".into()],
            group: text("billing"),
            id: vec!["7".into()],
            reason: text("card SERVICE"),
            ..Filter::default()
        };
        assert!(Filter::default().matches(&letter()));
        assert!(all.matches(&letter()));
        let others = [
            Filter {
                code: vec!["x".into()],
                ..all.clone()
            },
            Filter {
                kind: vec!["order".into()],
                ..all.clone()
            },
            Filter {
                group: text("bill"),
                ..all.clone()
            },
            Filter {
                id: vec!["8".into()],
                ..all.clone()
            },
            Filter {
                reason: text("debit"),
                ..all
            },
        ];
        for other in others {
            assert!(!other.matches(&letter()), "{other:?}");
        }
    }

    #[test]
    fn ages_and_positions_bound_the_walk() {
        let seconds = |n| Some(Duration::from_secs(n));
        let within = |filter: Filter| {
            let (after, to) = filter.bounds(10_000);
            let position = Position::new(5_000, 3);
            after < position && position <= to
        };
        let none = Filter::default;
        assert!(within(none()));
        assert!(within(Filter {
            older_than: seconds(4),
            newer_than: seconds(6),
            ..none()
        }));
        assert!(!within(Filter {
            older_than: seconds(5),
            ..none()
        }));
        assert!(!within(Filter {
            newer_than: seconds(5),
            ..none()
        }));
        let exactly = Some(Position::new(5_000, 3));
        assert!(within(Filter {
            from: exactly,
            to: exactly,
            ..none()
        }));
        assert!(!within(Filter {
            from: Some(Position::new(5_000, 4)),
            ..none()
        }));
        assert!(!within(Filter {
            to: Some(Position::new(5_000, 2)),
            ..none()
        }));
    }
}
