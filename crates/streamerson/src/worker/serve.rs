//! A worker at work: its memberships, from joining to leaving.

use std::convert::Infallible;
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;

use futures::future::{BoxFuture, Either, FutureExt, select};
use streamerson_core::intake::Intake;
use streamerson_core::{Error, ErrorKind, Member, Membership, Result, Topic};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tower::Service;

use super::handle::Command;
use super::heartbeat::Heartbeat;
use super::held::Held;
use super::janitor::Janitor;
use super::outcome::Rules;
use super::rate::Rate;
use super::running::{Runner, Stopped, Work};
use super::seat::Seat;
use super::settings::Settings;
use super::stop::Stop;
use super::topics::{Topics, panicked};
use super::{Worker, divided, settling};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::partitions::Partitions;
use crate::router::Agreements;
use crate::{Reply, Request};

/// Batches of settlements that may wait for the settling task before handlers have to.
const SETTLING_QUEUE: usize = 8;

/// A worker about to serve: await it.
///
/// Dropping the future is as if the worker crashed: nothing is lost, and what it held goes to other members, at the
/// latest when the lease has run out.
#[must_use = "a worker does nothing until it is awaited"]
pub struct Serve<S> {
    worker: Worker,
    service: S,
    shutdown: BoxFuture<'static, ()>,
}

impl<S> std::fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serve")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl<S> Serve<S> {
    pub(super) fn new(worker: Worker, service: S) -> Serve<S> {
        Serve {
            worker,
            service,
            shutdown: std::future::pending().boxed(),
        }
    }

    /// Ends when `shutdown` completes: reads no more, lets handlers end (within
    /// [`Worker::drain`]), settles, and leaves its groups. [`shutdown_signal`](crate::shutdown_signal) waits for SIGTERM.
    pub fn with_graceful_shutdown(
        mut self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Serve<S> {
        self.shutdown = shutdown.boxed();
        self
    }
}

impl<S> IntoFuture for Serve<S>
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let Worker {
                settings,
                handle,
                commands,
                ..
            } = self.worker;
            drop(handle);
            let settings = settings?;
            settings.check(commands.sender_strong_count() > 0)?;
            serve(settings, commands, self.service, self.shutdown).await
        }
        .boxed()
    }
}

/// Why results were left behind at the end, although there was time to settle them.
const NOT_TAKEN: &str = "the broker did not take the last results in time";

/// Why there was none.
const LATE: &str =
    "the worker did not end in time, because handlers block it or the broker takes no results";

/// What the memberships of a worker share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) heartbeat: Heartbeat,
    partitions: Partitions,
    rate: Option<Arc<Rate>>,
    clock: Arc<Clock>,
    _comparing: AbortOnDropHandle<()>,
}

impl Shared {
    /// Begins what all topics share; within a runtime.
    pub(super) fn new(settings: Settings) -> Shared {
        let clock = Arc::new(Clock::new(settings.broker.clone()));
        let comparing = clock.clone();
        Shared {
            clock,
            _comparing: AbortOnDropHandle::new(tokio::spawn(async move { comparing.run().await })),
            heartbeat: Heartbeat::start(),
            partitions: Partitions::new(settings.broker.clone()),
            rate: settings.rate.map(|rate| Arc::new(Rate::new(rate))),
            settings,
        }
    }

    /// The bounds of what one membership holds.
    fn intake(&self) -> Intake {
        let Settings {
            concurrency,
            prefetch,
            prefetch_bytes,
            ..
        } = self.settings;
        let intake = Intake::new(concurrency, prefetch, prefetch_bytes);
        match &self.rate {
            Some(rate) => intake.with_burst(rate.burst()),
            None => intake,
        }
    }
}

