//! The consumer: reads topics without sharing the work; every consumer sees everything.
//!
//! For what a [`Worker`](crate::Worker) is too much: a live view, a cache to invalidate, a projection into another store. It
//! holds no leases on messages, retries nothing and keeps no dead letters. With a [`cursor`](Consumer::cursor) it goes on
//! where it stood, also after a restart: at least once.

mod cursor;
mod entries;
mod opening;
mod source;
mod whole;

use std::sync::Arc;

use bytestring::ByteString;
use streamerson_core::message::{self, Foreign};
use streamerson_core::{Broker, Error, Message, Name, Position, Result, Start, Topic};

pub use entries::Entries;
use opening::Opener;

/// Reads everything in one topic or several.
///
/// ```
/// use streamerson::core::Start;
/// use streamerson::{Client, Consumer, connect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson::Result<()> {
/// let broker = connect("memory:").await?;
/// let client = Client::open(broker.clone()).await?;
/// client.send("orders", "order.created").json(&7).await?;
/// client.send("payments", "payment.made").json(&7).await?;
///
/// let mut entries = Consumer::new(broker).topic("orders").topic("payments").start(Start::Earliest).open().await?;
/// for _ in 0..2 {
///     if let Some(received) = entries.next().await {
///         let received = received?;
///         println!("{} at {}", received.topic, received.position);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    /// Or the first mistake, answered when it is opened.
    settings: Result<Settings>,
}

#[derive(Debug)]
struct Settings {
    broker: Arc<dyn Broker>,
    topics: Vec<Topic>,
    start: Start,
    cursor: Option<Name>,
}

/// What a consumer sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Where it came from; for a topic that is divided, the partition.
    pub topic: Topic,
    /// Where it stands there.
    pub position: Position,
    /// The message, or what else somebody wrote there.
    pub message: Result<Message, Foreign>,
}

impl Consumer {
    /// A consumer on `broker`. It needs a [`topic`](Consumer::topic).
    pub fn new(broker: Arc<dyn Broker>) -> Consumer {
        Consumer {
            settings: Ok(Settings {
                broker,
                topics: Vec::new(),
                start: Start::Latest,
                cursor: None,
            }),
        }
    }

    /// A topic to read; one or several. Each is read in order; between topics there is none.
    ///
    /// A topic that is divided into partitions, before or while it is read, is read as a whole up to where it stood when it
    /// was, and then all its partitions are. Nothing is left out; what was forwarded to a partition may come twice, with
    /// the same id.
    pub fn topic(self, topic: impl Into<ByteString>) -> Consumer {
        self.set(|settings| {
            settings.topics.push(Topic::new(topic)?);
            Ok(())
        })
    }

    /// Where to begin: with the earliest message, with what comes from now on (the default), or after a position. A cursor that
    /// has been committed goes on from there instead.
    pub fn start(self, start: Start) -> Consumer {
        self.set(|settings| {
            settings.start = start;
            Ok(())
        })
    }

    /// Goes on where the cursor of this name was [committed](Entries::commit) last, also after a restart. The name stands
    /// among the groups of the topic: its lag can be seen there, and what it has not committed is not trimmed.
    ///
    /// One consumer has a cursor at a time; others wait in [`open`](Consumer::open), and follow within five seconds when it
    /// is lost, at once when it was [closed](Entries::close).
    pub fn cursor(self, name: impl Into<ByteString>) -> Consumer {
        self.set(|settings| {
            settings.cursor = Some(Name::new(name)?);
            Ok(())
        })
    }

    /// Finds out where the topics stand, and begins there: what comes from now on is seen. With a cursor, waits until nobody else has it. Safe
    /// to cancel.
    pub async fn open(self) -> Result<Entries> {
        let opener = Arc::new(self.settings?.opener()?);
        let mut topics = Vec::with_capacity(opener.topics.len());
        for topic in &opener.topics {
            topics.push(opener.open(topic).await?);
        }
        Ok(Entries::new(topics))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings) -> Result<()>) -> Consumer {
        if let Ok(settings) = &mut self.settings
            && let Err(error) = change(settings)
        {
            self.settings = Err(error);
        }
        self
    }
}

impl Settings {
    /// Topics come each once and in order: whoever takes several cursors must not wait for one who waits for them.
    fn opener(mut self) -> Result<Opener> {
        self.topics.sort_unstable();
        self.topics.dedup();
        if self.topics.is_empty() {
            return Err(Error::invalid(
                "topic-missing",
                "a consumer needs a topic: add .topic(\"NAME\")",
            ));
        }
        let me = Name::new(format!("c-{}", message::new_id()))?;
        Ok(Opener {
            broker: self.broker,
            topics: self.topics,
            start: self.start,
            cursor: self.cursor.map(|name| (name, me)),
        })
    }
}
