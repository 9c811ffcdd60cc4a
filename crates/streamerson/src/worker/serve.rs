//! A worker at work: its memberships, from joining to leaving.

use std::convert::Infallible;
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{Error, ErrorKind, Member, Membership, Result, Topic};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower::Service;

use super::held::{self, Held};
use super::outcome::Rules;
use super::running::{Runner, Stopped, Work};
use super::{Settings, Worker, settling, trim};
use crate::backoff::Backoff;
use crate::{Reply, Request};

/// Batches of settlements that may wait for the settling task before handlers have to.
const SETTLING_QUEUE: usize = 8;

/// How long settling and leaving may take, once the handlers have ended.
const FAREWELL: Duration = Duration::from_secs(5);

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
            let settings = Arc::new(self.worker.settings?);
            settings.check()?;
            serve(settings, self.service, self.shutdown).await
        }
        .boxed()
    }
}

/// Serves all topics; the first to fail ends the others.
async fn serve<S>(
    settings: Arc<Settings>,
    service: S,
    shutdown: BoxFuture<'static, ()>,
) -> Result<()>
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let stop = CancellationToken::new();
    let mut topics = JoinSet::new();
    for topic in &settings.topics {
        topics.spawn(serve_topic(
            settings.clone(),
            topic.clone(),
            service.clone(),
            stop.clone(),
        ));
    }
    let mut outcome = Ok(());
    tokio::select! {
        () = shutdown => (),
        Some(ended) = topics.join_next() => outcome = flatten(ended),
    }
    stop.cancel();
    let rest = async {
        while let Some(ended) = topics.join_next().await {
            outcome = std::mem::replace(&mut outcome, Ok(())).and(flatten(ended));
        }
    };
    if tokio::time::timeout(settings.drain.saturating_add(FAREWELL), rest)
        .await
        .is_err()
    {
        tracing::warn!(
            "the broker did not take the last results in time; their messages go to other members"
        );
    }
    outcome
}

fn flatten(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.unwrap_or_else(|error| {
        Err(Error::new(
            ErrorKind::Internal,
            "worker-panicked",
            format!("the worker itself failed: {error}"),
        ))
    })
}

/// Serves one topic: joins, works, leaves, and joins again if the membership was lost.
async fn serve_topic<S>(
    settings: Arc<Settings>,
    topic: Topic,
    service: S,
    stop: CancellationToken,
) -> Result<()>
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let _trimming = settings.retention.map(|retention| {
        let trimming = trim::run(
            settings.broker.clone(),
            topic.clone(),
            retention,
            settings.counters.clone(),
        );
        AbortOnDropHandle::new(tokio::spawn(trimming))
    });
    let mut backoff = Backoff::new();
    loop {
        let joined = tokio::select! {
            joined = join(&settings, &topic) => joined?,
            () = stop.cancelled() => return Ok(()),
        };
        match serve_member(&settings, &topic, service.clone(), joined, &stop).await {
            Stopped::Asked => return Ok(()),
            Stopped::Failed(error) => return Err(error),
            Stopped::Lost(error) => {
                tracing::warn!(%topic, %error, "the membership was lost; joining again")
            }
        }
        tokio::select! {
            () = backoff.wait() => (),
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Joins the group, as soon as the broker lets it.
async fn join(settings: &Settings, topic: &Topic) -> Result<Box<dyn Member>> {
    let mut backoff = Backoff::new();
    loop {
        let membership = Membership {
            topic: topic.clone(),
            group: settings.group()?,
            member: settings.member.clone(),
            lease: settings.lease,
            start: settings.start,
            fence: None,
        };
        match settings.broker.join(membership).await {
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                tracing::warn!(%topic, %error, "the group cannot be joined at the moment");
                backoff.wait().await;
            }
            joined => return joined,
        }
    }
}

/// Works as `member` until it stops, settles what has ended, and leaves.
async fn serve_member<S>(
    settings: &Settings,
    topic: &Topic,
    service: S,
    mut member: Box<dyn Member>,
    stop: &CancellationToken,
) -> Stopped
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let group = match settings.group() {
        Ok(group) => group,
        Err(error) => return Stopped::Failed(error),
    };
    let held = Arc::new(Held::default());
    let (ended, settlements) = mpsc::channel(SETTLING_QUEUE);
    let settling = settling::run(
        member.settler(),
        settlements,
        held.clone(),
        settings.counters.clone(),
    );
    let settling = AbortOnDropHandle::new(tokio::spawn(settling));
    let keeping = held::keep(held.clone(), member.settler(), settings.lease);
    let _keeping = AbortOnDropHandle::new(tokio::spawn(keeping));
    let runner = Runner {
        service,
        rules: Rules {
            topic: topic.clone(),
            group,
            member: settings.member.clone(),
            retry: settings.retry,
        },
        concurrency: settings.concurrency,
        prefetch: settings.prefetch,
        drain: settings.drain,
        held,
        counters: settings.counters.clone(),
        ended,
        work: Work::default(),
    };
    let stopped = runner.run(&mut *member, stop).await;
    let farewell = async {
        // The runner is gone, so that settling ends with what it was given.
        let _ = settling.await;
        member.leave().await
    };
    match tokio::time::timeout(FAREWELL, farewell).await {
        Ok(Ok(())) => (),
        Ok(Err(error)) => tracing::warn!(%topic, %error, "the group could not be left in order"),
        Err(_) => tracing::warn!(%topic, "the broker did not take the last results in time"),
    }
    stopped
}
