//! The embedded broker.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::broker::Capabilities;
use streamerson_core::retention::{Retention, Trimmed};
use streamerson_core::stats::{GroupStats, Incidents, MemberStats, TopicStats};
use streamerson_core::time::{Millis, unix_ms};
use streamerson_core::{
    Append, Broker, Error, ErrorKind, Inbox, Member, Membership, Position, Reader, Result, Start,
    Topic, message,
};

use crate::engine::{Engine, GroupKey, TopicView, Trim};
use crate::member::EmbeddedMember;
use crate::reader::EmbeddedReader;
use crate::{Options, Recovery};

/// A durable broker inside this process. Clones share it; with the last one, and the last reader and member, the data
/// directory is released.
///
/// ```
/// use streamerson_core::{Append, Broker, Message, Start, Topic};
/// use streamerson_embedded::{EmbeddedBroker, Options};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson_core::Result<()> {
/// # let dir = std::env::temp_dir().join(format!("streamerson-doc-{}", std::process::id()));
/// let orders = Topic::new("orders")?;
/// {
///     let broker = EmbeddedBroker::open(&dir, Options::default())?;
///     let message = Message::new("order.create", "{}");
///     for stored in broker.append(vec![Append::new(orders.clone(), message)]).await {
///         stored?; // on the disk
///     }
/// }
///
/// let broker = EmbeddedBroker::open(&dir, Options::default())?;
/// let mut reader = broker.read(&orders, Start::Earliest).await?;
/// assert_eq!(reader.next(10).await?.len(), 1);
/// # drop((reader, broker));
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EmbeddedBroker {
    engine: Engine,
    capabilities: Arc<Capabilities>,
}

impl EmbeddedBroker {
    /// Opens the data directory `dir`, creating it as needed. Waits for the disk: everything stored is read and verified.
    ///
    /// Errors: `data-directory-locked` ([`Unavailable`](ErrorKind::Unavailable)) while another process works on it,
    /// `data-directory-unusable` ([`Invalid`](ErrorKind::Invalid)), and [`Corrupt`](ErrorKind::Corrupt) when something
    /// that was acknowledged is damaged or missing: then nothing is changed.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<EmbeddedBroker> {
        Engine::open(dir.as_ref(), &options).map(EmbeddedBroker::of)
    }

    /// A broker that stores nothing: the same engine, class `memory`.
    pub fn in_memory() -> EmbeddedBroker {
        EmbeddedBroker::of(Engine::in_memory(&Options::default(), unix_ms))
    }

    /// What was found when the directory was opened.
    pub fn recovery(&self) -> &Recovery {
        self.engine.recovery()
    }

    /// The engine, for the Redis-protocol port.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn of(engine: Engine) -> EmbeddedBroker {
        let capabilities = Capabilities {
            broker: concat!("embedded ", env!("CARGO_PKG_VERSION")).into(),
            durability: engine.durability(),
            warnings: Vec::new(),
        };
        EmbeddedBroker {
            engine,
            capabilities: Arc::new(capabilities),
        }
    }
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker")
            .field("durability", &self.engine.durability())
            .finish_non_exhaustive()
    }
}

impl Broker for EmbeddedBroker {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn incidents(&self) -> Incidents {
        self.engine.counts().read()
    }

    fn time(&self) -> BoxFuture<'_, Result<u64>> {
        std::future::ready(Ok(unix_ms())).boxed()
    }

    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
        self.engine.append_messages(batch)
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
        let reader = EmbeddedReader::open(self.engine.clone(), topic.clone(), start, false);
        std::future::ready(Ok(Box::new(reader) as Box<dyn Reader>)).boxed()
    }

    fn join(&self, membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        async move {
            let key = GroupKey {
                topic: membership.topic.clone(),
                group: membership.group.clone(),
            };
            let fence = membership.fence.as_ref();
            self.engine
                .check_fence(&key.topic, &membership.member, fence)?;
            self.engine
                .begin_group(&key, membership.start, false)
                .await?;
            let member = EmbeddedMember::join(self.engine.clone(), key, membership)?;
            Ok(Box::new(member) as Box<dyn Member>)
        }
        .boxed()
    }

    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
        async move {
            let address = Topic::inbox(&message::new_id())?;
            let engine = self.engine.clone();
            let reader = EmbeddedReader::open(engine, address.clone(), Start::Earliest, true);
            Ok(Inbox {
                address,
                reader: Box::new(reader),
            })
        }
        .boxed()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        let mut topics = self.engine.topics();
        topics.retain(|topic| !topic.is_inbox() && !topic.is_dead_letters());
        std::future::ready(Ok(topics)).boxed()
    }

    fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
        let now = self.engine.now();
        let stats = self.engine.with_topic(topic, |view| stats(view, now));
        let stats = stats.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "topic-not-found",
                format!("there is no topic {topic}; a topic begins with its first message"),
            )
        });
        std::future::ready(stats).boxed()
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Trimmed>> {
        self.engine.trim(topic, Trim::Retain(retention)).boxed()
    }
}

fn stats(view: &TopicView<'_>, now: Millis) -> TopicStats {
    let groups = view.groups.iter().map(|(name, group)| GroupStats {
        name: name.to_string(),
        cursor: (group.cursor() > Position::ZERO).then_some(group.cursor()),
        lag: Some((view.count_after)(group.cursor())),
        next: (view.next_after)(group.cursor()),
        pending: group.pending() as u64,
        retrying: group.retrying() as u64,
        oldest_pending: group.held().next().map(|(position, _)| position),
        members: group
            .members()
            .map(|(member, seen)| MemberStats {
                name: member.to_string(),
                pending: group
                    .held()
                    .filter(|(_, held)| held.member == *member)
                    .count() as u64,
                idle: Duration::from_millis(now.saturating_sub(seen)),
            })
            .collect(),
    });
    TopicStats {
        length: view.length,
        appended: Some(view.appended),
        first: view.first,
        last: view.last,
        scheduled: view.scheduled,
        groups: groups.collect(),
    }
}
