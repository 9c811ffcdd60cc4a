//! One topic: its entries, its groups, and what is kept aside.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::shared::Now;
use super::topics::no_group;
use crate::broker::{Append, Delivery, Entry, Membership, Receipt};
use crate::group::{Grant, Group};
use crate::lease_table::LeaseTable;
use crate::once::{Answer, Remembered};
use crate::retention::{Retention, Trimmed};
use crate::schedule::Schedule;
use crate::stats::{GroupStats, MemberStats, TopicStats};
use crate::time::{Millis, millis};
use crate::{Error, Message, Name, Position, Result, Start, Topic};

/// How many replies an inbox holds; the oldest go first.
const INBOX_LIMIT: usize = 10_000;

#[derive(Debug)]
pub(super) struct TopicState {
    entries: VecDeque<(Position, Message)>,
    last: Position,
    /// Entries ever added.
    total: u64,
    scheduled: Schedule<Message>,
    appended: Remembered<Position>,
    pub(super) groups: BTreeMap<Name, GroupState>,
    pub(super) leases: LeaseTable,
    /// 0: not divided.
    pub(super) partitions: u32,
    pub(super) changed: Arc<Notify>,
}

#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) deliveries: Group,
    /// The keys completed, each with what was answered.
    pub(super) effects: Remembered<Option<Answer>>,
}

impl GroupState {
    pub(super) fn new(cursor: Position) -> GroupState {
        GroupState {
            deliveries: Group::new(cursor),
            effects: Remembered::default(),
        }
    }
}

impl TopicState {
    /// An empty topic, whose leases have epochs after `epoch`.
    pub(super) fn new(epoch: u64) -> TopicState {
        TopicState {
            entries: VecDeque::new(),
            last: Position::ZERO,
            total: 0,
            scheduled: Schedule::default(),
            appended: Remembered::default(),
            groups: BTreeMap::new(),
            leases: LeaseTable::after(epoch),
            partitions: 0,
            changed: Arc::default(),
        }
    }

    /// A topic begins with its first message or its first group, or when it is divided; a reader that waits for it does not
    /// make it one.
    pub(super) fn exists(&self) -> bool {
        self.last > Position::ZERO
            || !self.groups.is_empty()
            || !self.scheduled.is_empty()
            || self.partitions > 0
    }

    /// Refuses a key that is one too many.
    pub(super) fn check_room(&self, append: &Append, now: Now) -> Result<()> {
        match append.only_once() {
            Some(once) if self.appended.recall(&once.key, now.monotonic).is_none() => {
                self.appended.check_room(&append.topic, now.monotonic)
            }
            _ => Ok(()),
        }
    }

    /// Stores a message, unless its key was used before; one that is not due yet is kept aside.
    pub(super) fn append(&mut self, append: Append, now: Now) -> Position {
        let once = append.only_once();
        let first = once.and_then(|once| self.appended.recall(&once.key, now.monotonic));
        if let Some(first) = first {
            return *first;
        }
        let due = append.due().filter(|due| *due > now.unix_ms);
        let position = match due {
            Some(_) => Position::ZERO,
            None => self.last.successor(now.unix_ms),
        };
        if let Some(once) = append.only_once() {
            self.appended.remember(once, position, now.monotonic);
        }
        match due {
            Some(due) => self.scheduled.add(due, append.message),
            None => self.publish(&append.topic, position, append.message),
        }
        // Also for what is due later: who waits has to wake for it.
        self.changed.notify_waiters();
        position
    }

    fn publish(&mut self, topic: &Topic, position: Position, message: Message) {
        self.last = position;
        self.total += 1;
        self.entries.push_back((position, message));
        if topic.is_inbox() && self.entries.len() > INBOX_LIMIT {
            self.entries.pop_front();
        }
    }

    /// Lets appear what is due.
    pub(super) fn publish_due(&mut self, topic: &Topic, now: Now) {
        while let Some(message) = self.scheduled.take_due(now.unix_ms) {
            self.publish(topic, self.last.successor(now.unix_ms), message);
            self.changed.notify_waiters();
        }
    }

