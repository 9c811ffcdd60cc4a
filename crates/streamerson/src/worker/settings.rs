//! What a worker was told, checked before it serves.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use streamerson_core::retention::Retention;
use streamerson_core::retry::RetryPolicy;
use streamerson_core::{Broker, Error, Name, Result, Start, Topic, partition};

use super::stats::Counters;
use crate::Dedupe;

/// The shortest lease: a shorter one would be lost in every scheduling delay.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// The longest one: nobody wants to wait longer for the messages of a worker that died.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 3600);

/// A topic to work on.
#[derive(Debug, Clone)]
pub(super) struct WorkTopic {
    pub(super) topic: Topic,
    /// When it is worked on in order: into how many partitions it is divided, if it is not yet.
    pub(super) partitions: Option<u32>,
}

impl WorkTopic {
    /// Whether a worker may work on it.
    pub(super) fn check(&self) -> Result<()> {
        let Self { topic, partitions } = self;
        if topic.is_dead_letters() || topic.is_inbox() {
            return Err(Error::invalid(
                "topic-reserved",
                format!(
                    "{topic} cannot be worked on: dead letters are to be replayed to their topic, and inboxes belong to clients"
                ),
            ));
        }
        partitions.map_or(Ok(()), |partitions| partition::check(topic, partitions))
    }
}

/// Refuses what would let a worker work on a topic both in order and not.
pub(super) fn twice(topic: &Topic) -> Error {
    Error::invalid(
        "topic-twice",
        format!("{topic} is to be worked on twice: name each topic once, in order or not"),
    )
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) topics: Vec<WorkTopic>,
    pub(super) group: Option<Name>,
    /// The name it was given.
    pub(super) member: Option<Name>,
    /// Unique to this start of this worker.
    pub(super) instance: Name,
    /// The name of the member in its groups: the given one and the instance, or the instance.
    pub(super) member_name: Name,
    pub(super) start: Start,
    pub(super) concurrency: usize,
    pub(super) prefetch: usize,
    pub(super) prefetch_bytes: usize,
    pub(super) rate: Option<NonZeroU32>,
    pub(super) handler_timeout: Option<Duration>,
    pub(super) lease: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) dedupe: Option<Dedupe>,
    pub(super) retention: Option<Retention>,
    pub(super) drain: Duration,
    pub(super) counters: Counters,
}

impl Settings {
    pub(super) fn group(&self) -> Result<Name> {
        self.group.clone().ok_or_else(|| {
            Error::invalid("group-missing", "a worker needs a consumer group: add .group(\"NAME\"), the same for all workers that share the work")
        })
    }

    /// Whether a worker can serve with these; `more`: topics may be added later.
    pub(super) fn check(&self, more: bool) -> Result<()> {
        self.group()?;
        if self.topics.is_empty() && !more {
            return Err(Error::invalid(
                "topic-missing",
                "a worker needs a topic: add .topic(\"NAME\")",
            ));
        }
        self.topics.iter().try_for_each(WorkTopic::check)?;
        let mut names: Vec<&Topic> = self.topics.iter().map(|work| &work.topic).collect();
        names.sort();
        if let Some(two) = names.windows(2).find(|two| two[0] == two[1]) {
            return Err(twice(two[0]));
        }
        if self.concurrency == 0 {
            return Err(Error::invalid(
                "invalid-concurrency",
                "a concurrency of 0 would handle nothing; use at least 1",
            ));
        }
        if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&self.lease) {
            return Err(Error::invalid(
                "invalid-lease",
                format!(
                    "a lease of {:?} makes no sense; use {SHORTEST_LEASE:?} to {LONGEST_LEASE:?}",
                    self.lease
                ),
            ));
        }
        if self.handler_timeout.is_some_and(|limit| limit.is_zero()) {
            return Err(Error::invalid(
                "invalid-handler-timeout",
                "no handler ends within no time; use a longer limit, or none",
            ));
        }
        Ok(())
    }
}
