//! One topic in memory: where its entries stand, the bodies of the newest, and its groups.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use streamerson_core::group::{Grant, Group};
use streamerson_core::lease_table::LeaseTable;
use streamerson_core::once::{Answer, Remembered};
use streamerson_core::time::Millis;
use streamerson_core::{Error, Name, Position, Result, Start, Topic};
use tokio::sync::Notify;

use super::Want;
use super::cold::{Cold, Place};
use super::remembered::Kept;
use crate::body::Body;

/// Removed groups of which it is kept how far they were.
const REMOVED_GROUPS: usize = 1_000;

/// Entries read back from the log for one delivery.
const READ_BACK: usize = 128;

/// No more bytes are read back for one delivery, apart from the first entry.
const READ_BACK_BYTES: usize = 16 << 20;

/// Nothing stands there, so that there is a position after every entry.
const LAST: Position = Position::new(u64::MAX, u64::MAX);

/// A topic. Its entries are the cold ones, then the recent ones.
#[derive(Debug, Default)]
pub(crate) struct TopicState {
    cold: Cold,
    recent: VecDeque<Stored>,
    recent_bytes: usize,
    /// Entries ever added to it here.
    pub(crate) appended: u64,
    /// The newest position given; it may not be committed yet.
    pub(crate) assigned: Position,
    /// The newest position committed.
    pub(crate) last: Position,
    /// Everything before was removed.
    pub(crate) boundary: Position,
    /// It was removed, and nothing was appended since. Its positions must still grow.
    pub(crate) removed: bool,
    /// The newest segment when it was last removed; 0: it was not.
    pub(crate) removed_in: u64,
    /// Its groups.
    pub(crate) groups: BTreeMap<Name, Group>,
    /// Fires when there may be something new.
    pub(crate) changed: Arc<Notify>,
    /// Readers that see everything: for them, processed entries stay in memory.
    pub(crate) readers: usize,
    /// The last write, on the monotonic clock: inboxes expire.
    pub(crate) written: Millis,
    /// The last commit that woke who waits here.
    pub(crate) woken: u64,
    /// Groups that were removed, perhaps under their members.
    pub(crate) removed_groups: BTreeMap<Name, Gone>,
    /// Entries that are about to be taken out.
    pub(crate) going: BTreeSet<Position>,
    /// Entries that were taken out, with the segments that still have them: these must not bring them back.
    pub(crate) holes: BTreeMap<Position, u64>,
    /// Messages kept aside until they are due.
    pub(crate) scheduled: u64,
    /// Into how many partitions it is divided; 0: it is not.
    pub(crate) partitions: u32,
    /// Who owns what of it. In memory: after a restart all is free. Only epochs are in the log.
    pub(crate) leases: LeaseTable,
    /// What was stored once, and where.
    pub(crate) keys: Remembered<Kept<Position>>,
    /// What each group has done once, and what was answered.
    pub(crate) effects: BTreeMap<Name, Remembered<Kept<Option<Answer>>>>,
}

/// A group that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Up to where all was settled.
    pub(crate) settled: Position,
    /// By somebody who does not know us: it goes on there for whoever joins, not only for members that were in it.
    pub(crate) lost: bool,
}

/// An entry with its body.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its position.
    pub(crate) position: Position,
    /// Where it stands in the log.
    pub(crate) place: Place,
    /// What it holds.
    pub(crate) body: Body,
}

/// An entry to be shown: its body, or where to read it.
#[derive(Debug, Clone)]
pub(crate) enum Slot {
    /// In memory.
    Here(Body),
    /// In the log.
    Stored(Place),
}

impl TopicState {
    /// Whether there is nothing to keep: no entries, no groups, and nothing ever was.
    pub(crate) fn is_vacant(&self) -> bool {
        self.assigned == Position::ZERO && self.holds_nothing()
    }

    fn holds_nothing(&self) -> bool {
        self.groups.is_empty()
            && self.is_empty()
            && self.scheduled == 0
            && self.partitions == 0
            && self.leases.epoch() == 0
            && self.keys.is_empty()
            // Whoever joins a lost group goes on where it was: before what comes next.
            && !self.removed_groups.values().any(|gone| gone.lost)
    }

    /// Whether it is one of the topics there may be so many of: those that were removed have a bound of their own.
    pub(crate) fn counts(&self) -> bool {
        !self.removed && !self.is_vacant()
    }

    /// Forgets that it was ever there, if it was removed and its positions go on growing nevertheless: those of a new topic come
    /// after `newest`. Answers whether it did.
    pub(crate) fn forget_removed(&mut self, newest: Position) -> bool {
        let all_stored = self.assigned == self.last;
        let is_over = self.removed && self.holds_nothing() && all_stored && self.last <= newest;
        if is_over {
            *self = TopicState {
                changed: self.changed.clone(),
                readers: self.readers,
                ..TopicState::default()
            };
        }
        is_over
    }