/// Serves all topics; the first to fail ends the others.
async fn serve<S>(
    settings: Settings,
    mut commands: mpsc::Receiver<Command>,
    service: S,
    mut shutdown: BoxFuture<'static, ()>,
) -> Result<()>
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let initial = settings.topics.clone();
    let mut topics = Topics::new(Arc::new(Shared::new(settings)), service);
    for work in initial {
        topics.begin(work);
    }
    let mut outcome = Ok(());
    while outcome.is_ok() {
        tokio::select! {
            () = &mut shutdown => break,
            Some(command) = commands.recv() => topics.obey(command),
            Some(ended) = topics.ended() => outcome = ended,
        }
    }
    topics.stop();
    while let Some(ended) = topics.ended().await {
        outcome = outcome.and(ended);
    }
    outcome
}

/// Serves one topic: joins, works, leaves, and joins again if the membership was lost. Whoever waits for `joined` is told
/// how that went.
pub(super) async fn serve_topic<S>(
    shared: Arc<Shared>,
    topic: Topic,
    service: S,
    stop: Stop,
    mut joined: Option<oneshot::Sender<Result<()>>>,
) -> Result<()>
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let settings = &shared.settings;
    let cleaning = Janitor::new(settings, &topic)?.run(stop.clone());
    let cleaning = AbortOnDropHandle::new(tokio::spawn(cleaning));
    let seat = Seat::needed(settings, &topic)?;
    let mut backoff = Backoff::new();
    let ended = loop {
        let begun = Instant::now();
        // Ends with the topic, or with the seat.
        let ending = stop.child();
        let joining = async {
            let keeping = match &seat {
                Some(seat) => Some(seat.take(&shared.heartbeat, ending.token()).await?),
                None => None,
            };
            Ok((join(settings, &topic).await?, keeping))
        };
        let member = tokio::select! {
            member = joining => Some(member),
            () = ending.asked() => None,
        };
        let stopped = match (member, joined.take()) {
            (None, waiting) => {
                joined = waiting;
                Stopped::Asked
            }
            (Some(Ok((member, _keeping))), waiting) => {
                if let Some(joined) = waiting {
                    let _ = joined.send(Ok(()));
                }
                let working = serve_member(&shared, &topic, service.clone(), member, 0, &ending);
                let working = pin!(working);
                let later = pin!(divided::later(&*settings.broker, &topic, settings.lease));
                match select(working, later).await {
                    Either::Left((stopped, _)) => stopped,
                    Either::Right((refusal, working)) => {
                        tracing::error!(%topic, error = %refusal, "the topic was divided; what is being handled is settled, and the worker ends");
                        ending.ask();
                        working.await;
                        Stopped::Failed(refusal)
                    }
                }
            }
            (Some(Err(error)), None) => Stopped::Failed(error),
            (Some(Err(error)), Some(joined)) => {
                let _ = joined.send(Err(error));
                break Ok(());
            }
        };
        let lost = match (stopped, &seat) {
            (Stopped::Asked, Some(seat)) if !stop.is_asked() => seat.taken(),
            (Stopped::Asked, _) => break Ok(()),
            (Stopped::Failed(error), _) => break Err(error),
            (Stopped::Lost(error), _) => error,
        };
        tracing::warn!(%topic, error = %lost, "the membership was lost; joining again");
        if begun.elapsed() > settings.lease {
            // It was of use for a while: this is not the same trouble again.
            backoff.reset();
        }
        tokio::select! {
            () = backoff.wait() => (),
            () = stop.asked() => break Ok(()),
        }
    };
    if let Some(joined) = joined {
        let detail = format!("{topic} was removed, or the worker ended, before it was joined");
        let _ = joined.send(Err(Error::closed(detail)));
    }
    if let Some(seat) = seat {
        // Otherwise it ends with its lease.
        let _ = tokio::time::timeout_at(stop.leave_by(), seat.leave()).await;
    }
    if ended.is_ok() {
        // It was asked to end too, and gives its duty up.
        let _ = cleaning.await;
    }
    ended
}

