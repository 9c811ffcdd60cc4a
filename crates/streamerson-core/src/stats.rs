//! What can be seen of a topic and its groups.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::Position;

/// A topic, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TopicStats {
    /// Messages held.
    pub length: u64,
    /// Messages appended so far: for rates. It only grows, but may begin anew with the broker; absent when the broker cannot
    /// tell.
    pub appended: Option<u64>,
    /// Position of the oldest message held.
    #[serde(serialize_with = "as_text")]
    pub first: Option<Position>,
    /// Position of the newest message ever appended.
    #[serde(serialize_with = "as_text")]
    pub last: Option<Position>,
    /// Messages kept aside until they are due.
    pub scheduled: u64,
    /// Its groups, by name.
    pub groups: Vec<GroupStats>,
}

/// A consumer group, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupStats {
    /// Its name.
    #[serde(rename = "group")]
    pub name: String,
    /// The newest position delivered.
    #[serde(serialize_with = "as_text")]
    pub cursor: Option<Position>,
    /// Messages not delivered yet; absent when the broker cannot tell.
    pub lag: Option<u64>,
    /// The oldest position not delivered yet.
    #[serde(serialize_with = "as_text")]
    pub next: Option<Position>,
    /// Messages delivered and not settled.
    pub pending: u64,
    /// Of these, messages given back, to be delivered again.
    pub retrying: u64,
    /// The oldest position delivered and not settled.
    #[serde(serialize_with = "as_text")]
    pub oldest_pending: Option<Position>,
    /// Its members, by name.
    pub members: Vec<MemberStats>,
}

/// A member of a group, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberStats {
    /// Its name.
    pub name: String,
    /// Deliveries it holds.
    pub pending: u64,
    /// Time since its last sign of life.
    #[serde(rename = "idle_ms", serialize_with = "as_ms")]
    pub idle: Duration,
}

/// What happened since the broker was connected that no answer told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Incidents {
    /// Times that the connection was lost.
    pub reconnects: u64,
    /// Entries that were not messages, moved to the dead letters.
    pub foreign_entries: u64,
    /// Messages that were removed before a group had processed them: those it had pending, and, where the broker can tell, at least so
    /// many of those it had not come to. An alarm.
    pub lost_messages: u64,
    /// Times that a group, or its topic, was removed while a member worked in it. An alarm.
    pub lost_groups: u64,
}

/// Counts [`Incidents`] for a broker: from any thread, and never waits.
///
/// ```
/// use streamerson_core::stats::IncidentCounts;
///
/// let counts = IncidentCounts::default();
/// counts.lost_messages.add(3);
/// assert_eq!(counts.read().lost_messages, 3);
/// ```
#[derive(Debug, Default)]
pub struct IncidentCounts {
    /// See [`Incidents::reconnects`].
    pub reconnects: Count,
    /// See [`Incidents::foreign_entries`].
    pub foreign_entries: Count,
    /// See [`Incidents::lost_messages`].
    pub lost_messages: Count,
    /// See [`Incidents::lost_groups`].
    pub lost_groups: Count,
}

impl IncidentCounts {
    /// What was counted so far.
    pub fn read(&self) -> Incidents {
        Incidents {
            reconnects: self.reconnects.read(),
            foreign_entries: self.foreign_entries.read(),
            lost_messages: self.lost_messages.read(),
            lost_groups: self.lost_groups.read(),
        }
    }
}

/// One of [`IncidentCounts`].
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl GroupStats {
    /// How long the oldest message that is not delivered yet has waited at `now_unix_ms`; zero when there is none.
    pub fn lag_age(&self, now_unix_ms: u64) -> Duration {
        age(self.next, now_unix_ms)
    }

    /// How old the oldest message delivered and not settled is at `now_unix_ms`; zero when there is none.
    pub fn oldest_pending_age(&self, now_unix_ms: u64) -> Duration {
        age(self.oldest_pending, now_unix_ms)
    }
}

fn age(position: Option<Position>, now_unix_ms: u64) -> Duration {
    position.map_or(Duration::ZERO, |position| position.age(now_unix_ms))
}

fn as_text<S: serde::Serializer>(
    position: &Option<Position>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match position {
        Some(position) => serializer.collect_str(position),
        None => serializer.serialize_none(),
    }
}

fn as_ms<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis() as u64)
}
