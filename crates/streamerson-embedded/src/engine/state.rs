//! Everything the engine knows, behind one lock: topics, where the log's segments are, and how much memory is in use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use streamerson_core::group::Group;
use streamerson_core::once::Remembered;
use streamerson_core::time::Millis;
use streamerson_core::{Error, ErrorKind, Position, Result, Topic};
use tokio::sync::Notify;

use super::GroupKey;
use super::aside::Aside;
use super::remembered::Room;
use super::topic::{Stored, TopicState};
use crate::body::Body;
use crate::log::segment::Segment;

/// How many replies an inbox holds; the oldest go first.
const INBOX_LEN: usize = 10_000;

/// How many bytes an inbox holds; the oldest go first.
const INBOX_BYTES: usize = 64 << 20;

/// An inbox goes this long after the last write.
pub(crate) const INBOX_TTL: Millis = 60_000;

/// How many topics there may be: names come from outside.
const TOPICS: usize = 100_000;

/// So many more may have been removed that must be remembered, because older segments still have something of them.
const REMOVED: usize = 200_000;

const MANY: usize = 1_000;

/// What the engine knows.
#[derive(Debug)]
pub(crate) struct State {
    topics: HashMap<Topic, TopicState, ahash::RandomState>,
    /// Topics that may come to nothing: inboxes, and those that someone only looked at.
    passing: Vec<Topic>,
    /// So many of them are worth a sweep.
    many: usize,
    /// No more topics than this count: as counted once, and those that were admitted since.
    admitted: usize,
    /// There may be fewer.
    recount: bool,
    /// Topics that were removed, by the newest segment at that time.
    removed: BTreeMap<u64, Vec<Topic>>,
    /// What is kept aside until it is due.
    pub(crate) aside: Aside,
    /// How much is remembered of what happens once.
    pub(crate) remembered: Room,
    /// The newest position the engine gave in any topic. Time never goes back behind it.
    pub(crate) newest: Position,
    /// Bytes of bodies in memory.
    pub(crate) memory: usize,
    limit: Limit,
    segments: BTreeMap<u64, SegmentState>,
    /// Why nothing more is accepted.
    pub(crate) failure: Option<Error>,
    /// Commits so far.
    pub(crate) commits: u64,
}

/// What happens when there are too many bodies in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// The oldest are forgotten: the log has them.
    Cache(usize),
    /// Appends are refused.
    Store(usize),
}

#[derive(Debug)]
struct SegmentState {
    segment: Arc<Segment>,
    /// Entries in it that are still held.
    live: u64,
}

/// Who is to be woken, and what is to be freed, once the lock is released.
#[derive(Debug, Default)]
pub(crate) struct After {
    /// Topics in which something is new.
    pub(crate) wake: Vec<Arc<Notify>>,
    /// Bodies nobody needs in memory.
    pub(crate) garbage: Vec<Body>,
    /// Something is due before what was.
    pub(crate) due: bool,
}

impl State {
    /// Knows nothing.
    pub(crate) fn new(limit: Limit) -> State {
        State {
            topics: HashMap::default(),
            passing: Vec::new(),
            many: MANY,
            admitted: TOPICS,
            recount: true,
            removed: BTreeMap::new(),
            aside: Aside::default(),
            remembered: Room::default(),
            newest: Position::ZERO,
            memory: 0,
            limit,
            segments: BTreeMap::new(),
            failure: None,
            commits: 0,
        }
    }

    /// A topic that somebody wrote to or looks at.
    pub(crate) fn topic(&self, topic: &Topic) -> Option<&TopicState> {
        self.topics.get(topic)
    }

    /// The same, to change it.
    pub(crate) fn topic_mut(&mut self, topic: &Topic) -> Option<&mut TopicState> {
        self.topics.get_mut(topic)
    }

