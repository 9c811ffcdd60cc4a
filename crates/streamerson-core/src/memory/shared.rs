//! The one lock, the clocks, and waiting for changes.

use std::time::Duration;

use parking_lot::Mutex;

use super::topic::TopicState;
use super::topics::Topics;
use crate::time::{Millis, Monotonic, unix_ms};
use crate::{Result, Topic};

/// The longest wait for what is due by the wall clock, which may be set meanwhile.
const WALL_CLOCK_CHECK: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Shared {
    topics: Mutex<Topics>,
    clock: Monotonic,
}

/// Now, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For leases, waits and remembered keys: nobody can set it.
    pub(super) monotonic: Millis,
    /// For positions and due times.
    pub(super) unix_ms: u64,
}

/// What a look at a topic found.
pub(super) enum Look<T> {
    Found(T),
    /// Nothing; something may be there when the topic changes, or at this time.
    Nothing {
        next: Option<Millis>,
    },
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            topics: Mutex::default(),
            clock: Monotonic::start(),
        }
    }

    pub(super) fn now(&self) -> Now {
        Now {
            monotonic: self.clock.now(),
            unix_ms: unix_ms(),
        }
    }

    /// Acts on all topics, in one step.
    pub(super) fn with_all<T>(&self, act: impl FnOnce(&mut Topics, Now) -> T) -> T {
        let mut topics = self.topics.lock();
        let now = self.now();
        act(&mut topics, now)
    }

    /// Acts on one topic, which is an empty one if there is none.
    pub(super) fn with<T>(&self, topic: &Topic, act: impl FnOnce(&mut TopicState, Now) -> T) -> T {
        self.with_all(|topics, now| act(topics.state(topic, now), now))
    }

    /// Looks at a topic until there is something: after each change, when `next` has come, and when something is due.
    pub(super) async fn wait_for<T>(
        &self,
        topic: &Topic,
        mut look: impl FnMut(&mut TopicState, Now) -> Result<Look<T>>,
    ) -> Result<T> {
        loop {
            let changed = self.with(topic, |state, _| state.changed.clone());
            let notified = changed.notified();
            tokio::pin!(notified);
            // Registered before looking, so that an append in between is not missed.
            notified.as_mut().enable();
            let (looked, due) = self.with(topic, |state, now| {
                let looked = look(state, now);
                (looked, state.next_due().map(|due| awake(due, now)))
            });
            let next = match looked? {
                Look::Found(found) => return Ok(found),
                Look::Nothing { next } => next.into_iter().chain(due).min(),
            };
            match next {
                Some(at) => {
                    let at = self.clock.instant(at).into();
                    let _ = tokio::time::timeout_at(at, notified).await;
                }
                None => notified.await,
            }
        }
    }
}

/// When to look again for what is due by the wall clock.
fn awake(due: u64, now: Now) -> Millis {
    let wait = due.saturating_sub(now.unix_ms);
    now.monotonic + wait.min(WALL_CLOCK_CHECK.as_millis() as Millis)
}
