//! The worker: reads topics as a member of a consumer group, and settles what the router answered.
//!
//! Per topic: one task reads and runs handlers (`running`), one settles in batches (`settling`), one keeps the
//! leases of everything held (`held`), one trims (`trim`). What follows from a reply is decided in `outcome`.
//!
//! # What is promised
//!
//! A message is delivered at least once, and its outcome (reply, next stage, further messages, dead letter) appears
//! exactly once, in one step with its acknowledgement. So a handler may run twice: after the loss of its worker, or when
//! it was silent for a lease. What it does outside of the broker must bear that; the message's id is the same each time.

mod handling;
mod held;
mod outcome;
mod running;
mod serve;
mod settling;
mod stats;
mod trim;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use streamerson_core::retention::Retention;
use streamerson_core::retry::RetryPolicy;
use streamerson_core::{Broker, Error, Membership, Name, Result, Start, Topic, message};
use tower::Service;

use crate::{Reply, Request};
pub use serve::Serve;
pub use stats::{Counters, WorkerStats};

/// The shortest lease: a shorter one would be lost in every scheduling delay.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// Reads topics as a member of a consumer group, runs a handler per message, and settles what it answered.
///
/// ```
/// use streamerson::{Json, Router, Worker, connect};
///
/// async fn double(Json(n): Json<u64>) -> Json<u64> {
///     Json(2 * n)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = connect("memory:").await?;
/// let router = Router::new().on("double", double);
/// # let shutdown = async {};
/// Worker::new(broker)
///     .topic("numbers")
///     .group("doublers")
///     .concurrency(16)
///     .serve(router)
///     .with_graceful_shutdown(shutdown) // streamerson::shutdown_signal()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Worker {
    /// Or the first mistake, answered when the worker is served.
    settings: Result<Settings>,
    counters: Counters,
}

#[derive(Debug)]
struct Settings {
    broker: Arc<dyn Broker>,
    topics: Vec<Topic>,
    group: Option<Name>,
    member: Name,
    start: Start,
    concurrency: usize,
    prefetch: usize,
    lease: Duration,
    retry: RetryPolicy,
    retention: Option<Retention>,
    drain: Duration,
    counters: Counters,
}

impl Worker {
    /// What is kept of processed messages by default: an hour, and at most 100,000.
    pub const DEFAULT_RETENTION: Retention = Retention {
        max_age: Some(Duration::from_secs(3600)),
        max_len: Some(100_000),
        force: false,
    };

    /// A worker on `broker`. It needs a [`topic`](Worker::topic) and a [`group`](Worker::group).
    pub fn new(broker: Arc<dyn Broker>) -> Worker {
        let counters = Counters::default();
        let settings = Name::new(format!("w-{}", message::new_id())).map(|member| Settings {
            broker,
            topics: Vec::new(),
            group: None,
            member,
            start: Start::Earliest,
            concurrency: 64,
            prefetch: 0,
            lease: Membership::DEFAULT_LEASE,
            retry: RetryPolicy::default(),
            retention: Some(Worker::DEFAULT_RETENTION),
            drain: Duration::from_secs(10),
            counters: counters.clone(),
        });
        Worker { settings, counters }
    }

    /// A topic to work on; one or several.
    pub fn topic(self, topic: impl Into<ByteString>) -> Worker {
        self.set(|settings| {
            settings.topics.push(Topic::new(topic)?);
            Ok(())
        })
    }

    /// The consumer group: its members share the work, and every group sees every message.
    pub fn group(self, group: impl Into<ByteString>) -> Worker {
        self.set(|settings| {
            settings.group = Some(Name::new(group)?);
            Ok(())
        })
    }

    /// The name of this member, unique within the group; by default a random one.
    pub fn member(self, member: impl Into<ByteString>) -> Worker {
        self.set(|settings| {
            settings.member = Name::new(member)?;
            Ok(())
        })
    }