    /// When the next message is due, in milliseconds since 1970.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.scheduled.next_due()
    }

    pub(super) fn resolve(&self, start: Start) -> Position {
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

    pub(super) fn entries_after(&self, position: Position, max: usize) -> Vec<Entry> {
        let after = self.after(position).take(max);
        after
            .map(|(position, message)| Entry {
                position: *position,
                message: Ok(message.clone()),
            })
            .collect()
    }

    fn find(&self, position: Position) -> Option<usize> {
        let found = self.entries.binary_search_by_key(&position, |(at, _)| *at);
        found.ok()
    }

    /// Removes one entry; whoever holds it cannot settle it any more.
    pub(super) fn remove(&mut self, position: Position) -> bool {
        let Some(at) = self.find(position) else {
            return false;
        };
        self.entries.remove(at);
        for group in self.groups.values_mut() {
            group.deliveries.settle(position);
        }
        true
    }

    /// The group of a member that has joined.
    pub(super) fn group(&mut self, membership: &Membership) -> Result<&mut GroupState> {
        let Membership { topic, group, .. } = membership;
        let state = self.groups.get_mut(group);
        state.ok_or_else(|| no_group(topic, group))
    }

    /// Refuses who has lost the lease under which it owns the topic.
    pub(super) fn check_fence(&self, membership: &Membership, now: Now) -> Result<()> {
        let Some(fence) = &membership.fence else {
            return Ok(());
        };
        if self.leases.admits(fence, &membership.member, now.monotonic) {
            return Ok(());
        }
        Err(Error::fenced(format!(
            "{} does not hold the lease {} of topic {} at epoch {} any more",
            membership.member, fence.lease, membership.topic, fence.epoch
        )))
    }

    pub(super) fn join(&mut self, membership: &Membership, now: Now) -> Result<()> {
        self.check_fence(membership, now)?;
        let cursor = self.resolve(membership.start);
        let group = self.groups.entry(membership.group.clone());
        let group = &mut group.or_insert_with(|| GroupState::new(cursor)).deliveries;
        group.seen(&membership.member, now.monotonic);
        if membership.fence.is_some() {
            group.release_all(now.monotonic);
        }
        Ok(())
    }

    /// What `member` works on next: what others gave up first, then new messages.
    pub(super) fn deliver(
        &mut self,
        membership: &Membership,
        now: Now,
        max: usize,
    ) -> Result<Vec<Delivery>> {
        self.check_fence(membership, now)?;
        let (member, lease) = (&membership.member, millis(membership.lease));
        let mut grants = {
            let group = &mut self.group(membership)?.deliveries;
            group.seen(member, now.monotonic);
            match membership.fence {
                Some(_) => group.take_over_in_order(member, now.monotonic, lease, max),
                None => group.take_over(member, now.monotonic, lease, max),
            }
        };
        while grants.len() < max {
            let cursor = self.group(membership)?.deliveries.cursor();
            let Some((position, _)) = self.after(cursor).next() else {
                break;
            };
            let position = *position;
            let group = &mut self.group(membership)?.deliveries;
            grants.push(group.deliver(member, position, now.monotonic));
        }
        let deliveries = grants.into_iter().filter_map(|grant| {
            let Grant { position, attempt } = grant;
            let (_, message) = self.entries.get(self.find(position)?)?;
            Some(Delivery {
                receipt: Receipt::new(position, attempt),
                message: message.clone(),
            })
        });
        Ok(deliveries.collect())
    }

    pub(super) fn stats(&self, now: Now) -> TopicStats {
        let groups = self.groups.iter();
        TopicStats {
            length: self.entries.len() as u64,
            appended: Some(self.total),
            first: self.entries.front().map(|(position, _)| *position),
            last: (self.last > Position::ZERO).then_some(self.last),
            scheduled: self.scheduled.len() as u64,
            groups: groups
                .map(|(name, group)| self.group_stats(name, &group.deliveries, now.monotonic))
                .collect(),
        }
    }

    fn group_stats(&self, name: &Name, group: &Group, now: Millis) -> GroupStats {
        let mut unread = self.after(group.cursor()).map(|(position, _)| *position);
        let holds = |member: &Name| {
            let held = group.held();
            held.filter(|(_, held)| held.member == *member).count()
        };
        let members = group.members().map(|(member, seen)| MemberStats {
            name: member.to_string(),
            pending: holds(member) as u64,
            idle: Duration::from_millis(now.saturating_sub(seen)),
        });
        GroupStats {
            name: name.to_string(),
            cursor: (group.cursor() > Position::ZERO).then_some(group.cursor()),
            lag: Some(self.after(group.cursor()).count() as u64),
            next: unread.next(),
            pending: group.pending() as u64,
            retrying: group.retrying() as u64,
            oldest_pending: group.held().next().map(|(position, _)| position),
            members: members.collect(),
        }
    }

    pub(super) fn trim(&mut self, retention: Retention, now: Now) -> Trimmed {
        let groups = self.groups.values();
        let first_unprocessed = groups
            .map(|group| group.deliveries.first_unprocessed())
            .min();
        let nth_newest = |n: u64| {
            let at = self.entries.len().checked_sub(n as usize)?;
            self.entries.get(at).map(|(position, _)| *position)
        };
        let Some(boundary) = retention.boundary(now.unix_ms, nth_newest, first_unprocessed) else {
            return Trimmed::default();
        };
        let before = |boundary: Position| self.entries.partition_point(|(at, _)| *at < boundary);
        let removed = before(boundary);
        let lost = first_unprocessed.map_or(removed, |safe| removed - before(safe).min(removed));
        self.entries.drain(..removed);
        for group in self.groups.values_mut() {
            group.deliveries.forget_before(boundary);
        }
        Trimmed {
            removed: removed as u64,
            lost: lost as u64,
        }
    }
}
