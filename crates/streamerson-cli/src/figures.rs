//! Figures of groups, as tables show them and as `-o json` names them.

use std::time::Duration;

use serde::Serialize;
use streamerson_core::stats::{GroupStats, MemberStats};
use streamerson_core::{Position, Topic};

use crate::duration::short;

/// The columns of [`GroupFigures::row`].
pub(crate) const GROUP: [&str; 8] = [
    "TOPIC", "GROUP", "LAG", "BEHIND", "PENDING", "RETRYING", "OLDEST", "MEMBERS",
];

/// The columns of [`member`].
pub(crate) const MEMBER: [&str; 3] = ["MEMBER", "HOLDS", "IDLE"];

/// A group with its ages, at one moment.
#[derive(Debug, Serialize)]
pub(crate) struct GroupFigures {
    topic: String,
    #[serde(flatten)]
    pub(crate) stats: GroupStats,
    /// How long the oldest message that is not delivered yet has waited; null when there is none.
    lag_ms: Option<u64>,
    /// How old the oldest message is that is delivered and not settled; null when there is none.
    oldest_pending_ms: Option<u64>,
}

impl GroupFigures {
    /// The figures of a group of `topic`, at `now_unix_ms`.
    pub(crate) fn new(topic: &Topic, stats: GroupStats, now_unix_ms: u64) -> GroupFigures {
        let age = |position: Position| position.age(now_unix_ms).as_millis() as u64;
        GroupFigures {
            topic: topic.to_string(),
            lag_ms: stats.next.map(age),
            oldest_pending_ms: stats.oldest_pending.map(age),
            stats,
        }
    }

    /// As a row below [`GROUP`].
    pub(crate) fn row(&self) -> Vec<String> {
        let stats = &self.stats;
        vec![
            self.topic.clone(),
            stats.name.clone(),
            number(stats.lag),
            age(self.lag_ms),
            stats.pending.to_string(),
            stats.retrying.to_string(),
            age(self.oldest_pending_ms),
            stats.members.len().to_string(),
        ]
    }
}

/// An age, or nothing where there is nothing that has one.
fn age(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| short(Duration::from_millis(ms)))
}

/// A member as a row below [`MEMBER`].
pub(crate) fn member(member: &MemberStats) -> Vec<String> {
    vec![
        member.name.clone(),
        member.pending.to_string(),
        short(member.idle),
    ]
}

/// A number, or nothing where the broker cannot tell.
pub(crate) fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A position and its age.
pub(crate) fn stamped(value: Option<Position>, now_unix_ms: u64) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |position| format!("{position} ({} ago)", short(position.age(now_unix_ms))),
    )
}

/// `count` and what it counts.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}
