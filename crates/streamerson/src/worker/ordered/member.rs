//! A member that owns a partition: it passes on only what may start by the order of keys.
//!
//! To the runner it looks like any member: what [`Member::next`] answers is to be handled now. Between the broker and the
//! runner stand the [`Lanes`]; they learn from the settler what was settled and what is to come again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use streamerson_core::lanes::Lanes;
use streamerson_core::{
    Broker, Delivery, ErrorKind, Member, Membership, Outcome, Position, Result, Settlement,
    Settler, partition,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::takeover::{self, Expected};
use crate::worker::settings::Settings;
use crate::worker::stop::Stop;

/// How many messages of one partition may be here, whatever their keys wait for.
const MOST: usize = 1000;

/// What a message is given beyond its due time, because the clocks of the broker and of this process differ in speed.
const SLACK: Duration = Duration::from_millis(5);

/// What the partitions of a topic that one worker owns have together.
pub(super) struct Common {
    /// How many handlers may run at a time.
    permits: Arc<Semaphore>,
    /// How large what waits may be.
    most_bytes: usize,
    /// How many partitions share that.
    sharers: AtomicUsize,
}

impl Common {
    pub(super) fn new(settings: &Settings) -> Common {
        Common {
            permits: Arc::new(Semaphore::new(settings.concurrency)),
            most_bytes: settings.prefetch_bytes,
            sharers: AtomicUsize::new(0),
        }
    }

    /// From now on, so many partitions share the room in bytes.
    pub(super) fn divide(&self, sharers: usize) {
        self.sharers.store(sharers, Ordering::Relaxed);
    }
}

/// The owner of a partition, as a member of its group.
pub(super) struct LanedMember {
    inner: Box<dyn Member>,
    broker: Arc<dyn Broker>,
    membership: Membership,
    shared: Arc<Shared>,
    common: Arc<Common>,
    drain: Stop,
    drained: Stop,
    /// It may not know all that was delivered.
    unsure: bool,
    /// When to look whether what is to come again is still there.
    check_at: Instant,
    /// Not before this, a partition that is full is asked for what is due again.
    patience: Option<Instant>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    lease: Duration,
}

struct State {
    lanes: Lanes<Delivery>,
    running: HashMap<Position, OwnedSemaphorePermit>,
    /// When what is to come again does, as far as is known.
    due: HashMap<Position, Instant>,
    /// Delivered again while it ran: whoever works on it may have given it up.
    again: Vec<Delivery>,
    /// What was settled since a look at what is pending began.
    settled: Option<HashSet<Position>>,
}

impl LanedMember {
    /// The owner under `membership`, which has a fence.
    ///
    /// Once `drain` is asked for, nothing new is taken; `drained` is when what could be started has been settled.
    pub(super) async fn join(
        broker: Arc<dyn Broker>,
        membership: Membership,
        common: Arc<Common>,
        drain: Stop,
        drained: Stop,
    ) -> Result<LanedMember> {
        let inner = broker.join(membership.clone()).await?;
        let state = State {
            lanes: Lanes::new(MOST, common.most_bytes),
            running: HashMap::new(),
            due: HashMap::new(),
            again: Vec::new(),
            settled: None,
        };
        let lease = membership.lease;
        Ok(LanedMember {
            inner,
            broker,
            membership,
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Notify::new(),
                lease,
            }),
            common,
            drain,
            drained,
            unsure: true,
            check_at: Instant::now() + 2 * lease,
            patience: None,
        })
    }

    /// Shows signs of life for what waits here; the worker does so for what it handles.
    pub(super) fn keeper(&self) -> Keeper {
        Keeper {
            settler: self.inner.settler(),
            shared: self.shared.clone(),
        }
    }

    /// Up to `max` messages that may start.
    fn start(&self, max: usize, first: &mut Option<OwnedSemaphorePermit>) -> Vec<Delivery> {
        let mut state = self.shared.state.lock();
        let mut started = std::mem::take(&mut state.again);
        while started.len() < max && state.lanes.startable() > 0 {
            let permit = first
                .take()
                .or_else(|| self.common.permits.clone().try_acquire_owned().ok());
            let Some(permit) = permit else { break };
            let Some((position, delivery)) = state.lanes.start() else {
                break;
            };
            state.running.insert(position, permit);
            started.push(delivery);
        }
        started
    }

    /// What to wait for.
    fn need(&self, max: usize) -> Need {
        let state = self.shared.state.lock();
        let awaits = state.lanes.awaited() > 0;
        if self.drain.is_asked() {
            return match state.lanes.startable() {
                0 if state.lanes.is_quiet() => Need::Nothing,
                0 => Need::Change,
                _ => Need::Permit,
            };
        }
        if self.common.permits.available_permits() == 0 {
            return Need::Permit;
        }
        if state.lanes.startable() > 0 {
            return Need::Permit;
        }
        let sharers = self.common.sharers.load(Ordering::Relaxed);
        match state.lanes.room(sharers) {
            0 if awaits => {
                let due = state.due.values().min().copied();
                let due = due.unwrap_or_else(Instant::now);
                Need::Again(self.patience.map_or(due, |patience| patience.max(due)))
            }
            0 => Need::Change,
            room => Need::More(room.min(max)),
        }
    }

    fn take(&mut self, deliveries: Vec<Delivery>, full: bool) {
        let mut state = self.shared.state.lock();
        let mut expected = false;
        for delivery in deliveries {
            let position = delivery.receipt.position();
            expected |= state.due.remove(&position).is_some();
            if state.running.contains_key(&position) {
                state.again.push(delivery);
                continue;
            }
            let key = partition::key(&delivery.message);
            let bytes = delivery.message.data.len() + delivery.message.meta.len();
            state.lanes.add(position, key, bytes, delivery);
        }
        // What came instead was new, and more than there is room for: so the next try takes its time.
        self.patience = (full && !expected).then(|| Instant::now() + self.shared.lease / 5);
    }

    fn must_check(&mut self) -> bool {
        if self.unsure || self.check_at > Instant::now() {
            return self.unsure;
        }
        self.check_at = Instant::now() + 2 * self.shared.lease;
        self.shared.state.lock().lanes.awaited() > 0
    }

    /// Compares what is here with what is delivered and not settled. What is missing here was left by the owner before, or its
    /// answer got lost: it is expected. What is expected and was removed is not waited for any more.
    async fn check(&mut self) -> Result<()> {
        self.shared.state.lock().settled = Some(HashSet::new());
        let found = self.look().await;
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let State {
            lanes,
            due,
            settled,
            ..
        } = &mut *state;
        // Also when that failed: what is settled from now on is for the next look.
        let settled = settled.take().unwrap_or_default();
        let (is_pending, expected) = found?;
        lanes.retain_awaited(|position| is_pending.contains(&position));
        due.retain(|position, _| is_pending.contains(position));
        for expected in expected {
            if settled.contains(&expected.position) {
                continue;
            }
            lanes.expect(expected.position, expected.key);
            let after = expected.due.unwrap_or(shared.lease) + SLACK;
            due.insert(expected.position, Instant::now() + after);
        }
        self.unsure = false;
        self.check_at = Instant::now() + 2 * shared.lease;
        Ok(())
    }

    /// What is delivered and not settled, and of this what is missing here.
    async fn look(&mut self) -> Result<(HashSet<Position>, Vec<Expected>)> {
        let pending = takeover::pending(&*self.broker, &self.membership).await?;
        let is_pending = pending.keys().copied().collect();
        let known = |position| self.shared.state.lock().lanes.contains(position);
        let expected = takeover::expected(&*self.broker, &self.membership, pending, known).await?;
        Ok((is_pending, expected))
    }
}

