//! The in-memory broker: the executable specification of the contract, and a broker for tests.
//!
//! It is written to be read: `topic` is one topic, `topics` the steps that concern several, `shared` the one lock and
//! waiting, and the traits of the contract are thin over them. Nothing survives the process.

mod member;
mod reader;
mod shared;
mod topic;
mod topics;
mod upkeep;

use std::future::ready;
use std::sync::{Arc, LazyLock};

use futures::future::{BoxFuture, FutureExt};

use self::member::MemoryMember;
use self::reader::MemoryReader;
use self::shared::Shared;
use crate::broker::{Append, Broker, Capabilities, Inbox, Member, Membership, Reader};
use crate::retention::{Retention, Trimmed};
use crate::stats::TopicStats;
use crate::{Durability, Error, ErrorKind, Position, Result, Start, Topic, message};

/// A broker whose topics live in this process's memory. Clones share the topics.
///
/// ```
/// use streamerson_core::memory::MemoryBroker;
/// use streamerson_core::{Append, Broker, Message, Start, Topic};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson_core::Result<()> {
/// let broker = MemoryBroker::new();
/// let topic = Topic::new("orders")?;
/// broker.append(vec![Append::new(topic.clone(), Message::new("order.create", "{}"))]).await;
///
/// let mut reader = broker.read(&topic, Start::Earliest).await?;
/// let entries = reader.next(10).await?;
/// assert_eq!(entries.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

impl Default for MemoryBroker {
    fn default() -> MemoryBroker {
        MemoryBroker::new()
    }
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new() -> MemoryBroker {
        MemoryBroker {
            shared: Arc::new(Shared::new()),
        }
    }
}

static CAPABILITIES: LazyLock<Capabilities> = LazyLock::new(|| Capabilities {
    broker: "memory".into(),
    durability: Durability::Memory,
    warnings: Vec::new(),
});

impl Broker for MemoryBroker {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn time(&self) -> BoxFuture<'_, Result<u64>> {
        ready(Ok(self.shared.now().unix_ms)).boxed()
    }

    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
        let positions = self.shared.with_all(|topics, now| {
            let batch = batch.into_iter();
            batch.map(|append| topics.append(append, now)).collect()
        });
        ready(positions).boxed()
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
        let reader = MemoryReader {
            shared: self.shared.clone(),
            topic: topic.clone(),
            cursor: self.shared.with(topic, |state, _| state.resolve(start)),
        };
        ready(Ok(Box::new(reader) as Box<dyn Reader>)).boxed()
    }

    fn join(&self, membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        let member = MemoryMember::join(self.shared.clone(), membership);
        ready(member.map(|member| Box::new(member) as Box<dyn Member>)).boxed()
    }

    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
        async move {
            let address = Topic::inbox(&message::new_id())?;
            let reader = self.read(&address, Start::Earliest).await?;
            Ok(Inbox { address, reader })
        }
        .boxed()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        let topics = self.shared.with_all(|topics, _| {
            let names = topics.names();
            let visible = names.filter(|topic| !topic.is_inbox() && !topic.is_dead_letters());
            visible.cloned().collect()
        });
        ready(Ok(topics)).boxed()
    }

    fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
        let stats = self.shared.with_all(|topics, now| {
            let state = topics.existing(topic, now);
            state.map(|state| state.stats(now)).ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    "topic-not-found",
                    format!("there is no topic {topic}; a topic begins with its first message"),
                )
            })
        });
        ready(stats).boxed()
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Trimmed>> {
        let trimmed = self
            .shared
            .with(topic, |state, now| state.trim(retention, now));
        ready(Ok(trimmed)).boxed()
    }
}