/// Joins the group, as soon as the broker lets it.
async fn join(settings: &Settings, topic: &Topic) -> Result<Box<dyn Member>> {
    let mut backoff = Backoff::new();
    loop {
        let membership = Membership {
            topic: topic.clone(),
            group: settings.group()?,
            member: settings.member_name.clone(),
            lease: settings.lease,
            start: settings.start,
            fence: None,
        };
        let joining = async {
            divided::check(&*settings.broker, topic).await?;
            settings.broker.join(membership).await
        };
        match joining.await {
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                tracing::warn!(%topic, %error, "the group cannot be joined at the moment");
                backoff.wait().await;
            }
            joined => return joined,
        }
    }
}

/// Works as `member` until it stops, settles what has ended, and leaves. `epoch` is that of the lease under which it owns the
/// topic, or 0.
pub(super) async fn serve_member<S>(
    shared: &Shared,
    topic: &Topic,
    service: S,
    mut member: Box<dyn Member>,
    epoch: u64,
    stop: &Stop,
) -> Stopped
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let settings = &shared.settings;
    let group = match settings.group() {
        Ok(group) => group,
        Err(error) => return Stopped::Failed(error),
    };
    // Past the limit, a handler that can be stopped is given the time to be.
    let limit = settings.handler_timeout;
    let held = Held::new(limit.map(|limit| limit.saturating_add(settings.lease / 3)));
    let held = Arc::new(held);
    let (ended, settlements) = mpsc::channel(SETTLING_QUEUE);
    let rules = Arc::new(Rules {
        topic: topic.clone(),
        group,
        member: settings.member_name.clone(),
        retry: settings.retry,
        dedupe: settings.dedupe,
        agreements: Agreements::of(&service),
        epoch,
        counters: settings.counters.clone(),
        clock: shared.clock.clone(),
    });
    let settling = settling::run(
        shared.partitions.settler(member.settler()),
        settlements,
        held.clone(),
        rules.clone(),
    );
    let settling = AbortOnDropHandle::new(tokio::spawn(settling));
    let _keeping = shared.heartbeat.keep(
        held.clone(),
        member.settler(),
        settings.lease,
        settings.counters.clone(),
    );
    let runner = Runner {
        service,
        rules,
        concurrency: settings.concurrency,
        intake: shared.intake(),
        rate: shared.rate.clone(),
        handler_timeout: settings.handler_timeout,
        held,
        counters: settings.counters.clone(),
        ended,
        work: Work::default(),
    };
    let running = Box::pin(runner.run(&mut *member, stop));
    let working = async {
        match select(running, settling).await {
            // The runner is gone, so that settling ends with what it was given.
            Either::Left((stopped, settling)) => {
                let (begun, by) = (tokio::time::Instant::now(), stop.settle_by());
                let settled = tokio::time::timeout_at(by, settling).await;
                let why = if begun < by { NOT_TAKEN } else { LATE };
                (stopped, settled.err().map(|_| why))
            }
            Either::Right((ended, _)) => (Stopped::Failed(unsettled(ended)), None),
        }
    };
    let (stopped, left_behind) = tokio::select! {
        biased;
        ended = working => ended,
        // A handler may block the runner, or the runner may wait for the broker to take what has ended.
        () = stop.late() => (Stopped::Asked, Some(LATE)),
    };
    if let Some(why) = left_behind {
        tracing::warn!(%topic, "{why}; what is not settled goes to other members");
    }
    match tokio::time::timeout_at(stop.leave_by(), member.leave()).await {
        Ok(Ok(())) => (),
        Ok(Err(error)) => tracing::warn!(%topic, %error, "the group could not be left in order"),
        Err(_) => tracing::warn!(%topic, "the group could not be left in time"),
    }
    stopped
}

/// Why there is no settling any more, which should end with the runner.
fn unsettled(ended: std::result::Result<(), JoinError>) -> Error {
    match ended {
        Err(error) => panicked(&error),
        Ok(()) => Error::new(
            ErrorKind::Internal,
            "worker-panicked",
            "the task that settles ended too early",
        ),
    }
}
