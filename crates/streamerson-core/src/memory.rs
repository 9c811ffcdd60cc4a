//! The in-memory broker: the executable specification of the contract, and a broker for tests.
//!
//! It is written to be read. Everything lives behind one lock, nothing survives the process.

mod upkeep;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::{
    Append, Broker, Capabilities, Delivery, Entry, Inbox, Member, Membership, Outcome, Reader,
    Receipt, Settlement, Settler,
};
use crate::group::{Grant, Group};
use crate::retention::{Retention, Trimmed};
use crate::stats::{GroupStats, MemberStats, TopicStats};
use crate::time::{Millis, Monotonic, unix_ms};
use crate::{Durability, Error, ErrorKind, Message, Name, Position, Result, Start, Topic, message};

/// How many replies an inbox holds; the oldest go first.
const INBOX_LIMIT: usize = 10_000;

/// A broker whose topics live in this process's memory. Clones share the topics.
///
/// ```
/// use streamerson_core::memory::MemoryBroker;
/// use streamerson_core::{Append, Broker, Message, Start, Topic};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson_core::Result<()> {
/// let broker = MemoryBroker::new();
/// let topic = Topic::new("orders")?;
/// broker.append(vec![Append::new(topic.clone(), Message::new("order.create", "{}"))]).await;
///
/// let mut reader = broker.read(&topic, Start::Earliest).await?;
/// let entries = reader.next(10).await?;
/// assert_eq!(entries.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    topics: Mutex<BTreeMap<Topic, TopicState>>,
    clock: Monotonic,
}

#[derive(Debug, Default)]
struct TopicState {
    entries: VecDeque<(Position, Message)>,
    last: Position,
    groups: BTreeMap<Name, Group>,
    changed: Arc<Notify>,
}

impl Default for MemoryBroker {
    fn default() -> MemoryBroker {
        MemoryBroker::new()
    }
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new() -> MemoryBroker {
        MemoryBroker {
            shared: Arc::new(Shared {
                topics: Mutex::default(),
                clock: Monotonic::start(),
            }),
        }
    }
}

impl Shared {
    fn with<T>(&self, topic: &Topic, act: impl FnOnce(&mut TopicState) -> T) -> T {
        let mut topics = self.topics.lock();
        match topics.get_mut(topic) {
            Some(state) => act(state),
            None => act(topics.entry(topic.clone()).or_default()),
        }
    }

    fn append(&self, append: Append) -> Position {
        if append.topic.is_inbox() && !self.topics.lock().contains_key(&append.topic) {
            // Nobody reads this inbox any more: the reply is late.
            return Position::ZERO;
        }
        let bound = if append.topic.is_inbox() {
            INBOX_LIMIT
        } else {
            usize::MAX
        };
        self.with(&append.topic, |state| {
            state.last = state.last.successor(unix_ms());
            state.entries.push_back((state.last, append.message));
            if state.entries.len() > bound {
                state.entries.pop_front();
            }
            state.changed.notify_waiters();
            state.last
        })
    }
}

impl TopicState {
    /// A topic begins with its first message or its first group; a reader that waits for it does not make it one.
    fn exists(&self) -> bool {
        self.last > Position::ZERO || !self.groups.is_empty()
    }

    fn resolve(&self, start: Start) -> Position {
        match start {
            Start::Earliest => Position::ZERO,
            Start::Latest => self.last,
            Start::After(position) => position,
        }
    }

    fn after(&self, position: Position) -> impl Iterator<Item = &(Position, Message)> {
        let from = self.entries.partition_point(|(at, _)| *at <= position);
        self.entries.range(from..)
    }

    fn message(&self, position: Position) -> Option<&Message> {
        let at = self
            .entries
            .binary_search_by_key(&position, |(at, _)| *at)
            .ok()?;
        self.entries.get(at).map(|(_, message)| message)
    }

