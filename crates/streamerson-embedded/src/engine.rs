//! The engine: every topic and group of one data directory, behind a handle that is cheap to clone.
//!
//! This is the whole interface that the broker traits (`broker`, `reader`, `member`, `settler`) and the
//! Redis-protocol port are written against. Changes are queued to the committer and answered once they are stored at
//! the durability class; what is seen is always committed. Looking never waits for the disk, except where a body is
//! no longer in memory ([`Engine::range`], [`Engine::take`], and what [`Loading`] loads).
//!
//! To wait for news: take [`Engine::changed`], create and enable its `notified()`, look, and await it when there was
//! nothing. It fires when entries become visible, and when a member of any group of the topic gave something back.
//!
//! Inside: `state` and `topic` (what is known, behind one lock), `cold` (where entries stand), `op` (what is asked),
//! `queue` and `drive` (who commits), `commit` with `decide`, `apply` and `change` (how it is stored), `checkpoint` and
//! `recover`, `read` (back from the log). `request` has the words of this interface.

mod apply;
mod aside;
#[cfg(test)]
mod bounds;
mod change;
mod checkpoint;
mod cold;
mod commit;
mod decide;
mod drive;
#[cfg(test)]
mod faults;
mod marks;
mod op;
mod owners;
#[cfg(test)]
mod page_cache;
#[cfg(test)]
mod power_loss;
mod queue;
mod read;
mod recover;
mod remembered;
#[cfg(test)]
mod reopened;
mod request;
#[cfg(test)]
mod room;
mod shared;
mod state;
mod terms;
#[cfg(test)]
mod testing;
mod timer;
mod topic;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::group::{Grant, Group};
use streamerson_core::lease::Fence;
use streamerson_core::retention::Trimmed;
use streamerson_core::stats::IncidentCounts;
use streamerson_core::time::{Millis, Monotonic, unix_ms};
use streamerson_core::{
    Append, Durability, Error, ErrorKind, Name, Position, Result, Settlement, Start, Topic,
};
use tokio::sync::{Notify, oneshot};

pub(crate) use crate::body::Body;
use crate::log::directory::{Directory, unusable};
use crate::log::files::{Files, System};
use crate::log::writer::Settings;
use crate::{Options, Recovery};
use commit::Committer;
use drive::Drive;
use marks::Marks;
pub(crate) use op::MESSAGE;
use op::{Change, Changed, Item, Op, Pending};
pub(crate) use read::Loading;
pub(crate) use request::{Direction, GroupKey, NewEntry, TopicView, Trim, Want, Work};
use shared::Shared;
use state::{Limit, State};
use timer::Timer;

/// Appends are queued in parts of this size.
const PART: usize = 1 << 20;

/// A lease that does not run out: only what was given back is due under it.
const AGES: Millis = 1 << 60;

type Answered<T> = oneshot::Receiver<T>;

/// A range is answered in parts of about this size.
const RANGE: usize = 8 << 20;

/// The handle. Clones share the engine; with the last one the committer ends and the directory is released.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    durability: Durability,
    recovery: Recovery,
    counts: IncidentCounts,
    /// Ends before the drive, which it uses.
    timer: Timer,
    drive: Arc<Drive>,
}

