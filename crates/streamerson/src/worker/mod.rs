//! The worker: reads topics as a member of a consumer group, and settles what the router answered.
//!
//! Per topic: one task reads and runs handlers (`running`), one settles in batches (`settling`), one cleans if that is
//! its duty (`janitor`). A thread of its own keeps the leases of everything held (`heartbeat`). What follows from a reply is
//! decided in `outcome`. Topics come and go (`topics`, `handle`).
//!
//! # What is promised
//!
//! A message is delivered at least once, and its outcome (reply, next stage, further messages, dead letter) appears
//! exactly once, in one step with its acknowledgement. So a handler may run twice: after the loss of its worker, or when
//! it was silent for a lease. What it does outside of the broker must bear that; the message's id is the same each time.

mod caution;
mod divided;
mod handle;
mod handling;
mod heartbeat;
mod held;
mod janitor;
mod ordered;
mod outcome;
mod rate;
mod running;
mod seat;
mod serve;
mod settings;
mod settling;
mod stats;
mod stop;
mod topics;

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use streamerson_core::retention::Retention;
use streamerson_core::retry::RetryPolicy;
use streamerson_core::{Broker, Membership, Name, Result, Start, Topic, message};
use tokio::sync::mpsc;
use tower::Service;

use crate::{Dedupe, Reply, Request};
pub use handle::WorkerHandle;
pub(crate) use handling::text as panic_text;
pub use serve::Serve;
use settings::{Settings, WorkTopic};
pub use stats::{Counters, WorkerStats};

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
    handle: WorkerHandle,
    commands: mpsc::Receiver<handle::Command>,
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
        let (handle, commands) = handle::channel();
        let settings = Name::new(format!("w-{}", message::new_id())).map(|instance| Settings {
            broker,
            topics: Vec::new(),
            group: None,
            member: None,
            member_name: instance.clone(),
            instance,
            start: Start::Earliest,
            concurrency: 64,
            prefetch: 0,
            prefetch_bytes: 16 << 20,
            rate: None,
            handler_timeout: None,
            lease: Membership::DEFAULT_LEASE,
            retry: RetryPolicy::default(),
            dedupe: None,
            retention: Some(Worker::DEFAULT_RETENTION),
            drain: Duration::from_secs(10),
            counters: counters.clone(),
        });
        Worker {
            settings,
            counters,
            handle,
            commands,
        }
    }

    /// A topic to work on; one or several. Not one that is divided, or gets divided while the worker runs: then the worker ends with
    /// [`Conflict`](crate::core::ErrorKind::Conflict), code `topic-divided`, because what is sent would not come to it any more. Use
    /// [`ordered_topic`](Worker::ordered_topic).
    pub fn topic(self, topic: impl Into<ByteString>) -> Worker {
        self.set(|settings| {
            settings.topics.push(WorkTopic {
                topic: Topic::new(topic)?,
                partitions: None,
            });
            Ok(())
        })
    }

    /// A topic to work on in order: messages with the same key one after the other, in the order in which they were sent,
    /// whatever the number of workers. It is divided into `partitions`, if it is not divided yet: each has one owner at a
    /// time, so that as many workers can share the topic at most. The number stays for good; 16 is a good one.
    ///
    /// The key is the one of the message ([`key`](crate::client::SendBuilder::key)); a message without one is on its own.
    /// A key whose message failed waits until that message is tried again, or kept as a dead letter; other keys do not
    /// wait. `docs/design/ordered-topics.md` says what is promised.
    ///
    /// ```
    /// # use streamerson::{Worker, connect};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> streamerson::Result<()> {
    /// let worker = Worker::new(connect("memory:").await?)
    ///     .ordered_topic("orders", 16)
    ///     .group("billing");
    /// # Ok(())
    /// # }
    /// ```
    pub fn ordered_topic(self, topic: impl Into<ByteString>, partitions: u32) -> Worker {
        self.set(|settings| {
            settings.topics.push(WorkTopic {
                topic: Topic::new(topic)?,
                partitions: Some(partitions),
            });
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

    /// The name of this member, unique within the group; by default a random one. While another worker has the name, serving waits
    /// for up to a lease, and then fails with [`Conflict`](crate::core::ErrorKind::Conflict), code `member-taken`.
    ///
    /// In the group, the name is followed by one of this start of the worker, so that nobody takes a worker that slept through
    /// its lease for the one that replaced it. Members are forgotten a while after their worker is gone.
    pub fn member(self, member: impl Into<ByteString>) -> Worker {
        self.set(|settings| {
            let member = Name::new(member)?;
            settings.member_name = Name::new(format!("{member}.{}", settings.instance))?;
            settings.member = Some(member);
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

    /// How many messages to take beyond those being handled, per queued topic; none by default, because what waits here could
    /// be handled by another member. Worth it when handlers are short and the broker is far away.
    pub fn prefetch(self, prefetch: usize) -> Worker {
        self.set(|settings| {
            settings.prefetch = prefetch;
            Ok(())
        })
    }

    /// How many bytes of messages may wait here for a handler, per topic; 16 MiB by default. A larger message still comes,
    /// alone. Sizes are known only once messages have come: the worker goes by those it has seen of late, and before the first
    /// takes none that would wait. In an [ordered topic](Worker::ordered_topic) it is what may wait in all of its partitions together, for a handler or for its key.
    pub fn prefetch_bytes(self, bytes: usize) -> Worker {
        self.set(|settings| {
            settings.prefetch_bytes = bytes;
            Ok(())
        })
    }

    /// How many handlers may begin per second, over all topics of this worker; as many as there is work for by default.
    /// For what the handlers call, which bears no more. What may not begin yet is not taken, and stays for other members.
    pub fn rate(self, per_second: NonZeroU32) -> Worker {
        self.set(|settings| {
            settings.rate = Some(per_second);
            Ok(())
        })
    }

    /// How long a handler may take; without a limit by default, because only the application knows.
    ///
    /// Beyond the limit the handler is dropped at its next `.await`, and its message failed with 504 `handler-timeout`:
    /// tried again if nobody waits for the answer. A handler that blocks its thread cannot be stopped; then the worker stops
    /// giving signs of life for its message, and another member takes over within a lease. Should the first one end
    /// after all, one of the two results counts, as always. Set this wherever a handler could hang: without it, a hanging
    /// handler keeps its message for as long as the worker runs.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use streamerson::{Worker, connect};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> streamerson::Result<()> {
    /// let worker = Worker::new(connect("memory:").await?)
    ///     .topic("mail")
    ///     .group("senders")
    ///     .handler_timeout(Duration::from_secs(30));
    /// # Ok(())
    /// # }
    /// ```
    pub fn handler_timeout(self, limit: impl Into<Option<Duration>>) -> Worker {
        self.set(|settings| {
            settings.handler_timeout = limit.into();
            Ok(())
        })
    }

    /// How long a message stays with a member that gives no sign of life; 5 seconds by default, a day at most. Handlers may take
    /// longer, because the worker gives signs of life for them, from a thread of its own, so that it does so too while
    /// handlers keep all threads busy.
    pub fn lease(self, lease: Duration) -> Worker {
        self.set(|settings| {
            settings.lease = lease;
            Ok(())
        })
    }

    /// When a message that nobody waits for is tried again after a failure; five attempts by default. A message that
    /// was delivered more often than `max_attempts`, because it stops its workers, is not handled any more, but kept as a dead
    /// letter. [`Handler::retry`](crate::Handler::retry) sets it for one handler.
    pub fn retry(self, retry: RetryPolicy) -> Worker {
        self.set(|settings| {
            settings.retry = retry;
            Ok(())
        })
    }

    /// Which messages are the same thing, of which only the first that succeeds is to have an effect; by default, none:
    /// every message is a thing of its own. [`Handler::dedupe`](crate::Handler::dedupe) sets it for one handler.
    pub fn dedupe(self, dedupe: Dedupe) -> Worker {
        self.set(|settings| {
            settings.dedupe = Some(dedupe);
            Ok(())
        })
    }

    /// What is kept of processed messages; [`Worker::DEFAULT_RETENTION`] by default. `None`: this worker removes nothing.
    ///
    /// Give all workers on a topic the same one, in all its groups: one of them at a time trims it, as it was told itself, so that in the
    /// end the one that keeps least has its way. To keep everything for ever, all of them have to.
    pub fn retention(self, retention: impl Into<Option<Retention>>) -> Worker {
        self.set(|settings| {
            settings.retention = retention.into();
            Ok(())
        })
    }

    /// How long handlers may take to end at a graceful shutdown; 10 seconds by default. Settling and leaving take up to five seconds
    /// more, and never longer, also when the broker is away: what is still held then goes to other members.
    pub fn drain(self, drain: Duration) -> Worker {
        self.set(|settings| {
            settings.drain = drain;
            Ok(())
        })
    }

    /// The name of this member, as `group show` and logs have it: the one it was [given](Worker::member), or a random one.
    /// Fails with the first wrong setting, as serving would.
    pub fn member_name(&self) -> Result<Name> {
        let settings = self.settings.as_ref().map_err(Clone::clone)?;
        Ok(settings.member_name.clone())
    }

    /// Counts along while the worker runs.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// A handle that adds and removes topics while the worker serves. With one, a worker may begin without topics.
    pub fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    /// Serves `service`, usually a [`Router`](crate::Router), when awaited: until its shutdown if it has one, and otherwise for ever.
    ///
    /// What is agreed for the handlers of a router holds when the router itself is served. In a service of another type, also
    /// one around a router, only the worker's own settings do: put layers into the router, with [`Router::layer`](crate::Router::layer).
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
