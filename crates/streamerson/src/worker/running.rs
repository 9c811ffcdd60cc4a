//! Reads deliveries and runs the router over them, so many at a time.
//!
//! Most handlers of a stream of small messages end at once. Such a handler never becomes a task: it is polled in place,
//! and only what has to wait is spawned. Settlements and signs of life have tasks of their own, so that a handler that
//! keeps this one busy delays neither.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use streamerson_core::intake::Intake;
use streamerson_core::time::{millis, unix_ms};
use streamerson_core::{Delivery, Error, ErrorKind, Member, Message, Receipt, Settlement};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tower::Service;

use super::caution::Caution;
use super::handling;
use super::held::Held;
use super::outcome::Rules;
use super::rate::Rate;
use super::settling::Ended;
use super::stats::{Counters, WorkerStats};
use super::stop::Stop;
use crate::backoff::Backoff;
use crate::clock::PATIENCE;
use crate::{IntoReply, Problem, Reply, Request};

/// The most deliveries asked for at once.
const BATCH: usize = 256;

/// An answer about the time is good for so long.
const SAME_GO: Duration = Duration::from_millis(100);

/// How long a handler that was stopped may take to notice.
const STOPPING: Duration = Duration::from_secs(1);

/// Why a member stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    /// It was asked to.
    Asked,
    /// Its membership is gone; another may be had.
    Lost(Error),
    /// It makes no sense to go on.
    Failed(Error),
}

/// Runs the handlers of one member.
pub(super) struct Runner<S> {
    pub(super) service: S,
    pub(super) rules: Arc<Rules>,
    pub(super) concurrency: usize,
    pub(super) intake: Intake,
    pub(super) rate: Option<Arc<Rate>>,
    pub(super) handler_timeout: Option<Duration>,
    pub(super) held: Arc<Held>,
    pub(super) counters: Counters,
    pub(super) ended: mpsc::Sender<Vec<Ended>>,
    pub(super) work: Work,
}

/// What a runner has in hand.
#[derive(Default)]
pub(super) struct Work {
    waiting: VecDeque<Delivery>,
    /// The size of what waits, where that is of interest.
    waiting_bytes: usize,
    /// When the rate lets the next one begin.
    resume: Option<tokio::time::Instant>,
    running: JoinSet<Handled>,
    settlements: Vec<Ended>,
    stats: WorkerStats,
    caution: Caution,
    /// When the broker was last asked for the time, and its answer.
    asked_time: Option<(Instant, Option<u64>)>,
}

/// How the handling of one message ended.
struct Handled {
    message: Message,
    receipt: Receipt,
    reply: Reply,
}