/// What a laned member waits for, when it has nothing that may start.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Need {
    /// So many more messages.
    More(usize),
    /// It is full: what is due again at this time.
    Again(Instant),
    /// A handler that may run.
    Permit,
    /// Something to be settled.
    Change,
    /// It has drained.
    Nothing,
}

impl Member for LanedMember {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        async move {
            let mut permit = None;
            let shared = self.shared.clone();
            loop {
                let changed = shared.changed.notified();
                tokio::pin!(changed);
                // Registered before looking, so that a settlement in between is not missed.
                changed.as_mut().enable();
                let started = self.start(max.max(1), &mut permit);
                if !started.is_empty() {
                    return Ok(started);
                }
                permit = None;
                if self.must_check() {
                    self.check().await?;
                    continue;
                }
                let need = self.need(max.max(1));
                let (check_at, drain) = (self.check_at, self.drain.clone());
                let draining = drain.is_asked();
                let (inner, permits) = (&mut self.inner, self.common.permits.clone());
                let work = async move {
                    match need {
                        Need::More(room) => inner.next(room).await.map(|taken| (taken, false)),
                        Need::Again(at) => {
                            tokio::time::sleep_until(at).await;
                            inner.next(1).await.map(|taken| (taken, true))
                        }
                        Need::Permit | Need::Change | Need::Nothing => std::future::pending().await,
                    }
                };
                let may_run = async move {
                    match need {
                        Need::Permit => permits.acquire_owned().await.ok(),
                        _ => std::future::pending().await,
                    }
                };
                if need == Need::Nothing {
                    self.drained.ask();
                }
                tokio::select! {
                    biased;
                    () = &mut changed => (),
                    () = drain.asked(), if !draining => (),
                    granted = may_run => permit = granted,
                    taken = work => match taken {
                        Ok((taken, full)) => self.take(taken, full),
                        Err(error) => {
                            // What it was given may have got lost with the answer.
                            self.unsure = true;
                            return Err(error);
                        }
                    },
                    () = tokio::time::sleep_until(check_at) => (),
                }
            }
        }
        .boxed()
    }

    fn settler(&self) -> Arc<dyn Settler> {
        Arc::new(LanedSettler {
            inner: self.inner.settler(),
            shared: self.shared.clone(),
        })
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.inner.leave()
    }
}

