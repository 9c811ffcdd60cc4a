//! Upkeep and leases.

use std::future::ready;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use streamerson_core::group::{Held, Holding};
use streamerson_core::lease::{Fence, Lease, Leases};
use streamerson_core::time::{Millis, millis};
use streamerson_core::upkeep::{Pending, Upkeep};
use streamerson_core::{Append, Entry, Error, Name, Position, Result, Start, Topic};

use crate::broker::EmbeddedBroker;
use crate::engine::GroupKey;
use crate::reader;

impl Leases for EmbeddedBroker {
    fn acquire<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease>> {
        match millis(ttl) {
            0 => ready(Err(Error::invalid(
                "invalid-lease",
                format!("a lease of {ttl:?} is none: give {name} at least a millisecond"),
            )))
            .boxed(),
            ttl => self.engine().acquire(topic, name, holder, ttl).boxed(),
        }
    }

    fn release<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        ready(Ok(self.engine().release(topic, name, holder))).boxed()
    }

    fn leases<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Lease>>> {
        ready(Ok(self.engine().leases(topic))).boxed()
    }
}

impl Upkeep for EmbeddedBroker {
    fn range<'a>(
        &'a self,
        topic: &'a Topic,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>>> {
        reader::range(self.engine(), topic, after, max).boxed()
    }

    fn pending<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Pending>>> {
        let pending = self.engine().with_group(&key(topic, group), |group, now| {
            let held = group.held().filter(|(position, _)| *position > after);
            held.take(max)
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
        async move {
            let key = key(topic, group);
            self.engine().begin_or_seek(&key, to, fence).await
        }
        .boxed()
    }

    fn take<'a>(
        &'a self,
        topic: &'a Topic,
        position: Position,
        outputs: Vec<Append>,
    ) -> BoxFuture<'a, Result<bool>> {
        self.engine().take_out(topic, position, outputs).boxed()
    }

    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        async move { self.engine().remove_group(&key(topic, group)).await }.boxed()
    }

    fn remove_topic<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<bool>> {
        self.engine().remove_topic(topic).boxed()
    }

    fn remove_members<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        silent: Duration,
    ) -> BoxFuture<'a, Result<Vec<Name>>> {
        let removed = self.engine().with_group(&key(topic, group), |group, now| {
            group.remove_silent(millis(silent), now)
        });
        ready(removed).boxed()
    }

    fn divide<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<u32>> {
        self.engine().divide(topic, partitions).boxed()
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<u32>> {
        ready(Ok(self.engine().partitions(topic))).boxed()
    }
}

fn key(topic: &Topic, group: &Name) -> GroupKey {
    GroupKey {
        topic: topic.clone(),
        group: group.clone(),
    }
}

fn pending(position: Position, held: &Held, now: Millis) -> Pending {
    let since = |then: Millis| Duration::from_millis(now.saturating_sub(then));
    let until = |then: Millis| Duration::from_millis(then.saturating_sub(now));
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
