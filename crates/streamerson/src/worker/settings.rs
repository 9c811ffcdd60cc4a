//! What a worker was told, checked before it serves.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use streamerson_core::retention::Retention;
use streamerson_core::retry::RetryPolicy;
use streamerson_core::{Broker, Error, Name, Result, Start, Topic};

use super::ordered::OrderedTopic;
use super::stats::Counters;
use crate::Dedupe;

/// The shortest lease: a shorter one would be lost in every scheduling delay.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) topics: Vec<Topic>,
    pub(super) ordered: Vec<OrderedTopic>,
    pub(super) group: Option<Name>,
    /// The name it was given.
    pub(super) member: Option<Name>,
    /// Unique to this worker.
    pub(super) instance: Name,
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

    /// The name of the member in its groups.
    pub(super) fn member_name(&self) -> &Name {
        self.member.as_ref().unwrap_or(&self.instance)
    }

    /// Whether a worker can serve with these; `more`: topics may be added later.
    pub(super) fn check(&self, more: bool) -> Result<()> {
        self.group()?;
        if self.topics.is_empty() && self.ordered.is_empty() && !more {
            return Err(Error::invalid(
                "topic-missing",
                "a worker needs a topic: add .topic(\"NAME\")",
            ));
        }
        self.topics.iter().try_for_each(check_topic)?;
        self.ordered.iter().try_for_each(OrderedTopic::check)?;
        let mut names: Vec<&Topic> = self.ordered.iter().map(|ordered| &ordered.topic).collect();
        names.extend(&self.topics);
        names.sort();
        if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
            return Err(Error::invalid(
                "topic-twice",
                format!(
                    "{} is to be worked on twice: name each topic once, in order or not",
                    twice[0]
                ),
            ));
        }
        if self.concurrency == 0 {
            return Err(Error::invalid(
                "invalid-concurrency",
                "a concurrency of 0 would handle nothing; use at least 1",
            ));
        }
        if self.lease < SHORTEST_LEASE {
            return Err(Error::invalid(
                "invalid-lease",
                format!(
                    "a lease of {:?} is too short; use at least {SHORTEST_LEASE:?}",
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

/// Whether a worker may work on `topic`.
pub(super) fn check_topic(topic: &Topic) -> Result<()> {
    if topic.is_dead_letters() || topic.is_inbox() {
        return Err(Error::invalid(
            "topic-reserved",
            format!(
                "{topic} cannot be worked on: dead letters are to be replayed to their topic, and inboxes belong to clients"
            ),
        ));
    }
    Ok(())
}