    /// What `member` works on next: what others gave up first, then new messages.
    fn take(&mut self, membership: &Membership, now: Millis, max: usize) -> Vec<Delivery> {
        let Membership {
            group,
            member,
            lease,
            ..
        } = membership;
        let mut state = self
            .groups
            .remove(group)
            .unwrap_or_else(|| Group::new(Position::ZERO));
        let lease = lease.as_millis() as Millis;
        let mut grants = state.take_over(member, now, lease, max);
        let fresh: Vec<Position> = self
            .after(state.cursor())
            .take(max - grants.len())
            .map(|(position, _)| *position)
            .collect();
        grants.extend(fresh.into_iter().map(|at| state.deliver(member, at, now)));
        self.groups.insert(group.clone(), state);
        grants
            .into_iter()
            .filter_map(|Grant { position, attempt }| {
                let message = self.message(position)?.clone();
                Some(Delivery {
                    receipt: Receipt::new(position, attempt),
                    message,
                })
            })
            .collect()
    }

    fn stats(&self, now: Millis) -> TopicStats {
        let groups = self.groups.iter().map(|(name, group)| GroupStats {
            name: name.to_string(),
            cursor: (group.cursor() > Position::ZERO).then_some(group.cursor()),
            lag: Some(self.after(group.cursor()).count() as u64),
            next: self
                .after(group.cursor())
                .next()
                .map(|(position, _)| *position),
            pending: group.pending() as u64,
            retrying: 0,
            oldest_pending: group.held().next().map(|(position, _)| position),
            members: group
                .members()
                .map(|(member, seen)| MemberStats {
                    name: member.to_string(),
                    pending: group
                        .held()
                        .filter(|(_, held)| held.member == *member)
                        .count() as u64,
                    idle: Duration::from_millis(now.saturating_sub(seen)),
                })
                .collect(),
        });
        TopicStats {
            length: self.entries.len() as u64,
            first: self.entries.front().map(|(position, _)| *position),
            last: (self.last > Position::ZERO).then_some(self.last),
            scheduled: 0,
            groups: groups.collect(),
        }
    }

    fn trim(&mut self, retention: Retention) -> Trimmed {
        let first_unprocessed = self.groups.values().map(Group::first_unprocessed).min();
        let nth_newest = |n: u64| {
            let at = self.entries.len().checked_sub(n as usize)?;
            self.entries.get(at).map(|(position, _)| *position)
        };
        let Some(boundary) = retention.boundary(unix_ms(), nth_newest, first_unprocessed) else {
            return Trimmed::default();
        };
        let removed = self.entries.partition_point(|(at, _)| *at < boundary);
        let lost = first_unprocessed.map_or(removed, |safe| {
            removed
                - self
                    .entries
                    .partition_point(|(at, _)| *at < safe)
                    .min(removed)
        });
        self.entries.drain(..removed);
        for group in self.groups.values_mut() {
            group.forget_before(boundary);
        }
        Trimmed {
            removed: removed as u64,
            lost: lost as u64,
        }
    }
}

static CAPABILITIES: LazyLock<Capabilities> = LazyLock::new(|| Capabilities {
    broker: "memory".into(),
    durability: Durability::Memory,
    warnings: Vec::new(),
});

impl Broker for MemoryBroker {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
        let positions = batch
            .into_iter()
            .map(|append| Ok(self.shared.append(append)))
            .collect();
        std::future::ready(positions).boxed()
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
        let cursor = self.shared.with(topic, |state| state.resolve(start));
        let reader = MemoryReader {
            shared: self.shared.clone(),
            topic: topic.clone(),
            cursor,
        };
        std::future::ready(Ok(Box::new(reader) as Box<dyn Reader>)).boxed()
    }

    fn join(&self, membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        let now = self.shared.clock.now();
        self.shared.with(&membership.topic, |state| {
            let cursor = state.resolve(membership.start);
            let group = state.groups.entry(membership.group.clone());
            group
                .or_insert_with(|| Group::new(cursor))
                .seen(&membership.member, now);
        });
        let member = MemoryMember {
            settler: Arc::new(MemorySettler {
                shared: self.shared.clone(),
                membership,
            }),
        };
        std::future::ready(Ok(Box::new(member) as Box<dyn Member>)).boxed()
    }

    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
        async move {
            let address = Topic::inbox(&message::new_id())?;
            let reader = self.read(&address, Start::Earliest).await?;
            Ok(Inbox { address, reader })
        }
        .boxed()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        let topics = self.shared.topics.lock();
        let visible = topics
            .iter()
            .filter(|(topic, state)| {
                state.exists() && !topic.is_inbox() && !topic.is_dead_letters()
            })
            .map(|(topic, _)| topic.clone());
        std::future::ready(Ok(visible.collect())).boxed()
    }

    fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
        let now = self.shared.clock.now();
        let topics = self.shared.topics.lock();
        let stats = topics
            .get(topic)
            .filter(|state| state.exists())
            .map(|state| state.stats(now))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    "topic-not-found",
                    format!("there is no topic {topic}; a topic begins with its first message"),
                )
            });
        std::future::ready(stats).boxed()
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Trimmed>> {
        let trimmed = self.shared.with(topic, |state| state.trim(retention));
        std::future::ready(Ok(trimmed)).boxed()
    }
}