    /// Its positions begin anew.
    pub(crate) fn begin_anew(&mut self) {
        self.removed = false;
        self.assigned = Position::ZERO;
        self.last = Position::ZERO;
        self.boundary = Position::ZERO;
        self.removed_groups.clear();
    }

    /// Whether it is a topic for others to see.
    pub(crate) fn exists(&self) -> bool {
        !self.removed && self.last > Position::ZERO
            || !self.groups.is_empty()
            || self.scheduled > 0
            || self.partitions > 0
    }

    fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.cold.len() == 0
    }

    /// How many entries it holds.
    pub(crate) fn len(&self) -> u64 {
        self.cold.len() + self.recent.len() as u64
    }

    /// Position of the oldest entry held.
    pub(crate) fn first(&self) -> Option<Position> {
        let recent = || self.recent.front().map(|stored| stored.position);
        self.cold.first().or_else(recent)
    }

    /// Bytes of memory its bodies take.
    pub(crate) fn recent_bytes(&self) -> usize {
        self.recent_bytes
    }

    /// Entries in memory.
    pub(crate) fn recent_len(&self) -> usize {
        self.recent.len()
    }

    /// Gives the next entry its position; `newest` is the newest given in any topic.
    pub(crate) fn assign(
        &mut self,
        name: &Topic,
        insisted: Option<Position>,
        newest: Position,
        unix_ms: u64,
    ) -> Result<Position> {
        let position = match insisted {
            Some(position) if position > self.assigned => position,
            Some(position) => {
                return Err(Error::invalid(
                    "position-not-greater",
                    format!(
                        "{name} already has {}: the position {position} must be greater",
                        self.assigned
                    ),
                ));
            }
            // An inbox may be gone and come again: its reader must not miss what comes then.
            None if self.assigned == Position::ZERO => newest.successor(unix_ms),
            None => self.assigned.successor(unix_ms.max(newest.major())),
        };
        // What stands at the last one could not be trimmed.
        if position <= self.assigned || position == LAST {
            let detail = format!("{name} has no position left after {position}: use another topic");
            return Err(Error::invalid("positions-exhausted", detail));
        }
        self.assigned = position;
        Ok(position)
    }

    /// Adds a committed entry whose body stays in memory for now. Answers the memory it takes.
    pub(crate) fn push(&mut self, stored: Stored) -> usize {
        let bytes = stored.body.footprint();
        self.recent_bytes += bytes;
        self.last = self.last.max(stored.position);
        self.removed = false;
        self.appended += 1;
        self.recent.push_back(stored);
        bytes
    }

    /// Adds a committed entry that only the log holds.
    pub(crate) fn push_cold(&mut self, position: Position, place: Place, size: usize) {
        self.last = self.last.max(position);
        self.removed = false;
        self.appended += 1;
        self.cold.push(position, place, size);
    }

    /// Forgets the oldest body in memory; the entry stays, in the log.
    pub(crate) fn evict(&mut self) -> Option<Body> {
        let Stored {
            position,
            place,
            body,
        } = self.pop()?;
        self.cold.push(position, place, body.footprint());
        Some(body)
    }

    /// Removes the oldest entry in memory.
    pub(crate) fn pop(&mut self) -> Option<Stored> {
        let stored = self.recent.pop_front()?;
        self.recent_bytes -= stored.body.footprint();
        Some(stored)
    }

    /// Whether nobody is likely to ask for the oldest body in memory: every group has processed it, and nobody reads.
    pub(crate) fn oldest_is_processed(&self) -> bool {
        let Some(oldest) = self.recent.front() else {
            return false;
        };
        self.readers == 0
            && self
                .first_unprocessed()
                .is_some_and(|first| oldest.position < first)
    }

    /// Where the first message stands or would stand that some group has not processed; `None` without groups.
    pub(crate) fn first_unprocessed(&self) -> Option<Position> {
        self.groups.values().map(Group::first_unprocessed).min()
    }

    /// The position of the nth newest entry; the newest is the first.
    pub(crate) fn nth_newest(&self, n: u64) -> Option<Position> {
        let skip = self.len().checked_sub(n)?;
        if let Some(recent) = skip.checked_sub(self.cold.len()) {
            return self.recent.get(recent as usize).map(|s| s.position);
        }
        self.cold.nth(skip)
    }

    /// How many entries stand after `position`.
    pub(crate) fn count_after(&self, position: Position) -> u64 {
        self.cold.count_after(position) + (self.recent.len() - self.up_to(position)) as u64
    }

    /// Where the first entry after `position` stands.
    pub(crate) fn next_after(&self, position: Position) -> Option<Position> {
        let recent = || self.recent.get(self.up_to(position)).map(|s| s.position);
        let cold = self.cold.after(position).next();
        cold.map(|(position, _)| position).or_else(recent)
    }

    /// How many entries stand at or after `position`.
    pub(crate) fn count_from(&self, position: Position) -> u64 {
        match position {
            Position::ZERO => self.len(),
            position => self.count_after(before(position)),
        }
    }

    /// Where a reader or group that begins at `start` stands.
    pub(crate) fn resolve(&self, start: Start) -> Position {
        match start {
            Start::Earliest => Position::ZERO,
            Start::Latest => self.last,
            Start::After(position) => position,
        }
    }

    /// Removes the entries before `boundary`; tells `gone` how many of which segment. Answers how many, and the memory freed.
    pub(crate) fn trim(
        &mut self,
        boundary: Position,
        mut gone: impl FnMut(u64, u64),
    ) -> (u64, usize) {
        let (before, bytes) = (self.len(), self.recent_bytes);
        self.cold.trim(boundary, &mut gone);
        while self
            .recent
            .front()
            .is_some_and(|oldest| oldest.position < boundary)
        {
            if let Some(stored) = self.pop() {
                gone(stored.place.segment, 1);
            }
        }
        self.boundary = self.boundary.max(boundary);
        if !self.holes.is_empty() {
            self.holes = self.holes.split_off(&boundary);
        }
        (before - self.len(), bytes - self.recent_bytes)
    }

    /// Removes a group. Up to where all was settled is kept, for members that go on, and so are its effects: what was settled
    /// beyond comes again, and must not have a second one.
    pub(crate) fn remove_group(&mut self, name: &Name) {
        if let Some(group) = self.groups.get(name) {
            let settled = settled(group);
            let lost = false;
            self.note_gone(name.clone(), Gone { settled, lost });
        }
    }

    /// Notes that a group is gone.
    pub(crate) fn note_gone(&mut self, name: Name, gone: Gone) {
        self.groups.remove(&name);
        // The one that stands furthest back: the oldest, or one with little to go on from.
        if self.removed_groups.len() >= REMOVED_GROUPS
            && let Some((forgotten, _)) = self
                .removed_groups
                .iter()
                .min_by_key(|(_, gone)| gone.settled)
        {
            let forgotten = forgotten.clone();
            self.removed_groups.remove(&forgotten);
            self.effects.remove(&forgotten);
        }
        self.removed_groups.insert(name, gone);
    }

    /// Takes one entry out. Answers where it stands, and its body if that is in memory.
    pub(crate) fn take_out(&mut self, position: Position) -> Option<(Place, Option<Body>)> {
        let recent = self
            .recent
            .binary_search_by_key(&position, |stored| stored.position);
        match recent {
            Ok(at) => {
                let stored = self.recent.remove(at)?;
                self.recent_bytes -= stored.body.footprint();
                Some((stored.place, Some(stored.body)))
            }
            Err(_) => Some((self.cold.remove(position)?, None)),
        }
    }

    /// Whether there is an entry at `position`.
    pub(crate) fn has(&self, position: Position) -> bool {
        let recent = self
            .recent
            .binary_search_by_key(&position, |stored| stored.position);
        recent.is_ok() || self.cold.get(position).is_some()
    }

    /// Up to `max` entries from `from` to `to` (both included), oldest first.
    pub(crate) fn range(
        &self,
        from: Position,
        to: Position,
        max: usize,
    ) -> Vec<(Position, Option<Slot>)> {
        let entries = entries(&self.cold, &self.recent, before(from));
        entries
            .take_while(|(position, _)| *position <= to)
            .take(max)
            .map(|(position, slot)| (position, Some(slot)))
            .collect()
    }

    /// Up to `max` entries from `from` to `to` (both included), newest first.
    pub(crate) fn range_back(
        &self,
        from: Position,
        to: Position,
        max: usize,
    ) -> Vec<(Position, Option<Slot>)> {
        let entries = entries(&self.cold, &self.recent, before(from));
        entries
            .rev()
            .skip_while(|(position, _)| *position > to)
            .take(max)
            .map(|(position, slot)| (position, Some(slot)))
            .collect()
    }

    /// The positions of the entries between `after` and `before`, neither included.
    pub(crate) fn positions(&self, after: Position, before: Position) -> Vec<Position> {
        let cold = self.cold.after(after).map(|(position, _)| position);
        let recent = self.recent.range(self.up_to(after)..);
        let positions = cold.chain(recent.map(|stored| stored.position));
        positions.take_while(|at| *at < before).collect()
    }

    /// The entry at `position`.
    pub(crate) fn slot(&self, position: Position) -> Option<Slot> {
        let recent = self
            .recent
            .binary_search_by_key(&position, |stored| stored.position);
        match recent {
            Ok(at) => self.recent.get(at).map(|s| Slot::Here(s.body.clone())),
            Err(_) => self.cold.get(position).map(Slot::Stored),
        }
    }

    /// Gives `member` of `group` up to `max` entries to work on. `None`: there is no such group.
    pub(crate) fn take(
        &mut self,
        group: &Name,
        member: &Name,
        now: Millis,
        want: Want,
        max: usize,
    ) -> Option<Vec<(Grant, Option<Slot>)>> {
        let state = self.groups.get_mut(group)?;
        state.seen(member, now);
        let cold = &self.cold;
        let (mut count, mut bytes) = (0, 0);
        // What has to be read back has to fit into memory, all of it at once.
        let mut fits = |position| {
            let size = cold.bound(position);
            let first = bytes == 0;
            bytes += size;
            first || bytes <= READ_BACK_BYTES
        };
        let again = match want {
            Want::New => None,
            Want::Abandoned { lease } | Want::Any { lease } => Some((lease, false)),
            Want::Owned { lease } => Some((lease, true)),
        };
        let grants = again.map_or_else(Vec::new, |(lease, in_order)| {
            state.take_over_while(member, now, lease, in_order, |position| {
                count += 1;
                count <= max.min(READ_BACK) && fits(position)
            })
        });
        let again = |grant: Grant| (grant, self.slot(grant.position));
        let mut work: Vec<(Grant, Option<Slot>)> = grants.into_iter().map(again).collect();
        let state = self.groups.get_mut(group)?;
        let cursor = state.cursor();
        // An owner keeps an order: nothing new before all that was left out.
        if let Want::Owned { lease } = want
            && state.next_claim(lease).is_some_and(|at| at <= now)
        {
            return Some(work);
        }
        if matches!(want, Want::Abandoned { .. }) || self.last <= cursor {
            return Some(work);
        }
        let mut free = max.saturating_sub(work.len());
        let is_cold = self.cold.last().is_some_and(|last| last > cursor);
        if is_cold {
            free = free.min(READ_BACK);
        }
        let fresh = entries(&self.cold, &self.recent, cursor)
            .take(free)
            .take_while(|(position, _)| !is_cold || fits(*position));
        work.extend(fresh.map(|(at, slot)| (state.deliver(member, at, now), Some(slot))));
        Some(work)
    }

    fn up_to(&self, position: Position) -> usize {
        up_to(&self.recent, position)
    }
}