    /// All of them.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&Topic, &TopicState)> {
        self.topics.iter()
    }

    /// Forgets what every checkpoint says anew. What it does not name, such as a topic without anything, has none of it.
    pub(crate) fn forget_what_checkpoints_repeat(&mut self) {
        for topic in self.topics.values_mut() {
            topic.partitions = 0;
            topic.groups.clear();
            topic.removed_groups.clear();
            topic.keys = Remembered::default();
            topic.effects.clear();
        }
    }

    /// A topic, made as needed.
    pub(crate) fn topic_or_new(&mut self, topic: &Topic) -> &mut TopicState {
        if !self.topics.contains_key(topic) {
            let own = own(topic);
            self.passing.push(own.clone());
            self.topics.insert(own, TopicState::default());
        }
        self.topics.entry(topic.clone()).or_default()
    }

    /// Gives an entry of `topic` its position; makes the topic as needed.
    pub(crate) fn assign(
        &mut self,
        topic: &Topic,
        insisted: Option<Position>,
        unix_ms: u64,
    ) -> Result<Position> {
        let newest = self.newest;
        let there = self.topics.get_mut(topic);
        let position = match there.filter(|state| state.counts()) {
            Some(state) => state.assign(topic, insisted, newest, unix_ms)?,
            None => {
                self.admit(topic)?;
                let state = self.topic_or_new(topic);
                state.assign(topic, insisted, newest, unix_ms)?
            }
        };
        if insisted.is_none() {
            self.newest = newest.max(position);
        }
        Ok(position)
    }

    /// Whether there is room for `topic`, if it is a new one.
    pub(crate) fn admit(&mut self, topic: &Topic) -> Result<()> {
        // What cannot be handled must find a place, also then.
        if topic.is_dead_letters() || self.topics.get(topic).is_some_and(TopicState::counts) {
            return Ok(());
        }
        // Who is refused again and again must not have all counted each time.
        if self.admitted >= TOPICS && std::mem::take(&mut self.recount) {
            let removed = self.topics.values().filter(|state| state.removed).count();
            let others = self.topics.values().filter(|state| state.counts()).count();
            self.admitted = others + removed.saturating_sub(REMOVED);
        }
        if self.admitted < TOPICS {
            self.admitted += 1;
            self.recount = true;
            return Ok(());
        }
        Err(Error::unavailable(
            "too-many-topics",
            format!(
                "there are {TOPICS} topics already, and {topic} would be one more: serve named routes instead of every topic"
            ),
        ))
    }

    /// A topic may have come to nothing, and count no more.
    pub(crate) fn may_be_fewer(&mut self) {
        self.recount = true;
    }

    /// Whether memory is all there is.
    pub(crate) fn stores_bodies(&self) -> bool {
        matches!(self.limit, Limit::Store(_))
    }

    /// Whether an append of `bytes` would exceed the memory, where memory is all there is.
    pub(crate) fn check_memory(&self, bytes: usize) -> Result<()> {
        self.check_room(bytes, 1)
    }

    /// The same of outputs. They have as much again: were they refused where appends are, what fills the memory could not be
    /// worked off, and nothing would ever free it.
    pub(crate) fn check_memory_of_outputs(&self, bytes: usize) -> Result<()> {
        self.check_room(bytes, 2)
    }

    fn check_room(&self, bytes: usize, times: usize) -> Result<()> {
        match self.limit {
            Limit::Store(limit)
                if self.memory.saturating_add(bytes) > limit.saturating_mul(times) =>
            {
                Err(Error::unavailable(
                    "memory-full",
                    format!(
                        "the {limit} bytes for messages in memory are in use: trim topics, or keep messages on disk"
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Makes a committed entry visible.
    pub(crate) fn show(&mut self, topic: &Topic, stored: Stored, now: Millis, after: &mut After) {
        let (commit, inbox) = (self.commits, topic.is_inbox());
        let segment = stored.place.segment;
        let Some(state) = self.topics.get_mut(topic) else {
            // An inbox whose owner left after the position was given.
            after.garbage.push(stored.body);
            return;
        };
        let mut memory = state.push(stored) as isize;
        if state.woken != commit {
            state.woken = commit;
            after.wake.push(state.changed.clone());
        }
        if inbox {
            state.written = now;
            while state.recent_len() > INBOX_LEN || state.recent_bytes() > INBOX_BYTES {
                let bytes = state.recent_bytes();
                after.garbage.extend(state.pop().map(|stored| stored.body));
                memory -= (bytes - state.recent_bytes()) as isize;
            }
        } else if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live += 1;
        }
        self.memory = self.memory.saturating_add_signed(memory);
    }

    /// Forgets bodies of `topic` that were processed.
    pub(crate) fn forget_processed(&mut self, topic: &Topic, after: &mut After) {
        let (Limit::Cache(_), Some(state)) = (self.limit, self.topics.get_mut(topic)) else {
            return;
        };
        let before = state.recent_bytes();
        while state.oldest_is_processed() {
            after.garbage.extend(state.evict());
        }
        self.memory -= before - state.recent_bytes();
    }

    /// Forgets bodies until the cache is within its limit: the oldest of the topics that take most.
    pub(crate) fn evict(&mut self, after: &mut After) {
        let Limit::Cache(limit) = self.limit else {
            return;
        };
        // Some more than needed, so that the search for the largest is rare.
        let goal = match self.memory > limit {
            true => limit - limit / 8,
            false => return,
        };
        while self.memory > goal {
            let ordinary = self
                .topics
                .iter_mut()
                .filter(|(topic, _)| !topic.is_inbox());
            let largest = ordinary
                .map(|(_, state)| state)
                .max_by_key(|s| s.recent_bytes());
            let Some(state) = largest.filter(|state| state.recent_len() > 0) else {
                return;
            };
            let before = state.recent_bytes();
            let keep = before.saturating_sub(self.memory - goal);
            while state.recent_bytes() > keep {
                after.garbage.extend(state.evict());
            }
            self.memory -= before - state.recent_bytes();
        }
    }

    /// Removes the entries of `topic` before `boundary`. Answers how many there were.
    pub(crate) fn trim(&mut self, topic: &Topic, boundary: Position) -> u64 {
        let Some(state) = self.topics.get_mut(topic) else {
            return 0;
        };
        let segments = &mut self.segments;
        let inbox = topic.is_inbox();
        let (removed, freed) = state.trim(boundary, |segment, n| {
            if let Some(segment) = segments.get_mut(&segment)
                && !inbox
            {
                segment.live -= n;
            }
        });
        for group in state.groups.values_mut() {
            group.forget_before(boundary);
        }
        self.memory -= freed;
        removed
    }

    /// Takes one entry out of `topic`: it cannot be delivered or settled any more.
    pub(crate) fn take_out(&mut self, topic: &Topic, position: Position, after: &mut After) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        state.going.remove(&position);
        for group in state.groups.values_mut() {
            group.settle(position);
        }
        let before = state.recent_bytes();
        let Some((place, body)) = state.take_out(position) else {
            return;
        };
        self.memory -= before - state.recent_bytes();
        after.garbage.extend(body);
        // Entries of an inbox do not keep a segment, and are in no checkpoint.
        if place.segment > 0 && !topic.is_inbox() {
            state.holes.insert(position, place.segment);
            self.release(place.segment);
        }
    }

    /// Forgets what happened once, and is over.
    pub(crate) fn forget(&mut self, unix_ms: u64) {
        if self.remembered.is_empty() {
            return;
        }
        for topic in self.topics.values_mut() {
            topic.keys.forget(unix_ms);
            topic.effects.retain(|_, effects| {
                effects.forget(unix_ms);
                !effects.is_empty()
            });
        }
    }

    /// Drops inboxes that expired, and topics that came to nothing.
    pub(crate) fn sweep(&mut self, now: Millis, after: &mut After) {
        self.recount = true;
        for topic in std::mem::take(&mut self.passing) {
            let Some(state) = self.topics.get_mut(&topic) else {
                continue;
            };
            let expired = topic.is_inbox() && state.written.saturating_add(INBOX_TTL) <= now;
            if expired {
                let before = state.recent_bytes();
                after
                    .garbage
                    .extend(std::iter::from_fn(|| state.pop()).map(|stored| stored.body));
                self.memory -= before;
            }
            let unused = Arc::strong_count(&state.changed) == 1;
            if unused && (expired || state.is_vacant()) {
                self.topics.remove(&topic);
            } else if topic.is_inbox() || state.is_vacant() {
                self.passing.push(topic);
            }
        }
    }

    /// Sweeps when there are many topics that nobody wrote to: who only looks must not fill the memory.
    pub(crate) fn sweep_if_many(&mut self, now: Millis) {
        if self.passing.len() > self.many {
            self.sweep(now, &mut After::default());
            // What is still in use is not looked at again and again.
            self.many = (2 * self.passing.len()).max(MANY);
        }
    }

    /// Removes an inbox whose reader is gone.
    pub(crate) fn close_inbox(&mut self, topic: &Topic) {
        if let Some(state) = self.topics.remove(topic) {
            self.memory -= state.recent_bytes();
        }
    }

    /// Frees the memory of entries of an inbox that were received: up to `position`.
    pub(crate) fn received(&mut self, topic: &Topic, position: Position) {
        if let Some(state) = self.topics.get_mut(topic) {
            let boundary = position.successor(0);
            let (_, freed) = state.trim(boundary, |_, _| {});
            self.memory -= freed;
        }
    }

    /// A group, to change what only lives in memory.
    pub(crate) fn group_mut(&mut self, key: &GroupKey) -> Result<&mut Group> {
        let topic = self.topics.get_mut(&key.topic);
        let group = topic.and_then(|topic| topic.groups.get_mut(&key.group));
        group.ok_or_else(|| no_group(key))
    }

    /// A segment begins to hold entries.
    pub(crate) fn add_segment(&mut self, segment: Arc<Segment>) {
        let number = segment.number();
        self.segments
            .insert(number, SegmentState { segment, live: 0 });
    }

    /// Counts an entry of `segment` as held, during recovery.
    pub(crate) fn hold(&mut self, segment: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live += 1;
        }
    }

    /// An entry of `segment` is not held any more.
    pub(crate) fn release(&mut self, segment: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live = segment.live.saturating_sub(1);
        }
    }

    /// The file of a segment.
    pub(crate) fn segment(&self, number: u64) -> Option<&Arc<Segment>> {
        self.segments.get(&number).map(|state| &state.segment)
    }

    /// Segments in which nothing is held, but not `active`.
    pub(crate) fn dead_segments(&self, active: u64) -> Vec<u64> {
        let dead = self.segments.iter().filter(|(_, state)| state.live == 0);
        let dead = dead.filter(|(number, _)| **number != active);
        // Nobody begins to read one of these, but somebody may be about to. One that cannot be kept open for them goes later.
        let free = dead.filter(|(_, SegmentState { segment, .. })| {
            Arc::strong_count(segment) == 1 || segment.keep_open().is_ok()
        });
        free.map(|(number, _)| *number).collect()
    }

    /// Segments are gone.
    pub(crate) fn forget_segments(&mut self, numbers: &[u64]) {
        self.segments.retain(|number, _| !numbers.contains(number));
        for topic in self.topics.values_mut() {
            topic.holes.retain(|_, segment| !numbers.contains(segment));
        }
        if let Some(oldest) = self.segments.keys().next() {
            let later = self.removed.split_off(oldest);
            let over = std::mem::replace(&mut self.removed, later);
            let over = over.into_iter();
            over.for_each(|(segment, topics)| self.forget_removed(segment, topics));
        }
    }

    /// A topic was removed. That must be known as long as there are segments from before.
    pub(crate) fn note_removed(&mut self, topic: &Topic) {
        // 0: there is no log.
        let newest = self.segments.keys().next_back().copied().unwrap_or(0);
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        state.removed = true;
        let before = std::mem::replace(&mut state.removed_in, newest);
        self.recount = true;
        if newest == 0 {
            self.forget_removed(0, vec![own(topic)]);
        } else if before < newest {
            self.removed.entry(newest).or_default().push(own(topic));
        }
    }

    /// The same for all that are removed, after they were read from the log.
    pub(crate) fn note_all_removed(&mut self) {
        self.removed.clear();
        let topics = self.topics.values_mut();
        topics.for_each(|state| state.removed_in = 0);
        let removed = self.topics.iter().filter(|(_, state)| state.removed);
        let removed: Vec<Topic> = removed.map(|(topic, _)| topic.clone()).collect();
        removed.iter().for_each(|topic| self.note_removed(topic));
    }

    /// Of `topics`, which were removed when `segment` was the newest, nothing is in the log any more.
    fn forget_removed(&mut self, segment: u64, topics: Vec<Topic>) {
        for topic in topics {
            let state = self.topics.get_mut(&topic);
            // It may have come and gone again since.
            let state = state.filter(|state| state.removed_in == segment);
            if state.is_some_and(|state| state.forget_removed(self.newest)) {
                self.recount = true;
                self.passing.push(topic);
            }
        }
    }
}

/// A name that shares the buffer it was read from would keep it.
fn own(topic: &Topic) -> Topic {
    Topic::new(topic.as_str().to_owned()).unwrap_or_else(|_| topic.clone())
}

/// The group does not exist.
pub(crate) fn no_group(key: &GroupKey) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "group-not-found",
        format!(
            "topic {} has no group {}; join it first",
            key.topic, key.group
        ),
    )
}