struct MemoryReader {
    shared: Arc<Shared>,
    topic: Topic,
    cursor: Position,
}

impl Reader for MemoryReader {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Entry>>> {
        async move {
            loop {
                let changed = self.shared.with(&self.topic, |state| state.changed.clone());
                let notified = changed.notified();
                tokio::pin!(notified);
                // Registered before looking, so that an append in between is not missed.
                notified.as_mut().enable();
                let entries: Vec<Entry> = self.shared.with(&self.topic, |state| {
                    let after = state.after(self.cursor).take(max.max(1));
                    after
                        .map(|(position, message)| Entry {
                            position: *position,
                            message: Ok(message.clone()),
                        })
                        .collect()
                });
                if let Some(last) = entries.last() {
                    self.cursor = last.position;
                    return Ok(entries);
                }
                notified.await;
            }
        }
        .boxed()
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        if self.topic.is_inbox() {
            self.shared.topics.lock().remove(&self.topic);
        }
    }
}

struct MemoryMember {
    settler: Arc<MemorySettler>,
}

impl Member for MemoryMember {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        async move {
            let MemorySettler { shared, membership } = &*self.settler;
            let lease = membership.lease.as_millis() as Millis;
            loop {
                let changed = shared.with(&membership.topic, |state| state.changed.clone());
                let notified = changed.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                let (deliveries, claim) = shared.with(&membership.topic, |state| {
                    let deliveries = state.take(membership, shared.clock.now(), max.max(1));
                    let group = state.groups.get(&membership.group);
                    (deliveries, group.and_then(|group| group.next_claim(lease)))
                });
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
                match claim {
                    Some(at) => {
                        let at = shared.clock.instant(at).into();
                        let _ = tokio::time::timeout_at(at, notified).await;
                    }
                    None => notified.await,
                }
            }
        }
        .boxed()
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.settler.clone()
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        // Dropping releases what is held.
        std::future::ready(Ok(())).boxed()
    }
}

impl Drop for MemoryMember {
    fn drop(&mut self) {
        let now = self.settler.shared.clock.now();
        self.settler
            .with_group(|group, member| group.leave(member, now));
    }
}

struct MemorySettler {
    shared: Arc<Shared>,
    membership: Membership,
}

impl MemorySettler {
    fn with_group<T: Default>(&self, act: impl FnOnce(&mut Group, &Name) -> T) -> T {
        let Membership {
            topic,
            group,
            member,
            ..
        } = &self.membership;
        self.shared.with(topic, |state| {
            let result = state.groups.get_mut(group).map(|group| act(group, member));
            state.changed.notify_waiters();
            result.unwrap_or_default()
        })
    }

    fn settle_one(&self, settlement: Settlement) -> Result<()> {
        let position = settlement.receipt.position();
        let won = match &settlement.outcome {
            Outcome::Complete { .. } => {
                self.with_group(|group, _| group.settle(position).is_some())
            }
            Outcome::Retry { after } => {
                let due = self.shared.clock.now() + after.as_millis() as Millis;
                self.with_group(|group, member| group.retry(member, position, due))
            }
        };
        if !won {
            return Err(Error::fenced(format!(
                "the delivery of {position} was settled or taken over by another member"
            )));
        }
        if let Outcome::Complete { outputs, .. } = settlement.outcome {
            for output in outputs {
                self.shared.append(output);
            }
        }
        Ok(())
    }
}

impl Settler for MemorySettler {
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
        let results = batch
            .into_iter()
            .map(|settlement| self.settle_one(settlement))
            .collect();
        std::future::ready(results).boxed()
    }

    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>> {
        let now = self.shared.clock.now();
        self.with_group(|group, member| group.extend(member, held, now));
        std::future::ready(Ok(())).boxed()
    }
}