impl<S> Runner<S>
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Works until `stop`, or until the membership is of no use any more; ends what runs, while there is time.
    pub(super) async fn run(mut self, member: &mut dyn Member, stop: &Stop) -> Stopped {
        // The tasks that keep leases and settle begin first: a handler that blocks could keep them from it.
        tokio::task::yield_now().await;
        let mut backoff = Backoff::new();
        let stopped = loop {
            match self.turn(member, stop).await {
                Ok(true) => backoff.reset(),
                Ok(false) => break Stopped::Asked,
                Err(error) => {
                    tracing::warn!(topic = %self.rules.topic, %error, "messages cannot be read at the moment");
                    match error.kind() {
                        ErrorKind::Invalid | ErrorKind::Corrupt => break Stopped::Failed(error),
                        ErrorKind::Closed | ErrorKind::NotFound | ErrorKind::Fenced => {
                            break Stopped::Lost(error);
                        }
                        _ => tokio::select! {
                            () = backoff.wait() => (),
                            () = stop.asked() => (),
                        },
                    }
                }
            }
        };
        self.finish(stop).await;
        stopped
    }

    /// Starts what waits, and takes the next deliveries if there is room. Answers whether to go on.
    async fn turn(&mut self, member: &mut dyn Member, stop: &Stop) -> Result<bool, Error> {
        // While there is always more to take, nobody waits for these below.
        self.conclude_ended();
        self.start_waiting().await;
        let room = self.intake.room(
            self.work.running.len(),
            self.work.waiting.len(),
            self.work.waiting_bytes,
        );
        if room == 0 {
            tokio::select! {
                biased;
                () = stop.asked() => return Ok(false),
                Some(handled) = self.work.running.join_next() => self.gather(handled).await,
                () = at(self.work.resume), if self.work.resume.is_some() => (),
            }
            return Ok(true);
        }
        let mut next = member.next(room.min(BATCH));
        let mut deliveries = loop {
            tokio::select! {
                biased;
                () = stop.asked() => return Ok(false),
                deliveries = &mut next => break deliveries?,
                Some(handled) = self.work.running.join_next() => {
                    self.gather(handled).await;
                    self.start_waiting().await;
                }
                () = at(self.work.resume), if self.work.resume.is_some() => {
                    self.start_waiting().await;
                }
            }
        };
        self.held.add(&mut deliveries);
        if self.intake.counts_bytes() {
            for delivery in &deliveries {
                let size = delivery.message.size();
                self.intake.seen(size);
                self.work.waiting_bytes += size;
            }
        }
        self.work.waiting.extend(deliveries);
        Ok(true)
    }

    /// Starts what waits, as far as concurrency allows, and passes on what has ended.
    async fn start_waiting(&mut self) {
        while self.work.running.len() < self.concurrency && self.may_begin() {
            let Some(delivery) = self.work.waiting.pop_front() else {
                break;
            };
            if self.intake.counts_bytes() {
                self.work.waiting_bytes -= delivery.message.size();
            }
            self.start(delivery).await;
        }
        self.pass_on().await;
    }

    /// Whether the rate lets what waits begin; if not, notes when it will.
    fn may_begin(&mut self) -> bool {
        let Some(rate) = &self.rate else {
            return true;
        };
        self.work.resume = None;
        if self.work.waiting.is_empty() {
            return false;
        }
        match rate.begin() {
            Ok(()) => true,
            Err(wait) => {
                self.work.resume = Some(tokio::time::Instant::now() + wait);
                false
            }
        }
    }

    async fn start(&mut self, delivery: Delivery) {
        let Delivery { message, receipt } = delivery;
        let (position, attempt) = (receipt.position(), receipt.attempt());
        let topic = self.rules.topic.clone();
        let epoch = self.rules.epoch;
        let mut request = match Request::delivered(topic, message.clone(), position, attempt, epoch)
        {
            Ok(request) => request,
            Err(error) => {
                let problem = Problem::bad_request(error.code(), error.detail().to_owned());
                return self.settle(&message, receipt, problem.into_reply());
            }
        };
        if self.has_passed(&mut request).await {
            self.work.stats.expired += 1;
            let settlement = Settlement::complete(receipt);
            self.work.settlements.push(Ended::new(&message, settlement));
            return;
        }
        if let Some(refusal) = self.rules.refusal(&message, attempt) {
            let stats = &mut self.work.stats;
            let settlement =
                self.rules
                    .refuse(&message, receipt, refusal, self.rules.moment(), stats);
            self.work.settlements.push(Ended::new(&message, settlement));
            return;
        }
        self.held.begin(position);
        let service = self.service.clone();
        let limit = self.handler_timeout;
        let mut handling = Box::pin(async move {
            let reply = handling::reply(service, request, limit).await;
            Handled {
                message,
                receipt,
                reply,
            }
        });
        if self.work.caution.advises_a_task() {
            self.work.running.spawn(handling);
            return;
        }
        let begun = Instant::now();
        let first = poll_once(handling.as_mut()).await;
        self.work.caution.note(begun.elapsed());
        match first {
            Poll::Ready(Handled {
                message,
                receipt,
                reply,
            }) => self.settle(&message, receipt, reply),
            Poll::Pending => {
                self.work.running.spawn(handling);
            }
        }
    }

    /// Whether nobody waits any more. When it seems so, that may be because of this machine's clock: the broker's decides, and
    /// the deadline is put on the clock that handlers see. A message is rather handled in vain than lost.
    async fn has_passed(&mut self, request: &mut Request) -> bool {
        let told = request.deadline();
        if !told.has_passed(unix_ms()) {
            return false;
        }
        let Some(now) = self.broker_time().await else {
            return false;
        };
        request.set_deadline(told.moved_here(now));
        told.has_passed(now)
    }

    /// What the broker's clock says. One answer is for all who ask in one go, and so is none.
    async fn broker_time(&mut self) -> Option<u64> {
        if let Some((at, answer)) = self.work.asked_time {
            let since = at.elapsed();
            match answer {
                Some(then) if since < SAME_GO => return Some(then + millis(since)),
                None if since < PATIENCE => return None,
                _ => (),
            }
        }
        let answer = self.rules.clock.ask().await;
        self.work.asked_time = Some((Instant::now(), answer));
        answer
    }

    /// Concludes what has ended; also what ends while this task lets others go first, so that they are settled together.
    async fn gather(&mut self, first: Result<Handled, JoinError>) {
        self.conclude(first);
        tokio::task::yield_now().await;
        self.conclude_ended();
    }

    fn conclude_ended(&mut self) {
        while let Some(handled) = self.work.running.try_join_next() {
            self.conclude(handled);
        }
    }

    fn conclude(&mut self, handled: Result<Handled, JoinError>) {
        match handled {
            Ok(Handled {
                message,
                receipt,
                reply,
            }) => self.settle(&message, receipt, reply),
            // Its lease runs out, and it is delivered again.
            Err(error) => {
                tracing::error!(%error, "the handling of a message ended without a result")
            }
        }
    }

    fn settle(&mut self, message: &Message, receipt: Receipt, reply: Reply) {
        self.held.end(receipt.position());
        let settlement = self.rules.settlement(
            message,
            receipt,
            reply,
            self.rules.moment(),
            &mut self.work.stats,
        );
        let ended = Ended::new(message, settlement);
        self.work.settlements.push(ended);
    }

    /// Hands what has ended to the settling task; waits when that one is behind.
    async fn pass_on(&mut self) {
        if self.work.settlements.is_empty() {
            return;
        }
        // Room first: a cancelled wait must not take the settlements with it. The settling task ends only after this
        // one, so the channel is open.
        let Ok(room) = self.ended.reserve().await else {
            return;
        };
        self.counters.add(&std::mem::take(&mut self.work.stats));
        room.send(std::mem::take(&mut self.work.settlements));
        // It was just woken, and may stand behind this task in line: a handler that blocks must not keep it there.
        tokio::task::yield_now().await;
    }

    /// Waits for what runs, while there is time for it. What did not begin, or does not end, goes back to the group.
    async fn finish(mut self, stop: &Stop) {
        let running = async {
            while let Some(handled) = self.work.running.join_next().await {
                // Who asked is answered now, not when the slowest has ended.
                self.gather(handled).await;
                self.pass_on().await;
            }
        };
        let aborted = tokio::time::timeout_at(stop.end_by(), running)
            .await
            .is_err();
        if aborted {
            tracing::warn!(
                topic = %self.rules.topic, running = self.work.running.len(),
                "handlers did not end in time; their messages go to other members"
            );
            // A handler that blocks its thread cannot be stopped: who is done is settled, and the rest left behind.
            self.work.running.abort_all();
            let stopping = async {
                while let Some(handled) = self.work.running.join_next().await {
                    if let Ok(handled) = handled {
                        self.conclude(Ok(handled));
                    }
                }
            };
            if tokio::time::timeout(STOPPING, stopping).await.is_err() {
                tracing::error!(
                    topic = %self.rules.topic, running = self.work.running.len(),
                    "handlers that block their threads go on; their results will be discarded"
                );
                self.work.running.detach_all();
            }
        }
        self.pass_on().await;
    }
}

/// Waits until `time`, which is there.
async fn at(time: Option<tokio::time::Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time).await;
    }
}

/// Polls `future` once. The waker does nothing, because whoever is still waiting is spawned and polled again.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    let once = std::future::poll_fn(|_| {
        let mut context = Context::from_waker(Waker::noop());
        Poll::Ready(future.as_mut().poll(&mut context))
    });
    // The budget of this task is not the handler's to spend.
    tokio::task::unconstrained(once).await
}