impl Engine {
    /// Opens a data directory.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Engine> {
        Engine::open_with(path, options, Arc::new(System), unix_ms)
    }

    /// The same, on other files and another wall clock.
    pub(crate) fn open_with(
        path: &Path,
        options: &Options,
        files: Arc<dyn Files>,
        unix_ms: fn() -> u64,
    ) -> Result<Engine> {
        options.check()?;
        if options.durability == Durability::Memory {
            return Ok(Engine::in_memory(options, unix_ms));
        }
        let clock = Monotonic::start();
        let moment = decide::Moment {
            now: clock.now(),
            unix_ms: unix_ms(),
        };
        let mut state = State::new(Limit::Cache(options.cache_bytes));
        let settings = Settings {
            durability: options.durability,
            segment_bytes: options.segment_bytes,
            files: files.clone(),
        };
        let directory = Directory::open(path)?;
        let (marks, marked) =
            Marks::open(directory.path(), files).map_err(|error| unusable(path, &error))?;
        let (log, recovery) = recover::recover(directory, settings, &mut state, &marked, moment)?;
        marks.forget(|key| state.group_mut(key).is_err());
        let shared = Arc::new(Shared::new(state, Some(marks), clock, unix_ms));
        let committer = Committer::new(shared.clone(), Some(log));
        let drive = Drive::start(shared.clone(), committer, options.durability)?;
        Ok(Engine::new(shared, drive, options.durability, recovery))
    }

    /// Opens nothing: class `memory`.
    pub(crate) fn in_memory(options: &Options, unix_ms: fn() -> u64) -> Engine {
        let state = State::new(Limit::Store(options.memory_bytes));
        let shared = Arc::new(Shared::new(state, None, Monotonic::start(), unix_ms));
        let committer = Committer::new(shared.clone(), None);
        let drive = Drive::new(shared.clone(), committer, Durability::Memory);
        Engine::new(shared, drive, Durability::Memory, Recovery::default())
    }

    fn new(
        shared: Arc<Shared>,
        drive: Drive,
        durability: Durability,
        recovery: Recovery,
    ) -> Engine {
        let engine = Engine {
            inner: Arc::new(Inner {
                shared,
                durability,
                recovery,
                counts: IncidentCounts::default(),
                timer: Timer::default(),
                drive: Arc::new(drive),
            }),
        };
        if engine.inner.shared.state.lock().aside.next_due().is_some() {
            engine.begin_timer();
        }
        engine
    }

    fn begin_timer(&self) {
        self.inner
            .timer
            .begin(&self.inner.shared, &self.inner.drive);
    }

    /// What an acknowledgement promises.
    pub(crate) fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// What was found when the directory was opened.
    pub(crate) fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// Milliseconds on the engine's monotonic clock: the `now` of groups.
    pub(crate) fn now(&self) -> Millis {
        self.inner.shared.clock.now()
    }

    /// The instant of `at` on the engine's monotonic clock.
    pub(crate) fn instant(&self, at: Millis) -> Instant {
        // Times that no clock reaches are as good as a long time.
        self.inner
            .shared
            .clock
            .instant(at.min(self.now() + 86_400_000))
    }

    /// Appends, and answers positions in the order of the batch once they are stored.
    pub(crate) fn append(
        &self,
        batch: impl IntoIterator<Item = NewEntry>,
    ) -> BoxFuture<'static, Vec<Result<Position>>> {
        self.append_all(batch.into_iter().map(Pending::new))
    }

    /// The same, each message on its own terms.
    pub(crate) fn append_messages(
        &self,
        batch: Vec<Append>,
    ) -> BoxFuture<'static, Vec<Result<Position>>> {
        if batch.iter().any(|append| append.due().is_some()) {
            self.begin_timer();
        }
        self.append_all(batch.into_iter().map(Pending::of))
    }

    fn append_all(
        &self,
        batch: impl Iterator<Item = Pending>,
    ) -> BoxFuture<'static, Vec<Result<Position>>> {
        let mut answers = Vec::with_capacity(1);
        let (mut part, mut bytes) = (Vec::with_capacity(batch.size_hint().0), 0);
        for mut pending in batch {
            let bound = match op::check_sizes(std::slice::from_ref(&pending)) {
                Ok(()) => pending.bound(),
                Err(error) => {
                    pending.position = Err(error);
                    0
                }
            };
            if bytes + bound > PART && !part.is_empty() {
                answers.push(self.append_part(std::mem::take(&mut part)));
                bytes = 0;
            }
            bytes += bound;
            part.push(pending);
        }
        if !part.is_empty() {
            answers.push(self.append_part(part));
        }
        async move {
            let mut results = Vec::new();
            for (answered, count) in answers {
                let part = answered.await;
                let part = part.unwrap_or_else(|_| (0..count).map(|_| Err(unanswered())).collect());
                match results.is_empty() {
                    true => results = part,
                    false => results.extend(part),
                }
            }
            results
        }
        .boxed()
    }

    fn append_part(&self, entries: Vec<Pending>) -> (Answered<Vec<Result<Position>>>, usize) {
        let (answer, answered) = oneshot::channel();
        let count = entries.len();
        self.submit(Op::Append { entries, answer });
        (answered, count)
    }

    /// Settles deliveries of `key` in the name of `member`, each with its outputs in one step, in the order of the batch.
    ///
    /// `Complete`: whoever holds it, the first settlement wins. `Retry`: only by its holder. Who lost gets `Fenced`;
    /// `NotFound`, code `group-not-found`, when topic or group does not exist.
    pub(crate) async fn settle(
        &self,
        key: &GroupKey,
        member: &Name,
        batch: Vec<Settlement>,
    ) -> Vec<Result<()>> {
        self.settle_fenced(key, member, None, batch).await
    }

    /// The same, by a member that must hold the lease of `fence`.
    pub(crate) async fn settle_fenced(
        &self,
        key: &GroupKey,
        member: &Name,
        fence: Option<&Fence>,
        batch: Vec<Settlement>,
    ) -> Vec<Result<()>> {
        let count = batch.len();
        let mut too_large = Vec::new();
        let mut items = Vec::with_capacity(count);
        for (at, settlement) in batch.into_iter().enumerate() {
            let item = Item::new(settlement);
            if item.may_wait() {
                self.begin_timer();
            }
            match item.check_size() {
                Ok(()) => items.push(item),
                Err(error) => too_large.push((at, error)),
            }
        }
        let expected = items.len();
        let (answer, answered) = oneshot::channel();
        self.submit(Op::Settle {
            key: key.clone(),
            member: member.clone(),
            fence: fence.cloned().map(Box::new),
            items,
            answer,
        });
        let answered = answered.await;
        let mut results =
            answered.unwrap_or_else(|_| (0..expected).map(|_| Err(unanswered())).collect());
        for (at, error) in too_large {
            results.insert(at, Err(error));
        }
        results
    }

    /// Destroys a group, as somebody does who does not know us. `false`: there was none.
    pub(crate) async fn lose_group(&self, key: &GroupKey) -> Result<bool> {
        let lost = self.change(Change::LoseGroup(key.clone())).await;
        self.forget_marks(|marked| marked == key);
        lost
    }

    /// What happened that no answer told.
    pub(crate) fn counts(&self) -> &IncidentCounts {
        &self.inner.counts
    }

    /// Creates a group, and its topic if needed. `false`: it was there.
    pub(crate) async fn create_group(&self, key: &GroupKey, start: Start) -> Result<bool> {
        self.change(Change::CreateGroup(key.clone(), start)).await
    }

    /// Removes a group and forgets what it held. `false`: there was none.
    pub(crate) async fn remove_group(&self, key: &GroupKey) -> Result<bool> {
        let removed = self.change(Change::RemoveGroup(key.clone())).await;
        self.forget_marks(|marked| marked == key);
        removed
    }

    /// Moves a group's cursor, backwards too. `NotFound` when there is no such group.
    pub(crate) async fn seek_group(&self, key: &GroupKey, start: Start) -> Result<()> {
        self.seek_by(key, Change::SeekGroup(key.clone(), start))
            .await
    }

    /// The same; it begins there, and its topic too, if needed. By who holds the lease of `fence`, if there is one.
    pub(crate) async fn begin_or_seek(
        &self,
        key: &GroupKey,
        start: Start,
        fence: Option<&Fence>,
    ) -> Result<()> {
        let change = Change::BeginOrSeek {
            key: key.clone(),
            start,
            fence: fence.cloned(),
        };
        self.seek_by(key, change).await
    }

    async fn seek_by(&self, key: &GroupKey, change: Change) -> Result<()> {
        self.change(change).await?;
        if let Some(marks) = &self.inner.shared.marks {
            marks.set(key, self.with_group(key, |group, _| group.cursor())?);
        }
        Ok(())
    }

    /// Removes the oldest entries of a topic. A topic that does not exist has none.
    pub(crate) async fn trim(&self, topic: &Topic, trim: Trim) -> Result<Trimmed> {
        match self.changed_by(Change::Trim(topic.clone(), trim)).await? {
            Changed::Trimmed(trimmed) => Ok(trimmed),
            _ => Ok(Trimmed::default()),
        }
    }

    /// Removes a topic with its entries and groups. `false`: there was none.
    pub(crate) async fn remove_topic(&self, topic: &Topic) -> Result<bool> {
        let removed = self.change(Change::RemoveTopic(topic.clone())).await;
        self.forget_marks(|marked| marked.topic == *topic);
        removed
    }

    /// Gives `member` up to `max` entries to work on, at once; empty when there is nothing. `NotFound`, code
    /// `group-not-found`, when topic or group does not exist.
    ///
    /// Not safe to cancel: what was granted meanwhile comes again when its lease has run out.
    pub(crate) async fn take(
        &self,
        key: &GroupKey,
        member: &Name,
        want: Want,
        max: usize,
    ) -> Result<Vec<Work>> {
        self.take_fenced(key, member, None, want, max).await
    }

    /// The same, by a member that must hold the lease of `fence`.
    pub(crate) async fn take_fenced(
        &self,
        key: &GroupKey,
        member: &Name,
        fence: Option<&Fence>,
        want: Want,
        max: usize,
    ) -> Result<Vec<Work>> {
        let granted = self.grant_fenced(key, member, fence, want, max)?;
        self.note_again(key, granted.what()).await?;
        let works = granted.load(usize::MAX).await?.into_iter();
        Ok(works.map(|(grant, body)| Work { grant, body }).collect())
    }

    /// The first half of [`Engine::take_fenced`]: grants, and says what is to be loaded.
    ///
    /// What is granted again must be noted by [`Engine::note_again`] before it is handed out.
    pub(crate) fn grant_fenced(
        &self,
        key: &GroupKey,
        member: &Name,
        fence: Option<&Fence>,
        want: Want,
        max: usize,
    ) -> Result<Loading<Grant>> {
        let now = self.now();
        let mut state = self.inner.shared.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        decide::check_fence(&state, &key.topic, member, fence, now)?;
        let topic = state.topic_mut(&key.topic);
        let taken = topic.and_then(|topic| topic.take(&key.group, member, now, want, max));
        let taken = taken.ok_or_else(|| state::no_group(key))?;
        let loading = Loading::new(&state, taken);
        drop(state);
        self.mark(key, loading.what());
        Ok(loading)
    }

    /// Acts on a group under the lock: `claim`, `extend`, `leave`, `seen`, or only looks. Not for settling, which is
    /// durable: see [`Engine::settle`]. Wakes who waits on the topic if `act` gave something back. `NotFound`, code `group-not-found`, when topic or group does not exist.
    pub(crate) fn with_group<T>(
        &self,
        key: &GroupKey,
        act: impl FnOnce(&mut Group, Millis) -> T,
    ) -> Result<T> {
        let now = self.now();
        let mut state = self.inner.shared.state.lock();
        let group = state.group_mut(key)?;
        let (before, offers) = (group.next_claim(AGES), group.offers());
        let result = act(group, now);
        let offers = group.offers() != offers;
        let nearer = match (before, group.next_claim(AGES)) {
            (Some(before), Some(after)) => after < before,
            (None, Some(after)) => after < AGES,
            (_, None) => false,
        };
        let changed = state.topic(&key.topic).map(|topic| topic.changed.clone());
        drop(state);
        if let Some(changed) = changed.filter(|_| nearer || offers) {
            changed.notify_waiters();
        }
        Ok(result)
    }

    /// Looks at a topic. `None`: there is none.
    pub(crate) fn with_topic<T>(
        &self,
        topic: &Topic,
        look: impl FnOnce(&TopicView<'_>) -> T,
    ) -> Option<T> {
        let inbox = topic.is_inbox();
        let state = self.inner.shared.state.lock();
        let topic = state.topic(topic).filter(|topic| topic.exists())?;
        Some(look(&TopicView {
            expires: inbox.then(|| topic.written.saturating_add(state::INBOX_TTL)),
            length: topic.len(),
            appended: topic.appended,
            first: topic.first(),
            last: (topic.last > Position::ZERO).then_some(topic.last),
            groups: &topic.groups,
            count_after: &|position| topic.count_after(position),
            next_after: &|position| topic.next_after(position),
            scheduled: topic.scheduled,
            partitions: topic.partitions,
        }))
    }

    /// How many batches were committed since it was opened.
    pub(crate) fn commits(&self) -> u64 {
        self.inner.shared.state.lock().commits
    }

    /// Every topic there is, inboxes and dead letters included, by name.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        let state = self.inner.shared.state.lock();
        let existing = state.topics().filter(|(_, topic)| topic.exists());
        let mut names: Vec<Topic> = existing.map(|(name, _)| name.clone()).collect();
        drop(state);
        names.sort_unstable();
        names
    }

    /// Entries from `from` to `to` (both included), up to `max`, or fewer when they are large (at least one, if any).
    pub(crate) async fn range(
        &self,
        topic: &Topic,
        from: Position,
        to: Position,
        max: usize,
        direction: Direction,
    ) -> Result<Vec<(Position, Body)>> {
        let found = self.find(topic, from, to, max, direction);
        let loaded = found.load(RANGE).await?.into_iter();
        Ok(loaded.filter_map(|(at, body)| Some((at, body?))).collect())
    }

    /// The first half of [`Engine::range`]: finds, and says what is to be loaded.
    pub(crate) fn find(
        &self,
        topic: &Topic,
        from: Position,
        to: Position,
        max: usize,
        direction: Direction,
    ) -> Loading<Position> {
        let state = self.inner.shared.state.lock();
        let found = match (state.topic(topic), direction) {
            (Some(topic), Direction::Forward) => topic.range(from, to, max),
            (Some(topic), Direction::Backward) => topic.range_back(from, to, max),
            (None, _) => Vec::new(),
        };
        Loading::new(&state, found)
    }

    /// What stands at each of `positions`, which is still to be loaded; `None` where nothing does.
    pub(crate) fn find_each(&self, topic: &Topic, positions: Vec<Position>) -> Loading<Position> {
        let state = self.inner.shared.state.lock();
        let topic = state.topic(topic);
        let slot = |at| (at, topic.and_then(|topic| topic.slot(at)));
        Loading::new(&state, positions.into_iter().map(slot).collect())
    }

    /// Fires when there may be something new in a topic: see the module's page.
    pub(crate) fn changed(&self, topic: &Topic) -> Arc<Notify> {
        let now = self.now();
        let mut state = self.inner.shared.state.lock();
        state.sweep_if_many(now);
        state.topic_or_new(topic).changed.clone()
    }

    /// A reader that sees everything begins at `start`: answers where that is. Until [`Engine::end_reading`], processed
    /// entries of the topic stay in memory for it, as far as there is room.
    pub(crate) fn begin_reading(&self, topic: &Topic, start: Start) -> Position {
        let mut state = self.inner.shared.state.lock();
        let topic = state.topic_or_new(topic);
        topic.readers += 1;
        topic.resolve(start)
    }

    /// The reader is gone.
    pub(crate) fn end_reading(&self, topic: &Topic) {
        let mut state = self.inner.shared.state.lock();
        if let Some(topic) = state.topic_mut(topic) {
            topic.readers = topic.readers.saturating_sub(1);
        }
    }

    /// The owner of an inbox has received what stands there up to `position`: the memory is freed.
    pub(crate) fn received(&self, inbox: &Topic, position: Position) {
        self.inner.shared.state.lock().received(inbox, position);
    }

    /// The owner of an inbox is gone: so is the inbox.
    pub(crate) fn close_inbox(&self, inbox: &Topic) {
        self.inner.shared.state.lock().close_inbox(inbox);
    }

    async fn change(&self, change: Change) -> Result<bool> {
        let changed = self.changed_by(change).await?;
        Ok(changed != Changed::Done(false))
    }

    async fn changed_by(&self, change: Change) -> Result<Changed> {
        let (answer, answered) = oneshot::channel();
        self.submit(Op::Change { change, answer });
        answered.await.unwrap_or_else(|_| Err(unanswered()))
    }

    fn submit(&self, op: Op) {
        self.inner.drive.submit(op);
    }
}

fn unanswered() -> Error {
    Error::new(
        ErrorKind::Unknown,
        "committer-stopped",
        "the committer stopped before it answered: it is not known what is stored. Open the directory again",
    )
}