#[cfg(test)]
mod tests {
    use streamerson_core::{Message, Name, Start};

    use super::super::change;
    use super::super::cold::Place;
    use super::super::decide::Moment;
    use super::super::op::{Change, Changed};
    use super::*;
    use crate::log::open::OpenFiles;
    use crate::log::record::Record;
    use std::fs::{self, File};

    fn inbox() -> Topic {
        Topic::inbox("one").unwrap()
    }

    fn reply(state: &mut State, size: usize, now: Millis) {
        let position = state.assign(&inbox(), None, 1).unwrap();
        let stored = Stored {
            position,
            place: Place::default(),
            body: Body::Message(Message::new("test", vec![b'x'; size])),
        };
        state.show(&inbox(), stored, now, &mut After::default());
    }

    #[test]
    fn an_inbox_is_bounded_in_messages_and_in_bytes() {
        let mut state = State::new(Limit::Cache(1 << 30));
        for _ in 0..INBOX_LEN + 5 {
            reply(&mut state, 10, 0);
        }
        assert_eq!(state.topic(&inbox()).unwrap().len(), INBOX_LEN as u64);
        reply(&mut state, INBOX_BYTES / 2, 0);
        reply(&mut state, INBOX_BYTES / 2, 0);
        assert_eq!(state.topic(&inbox()).unwrap().len(), 1);
        assert_eq!(state.memory, state.topic(&inbox()).unwrap().recent_bytes());
    }