/// How many recent entries stand at or before `position`.
fn up_to(recent: &VecDeque<Stored>, position: Position) -> usize {
    recent.partition_point(|stored| stored.position <= position)
}

/// The entries after a position, oldest first.
fn entries<'a>(
    cold: &'a Cold,
    recent: &'a VecDeque<Stored>,
    after: Position,
) -> impl DoubleEndedIterator<Item = (Position, Slot)> + 'a {
    let cold = cold.after(after);
    let cold = cold.map(|(position, place)| (position, Slot::Stored(place)));
    let recent = recent.range(up_to(recent, after)..);
    cold.chain(recent.map(|s| (s.position, Slot::Here(s.body.clone()))))
}

/// Up to where all is settled in `group`.
pub(crate) fn settled(group: &Group) -> Position {
    before(group.first_unprocessed())
}

/// The greatest position before `position`.
fn before(position: Position) -> Position {
    match (position.major(), position.minor()) {
        (0, 0) => Position::ZERO,
        (major, 0) => Position::new(major - 1, u64::MAX),
        (major, minor) => Position::new(major, minor - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands there could not be trimmed: nothing comes after it.
    #[test]
    fn nothing_stands_at_the_last_position_there_is() {
        let name = Topic::new("orders").unwrap();
        let mut topic = TopicState::default();
        let mut assign = |insisted| topic.assign(&name, insisted, Position::ZERO, 1);
        let refused = assign(Some(Position::new(u64::MAX, u64::MAX))).unwrap_err();
        assert_eq!(refused.code(), "positions-exhausted");
        assign(Some(Position::new(u64::MAX, u64::MAX - 1))).unwrap();
        assert_eq!(assign(None).unwrap_err().code(), "positions-exhausted");
    }

    #[test]
    fn of_removed_groups_those_that_stand_furthest_back_are_forgotten() {
        let mut topic = TopicState::default();
        let name = |n: usize| Name::new(format!("group-{n:04}")).unwrap();
        let last = REMOVED_GROUPS + 10;
        for n in (0..=last).rev() {
            let at = Position::new((last - n) as u64 + 1, 0);
            topic.groups.insert(name(n), Group::new(at));
            topic.remove_group(&name(n));
        }
        assert_eq!(topic.removed_groups.len(), REMOVED_GROUPS);
        assert!(topic.removed_groups.contains_key(&name(0)));
        assert!(!topic.removed_groups.contains_key(&name(last)));
    }
}
