//! Leases and upkeep.

use std::future::ready;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::MemoryBroker;
use super::shared::Now;
use super::topic::{GroupState, TopicState};
use super::topics::no_group;
use crate::group::{Held, Holding};
use crate::lease::{Fence, Lease, Leases};
use crate::time::millis;
use crate::upkeep::{Pending, Upkeep};
use crate::{Append, Entry, Error, Name, Position, Result, Start, Topic, partition};

impl Leases for MemoryBroker {
    fn acquire<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease>> {
        let lease = match millis(ttl) {
            0 => Err(Error::invalid(
                "invalid-lease",
                format!("a lease of {ttl:?} is none: give {name} at least a millisecond"),
            )),
            ttl => Ok(self.shared.with(topic, |state, now| {
                let before = state.leases.epoch();
                let lease = state.leases.acquire(name, holder, ttl, now.monotonic);
                if lease.epoch > before {
                    // Whoever waits as its owner is so no longer.
                    state.changed.notify_waiters();
                }
                lease
            })),
        };
        ready(lease).boxed()
    }

    fn release<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        let released = self.shared.with(topic, |state, now| {
            let released = state.leases.release(name, holder, now.monotonic);
            state.changed.notify_waiters();
            released
        });
        ready(Ok(released)).boxed()
    }

    fn leases<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Lease>>> {
        let held = self.shared.with(topic, |state, now| {
            state.leases.held(now.monotonic).collect()
        });
        ready(Ok(held)).boxed()
    }
}

impl MemoryBroker {
    fn with_group<T>(
        &self,
        topic: &Topic,
        group: &Name,
        act: impl FnOnce(&mut GroupState, Now) -> T,
    ) -> Result<T> {
        self.shared.with_all(|topics, now| {
            let state = topics.existing(topic, now);
            let found = state.and_then(|state| state.groups.get_mut(group));
            found
                .map(|found| act(found, now))
                .ok_or_else(|| no_group(topic, group))
        })
    }
}

impl Upkeep for MemoryBroker {
    fn range<'a>(
        &'a self,
        topic: &'a Topic,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>>> {
        let entries = self.shared.with_all(|topics, now| {
            let state = topics.existing(topic, now);
            state.map_or_else(Vec::new, |state| state.entries_after(after, max))
        });
        ready(Ok(entries)).boxed()
    }

    fn pending<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Pending>>> {
        let pending = self.with_group(topic, group, |group, now| {
            let held = group.deliveries.held();
            held.filter(|(position, _)| *position > after)
                .take(max)
                .map(|(position, held)| pending(position, held, now))
                .collect()
        });
        ready(pending).boxed()
    }

    fn seek<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        to: Start,
        fence: Option<&'a Fence>,
    ) -> BoxFuture<'a, Result<()>> {
        let moved = self.shared.with(topic, |state, now| {
            if let Some(fence) = fence.filter(|fence| !state.leases.is_held(fence, now.monotonic)) {
                return Err(Error::fenced(format!(
                    "the lease {} of topic {topic} is not held at epoch {} any more",
                    fence.lease, fence.epoch
                )));
            }
            let cursor = state.resolve(to);
            let group = state.groups.entry(group.clone());
            let group = group.or_insert_with(|| GroupState::new(cursor));
            group.deliveries.seek(cursor);
            state.changed.notify_waiters();
            Ok(())
        });
        ready(moved).boxed()
    }

    fn take<'a>(
        &'a self,
        topic: &'a Topic,
        position: Position,
        outputs: Vec<Append>,
    ) -> BoxFuture<'a, Result<bool>> {
        let taken = self
            .shared
            .with_all(|topics, now| topics.take(topic, position, outputs, now));
        ready(taken).boxed()
    }

    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        let removed = self.shared.with(topic, |state, _| {
            let removed = state.groups.remove(group).is_some();
            state.changed.notify_waiters();
            removed
        });
        ready(Ok(removed)).boxed()
    }

    fn remove_topic<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<bool>> {
        let removed = self.shared.with_all(|topics, _| topics.remove(topic));
        ready(Ok(removed)).boxed()
    }

    fn remove_members<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        silent: Duration,
    ) -> BoxFuture<'a, Result<Vec<Name>>> {
        let removed = self.with_group(topic, group, |group, now| {
            group
                .deliveries
                .remove_silent(millis(silent), now.monotonic)
        });
        ready(removed).boxed()
    }

    fn divide<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<u32>> {
        let divided = partition::check(topic, partitions).map(|()| {
            self.shared
                .with(topic, |state, _| divide(state, partitions))
        });
        ready(divided).boxed()
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<u32>> {
        let partitions = self.shared.with_all(|topics, now| {
            let state = topics.existing(topic, now);
            state.map_or(0, |state| state.partitions)
        });
        ready(Ok(partitions)).boxed()
    }
}

fn divide(state: &mut TopicState, partitions: u32) -> u32 {
    if state.partitions == 0 {
        state.partitions = partitions;
    }
    state.partitions
}

fn pending(position: Position, held: &Held, now: Now) -> Pending {
    let since = |then: u64| Duration::from_millis(now.monotonic.saturating_sub(then));
    let until = |then: u64| Duration::from_millis(then.saturating_sub(now.monotonic));
    Pending {
        position,
        member: held.member.clone(),
        idle: since(held.touched),
        attempt: held.attempt,
        due: match held.state {
            Holding::Working => None,
            Holding::Released { due } => Some(until(due)),
        },
    }
}