/// Tells the lanes what became of what was started.
struct LanedSettler {
    inner: Arc<dyn Settler>,
    shared: Arc<Shared>,
}

impl Settler for LanedSettler {
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
        async move {
            let asked: Vec<(Position, Option<Duration>)> = batch.iter().map(asked).collect();
            let results = self.inner.settle(batch).await;
            let mut state = self.shared.state.lock();
            for ((position, retry), result) in asked.into_iter().zip(&results) {
                state.ended(position, retry, result, self.shared.lease);
            }
            drop(state);
            self.shared.changed.notify_waiters();
            results
        }
        .boxed()
    }

    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>> {
        self.inner.extend(held)
    }
}

fn asked(settlement: &Settlement) -> (Position, Option<Duration>) {
    let retry = match &settlement.outcome {
        Outcome::Retry { after } => Some(*after),
        Outcome::Complete { .. } => None,
    };
    (settlement.receipt.position(), retry)
}

impl State {
    fn ended(
        &mut self,
        position: Position,
        retry: Option<Duration>,
        result: &Result<()>,
        lease: Duration,
    ) {
        let kind = result.as_ref().map_err(|error| error.kind()).err();
        let again = match (retry, kind) {
            // It is asked again.
            (None, Some(ErrorKind::Unknown)) | (_, Some(ErrorKind::Unavailable)) => return,
            (None, None | Some(ErrorKind::Fenced)) => None,
            (Some(after), None) => Some(after),
            // It is not asked again: the message comes again when its lease has run out.
            (Some(_), Some(_)) => Some(lease),
            // It may be asked again otherwise; if not, the message comes again.
            (None, Some(_)) => return,
        };
        self.running.remove(&position);
        match again {
            None => {
                self.lanes.settled(position);
                self.due.remove(&position);
                if let Some(settled) = &mut self.settled {
                    settled.insert(position);
                }
            }
            Some(after) => {
                self.lanes.parked(position);
                self.due.insert(position, Instant::now() + after + SLACK);
            }
        }
    }
}

/// Shows signs of life for what waits in the lanes.
pub(super) struct Keeper {
    settler: Arc<dyn Settler>,
    shared: Arc<Shared>,
}

impl Keeper {
    pub(super) async fn keep(&self) -> Result<()> {
        let waiting = self.shared.state.lock().lanes.waiting();
        if waiting.is_empty() {
            return Ok(());
        }
        self.settler.extend(&waiting).await
    }
}