    #[test]
    fn an_inbox_expires_a_while_after_the_last_write() {
        let mut state = State::new(Limit::Cache(1 << 30));
        reply(&mut state, 10, 0);
        reply(&mut state, 10, 1_000);
        state.sweep(INBOX_TTL, &mut After::default());
        assert!(state.topic(&inbox()).is_some());
        let last = state.newest;
        state.sweep(INBOX_TTL + 1_000, &mut After::default());
        assert!(state.topic(&inbox()).is_none());
        assert_eq!(state.memory, 0);
        // Should it come again, it does not begin before what its reader may have seen.
        assert!(state.assign(&inbox(), None, 0).unwrap() > last);
    }

    #[test]
    fn an_expired_inbox_still_wakes_who_waits_for_it() {
        let mut state = State::new(Limit::Cache(1 << 30));
        reply(&mut state, 10, 0);
        let waits = state.topic(&inbox()).unwrap().changed.clone();
        state.sweep(INBOX_TTL, &mut After::default());
        assert_eq!(state.topic(&inbox()).unwrap().len(), 0);
        assert!(Arc::ptr_eq(&waits, &state.topic(&inbox()).unwrap().changed));
    }

    #[test]
    fn topics_that_were_only_looked_at_do_not_pile_up() {
        let mut state = State::new(Limit::Cache(1 << 30));
        for n in 0..10 * MANY {
            state.topic_or_new(&Topic::new(format!("looked-at-{n}")).unwrap());
            state.sweep_if_many(0);
        }
        assert!(state.topics.len() <= MANY + 1);
    }