    /// Where the group begins if it does not exist yet; by default with the earliest message.
    pub fn start(self, start: Start) -> Worker {
        self.set(|settings| {
            settings.start = start;
            Ok(())
        })
    }

    /// How many handlers may run at the same time, per topic; 64 by default.
    pub fn concurrency(self, concurrency: usize) -> Worker {
        self.set(|settings| {
            settings.concurrency = concurrency;
            Ok(())
        })
    }

    /// How many messages to take beyond those being handled, per topic; none by default, because what waits here could
    /// be handled by another member. Worth it when handlers are short and the broker is far away.
    pub fn prefetch(self, prefetch: usize) -> Worker {
        self.set(|settings| {
            settings.prefetch = prefetch;
            Ok(())
        })
    }

    /// How long a message stays with a member that gives no sign of life; 5 seconds by default. Handlers may take
    /// longer, because the worker gives signs of life for them.
    pub fn lease(self, lease: Duration) -> Worker {
        self.set(|settings| {
            settings.lease = lease;
            Ok(())
        })
    }

    /// When a message that nobody waits for is tried again after a failure; five attempts by default. A message that
    /// was delivered more often than `max_attempts`, because it stops its workers, is not handled any more.
    pub fn retry(self, retry: RetryPolicy) -> Worker {
        self.set(|settings| {
            settings.retry = retry;
            Ok(())
        })
    }

    /// What is kept of processed messages; [`Worker::DEFAULT_RETENTION`] by default. `None`: everything, for ever.
    pub fn retention(self, retention: impl Into<Option<Retention>>) -> Worker {
        self.set(|settings| {
            settings.retention = retention.into();
            Ok(())
        })
    }

    /// How long handlers may take to end at a graceful shutdown; 10 seconds by default.
    pub fn drain(self, drain: Duration) -> Worker {
        self.set(|settings| {
            settings.drain = drain;
            Ok(())
        })
    }

    /// Counts along while the worker runs.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Serves `service`, usually a [`Router`](crate::Router), when awaited: until its shutdown if it has one, and otherwise for ever.
    ///
    /// While the broker is away it waits and tries again. It fails at once when the settings are wrong, and later only when
    /// the broker says that there is no point in going on.
    pub fn serve<S>(self, service: S) -> Serve<S>
    where
        S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        Serve::new(self, service)
    }

    fn set(mut self, change: impl FnOnce(&mut Settings) -> Result<()>) -> Worker {
        if let Ok(settings) = &mut self.settings
            && let Err(error) = change(settings)
        {
            self.settings = Err(error);
        }
        self
    }
}

impl Settings {
    fn group(&self) -> Result<Name> {
        self.group.clone().ok_or_else(|| {
            Error::invalid("group-missing", "a worker needs a consumer group: add .group(\"NAME\"), the same for all workers that share the work")
        })
    }

    fn check(&self) -> Result<()> {
        self.group()?;
        if self.topics.is_empty() {
            return Err(Error::invalid(
                "topic-missing",
                "a worker needs a topic: add .topic(\"NAME\")",
            ));
        }
        if let Some(topic) = self
            .topics
            .iter()
            .find(|topic| topic.is_dead_letters() || topic.is_inbox())
        {
            return Err(Error::invalid(
                "topic-reserved",
                format!(
                    "{topic} cannot be worked on: dead letters are to be replayed to their topic, and inboxes belong to clients"
                ),
            ));
        }
        if self.concurrency == 0 {
            return Err(Error::invalid(
                "invalid-concurrency",
                "a concurrency of 0 would handle nothing; use at least 1",
            ));
        }
        if self.lease < SHORTEST_LEASE {
            return Err(Error::invalid(
                "invalid-lease",
                format!(
                    "a lease of {:?} is too short; use at least {SHORTEST_LEASE:?}",
                    self.lease
                ),
            ));
        }
        Ok(())
    }
}