    #[test]
    fn who_reads_a_segment_can_go_on_when_its_file_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let file = Arc::new(File::create(&path).unwrap());
        let open = Arc::new(OpenFiles::default());
        let reading = Arc::new(Segment::new(1, path.clone(), file, 0, 0, &open));
        let mut state = State::new(Limit::Cache(1 << 30));
        state.add_segment(reading.clone());
        // Others were used since.
        open.forget(1);
        let aside = dir.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        assert!(state.dead_segments(2).is_empty(), "it cannot be kept open");
        fs::rename(&aside, &path).unwrap();
        assert_eq!(state.dead_segments(2), [1]);
        state.forget_segments(&[1]);
        fs::remove_file(&path).unwrap();
        open.forget(1);
        reading.file().unwrap();
    }

    #[test]
    fn topics_are_bounded() {
        let mut state = State::new(Limit::Cache(1 << 30));
        let name = |n: usize| Topic::new(format!("topic-{n}")).unwrap();
        for n in 0..TOPICS {
            state.assign(&name(n), None, 1).unwrap();
        }
        let error = state.assign(&name(TOPICS), None, 1).unwrap_err();
        assert_eq!(error.code(), "too-many-topics");
        state.assign(&name(0), None, 1).unwrap();
    }

    #[test]
    fn topics_that_are_only_waited_for_do_not_count() {
        let mut state = State::new(Limit::Cache(1 << 30));
        let name = |n: usize| Topic::new(format!("topic-{n}")).unwrap();
        let wait = |n: usize| state.topic_or_new(&name(n)).changed.clone();
        let _waiting: Vec<Arc<Notify>> = (0..=TOPICS).map(wait).collect();
        for n in 0..TOPICS {
            state.assign(&name(n), None, 1).unwrap();
        }
        let error = state.assign(&name(TOPICS), None, 1).unwrap_err();
        assert_eq!(error.code(), "too-many-topics");
    }

    #[test]
    fn topics_that_are_begun_by_a_group_are_bounded() {
        let mut state = State::new(Limit::Cache(1 << 30));
        let moment = Moment { now: 0, unix_ms: 1 };
        let mut create = |n: usize| {
            let key = GroupKey {
                topic: Topic::new(format!("topic-{n}")).unwrap(),
                group: Name::new("group").unwrap(),
            };
            let create = Change::CreateGroup(key, Start::Earliest);
            let record = change::record(&mut state, &create, moment)?;
            Ok(change::apply(&mut state, record, &mut After::default()))
        };
        for n in 0..TOPICS {
            create(n).unwrap();
        }
        let refused: Result<Changed> = create(TOPICS);
        assert_eq!(refused.unwrap_err().code(), "too-many-topics");
        assert_eq!(create(0).unwrap(), Changed::Done(false));
    }

    fn remove(state: &mut State, topic: Topic) {
        let removed = Record::TopicRemoved { topic };
        change::apply(state, Some(removed), &mut After::default());
    }

    #[test]
    fn topics_that_were_removed_do_not_count() {
        let mut state = State::new(Limit::Store(1 << 30));
        for n in 0..=2 * TOPICS {
            let name = Topic::new(format!("topic-{n}")).unwrap();
            let position = state.assign(&name, None, 1).unwrap();
            let stored = Stored {
                position,
                place: Place::default(),
                body: Body::Message(Message::new("test", "x")),
            };
            state.show(&name, stored, 0, &mut After::default());
            remove(&mut state, name);
        }
        state.sweep(0, &mut After::default());
        assert!(state.topics.is_empty());
    }
}
