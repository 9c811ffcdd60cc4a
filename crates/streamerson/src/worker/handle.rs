//! A handle on a worker at work: topics come and go while it serves.

use bytestring::ByteString;
use streamerson_core::{Error, Result, Topic};
use tokio::sync::{mpsc, oneshot};

use super::settings::WorkTopic;

/// Commands that may wait for the worker.
const QUEUE: usize = 16;

/// Adds and removes topics of a worker that serves. Cheap to clone.
///
/// ```
/// use streamerson::{Router, Worker, connect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson::Result<()> {
/// let worker = Worker::new(connect("memory:").await?).group("tenants");
/// let handle = worker.handle();
/// tokio::spawn(worker.serve(Router::new()).into_future());
///
/// handle.add_topic("tenant-7").await?;
/// assert!(handle.remove_topic("tenant-7").await?);
/// assert!(!handle.remove_topic("tenant-7").await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    commands: mpsc::Sender<Command>,
}

/// What a worker is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Add {
        work: WorkTopic,
        done: oneshot::Sender<Result<()>>,
    },
    Remove {
        topic: Topic,
        done: oneshot::Sender<Result<bool>>,
    },
}

pub(super) fn channel() -> (WorkerHandle, mpsc::Receiver<Command>) {
    let (commands, asked) = mpsc::channel(QUEUE);
    (WorkerHandle { commands }, asked)
}

impl WorkerHandle {
    /// Has the worker work on one more topic, and waits until it has joined its group there. A topic it works on already
    /// is fine; one that it works on in order is refused as `topic-twice`. One that is being removed is
    /// [`Conflict`](crate::core::ErrorKind::Conflict): wait for its removal.
    ///
    /// Waits for the worker to serve. Dropping the future does not take the topic back.
    pub async fn add_topic(&self, topic: impl Into<ByteString>) -> Result<()> {
        self.add(topic.into(), None).await
    }

    /// Has the worker work on one more topic in order, and waits until it is divided: into `partitions`, if it is not divided
    /// yet, see [`Worker::ordered_topic`](crate::Worker::ordered_topic). The worker gets its share of the partitions after that, as the
    /// others hand them over. A topic it works on in order already is fine; one that it works on otherwise is refused as
    /// `topic-twice`, and one that is being removed is [`Conflict`](crate::core::ErrorKind::Conflict).
    ///
    /// Waits for the worker to serve. Dropping the future does not take the topic back.
    pub async fn add_ordered_topic(
        &self,
        topic: impl Into<ByteString>,
        partitions: u32,
    ) -> Result<()> {
        self.add(topic.into(), Some(partitions)).await
    }

    /// Has the worker stop working on a topic: it reads no more, lets handlers end (within [`Worker::drain`](crate::Worker::drain)),
    /// settles and leaves the group; then this answers. The partitions of an ordered topic are handed over to other members.
    /// `false`: it did not work on it.
    ///
    /// Waits for the worker to serve. Dropping the future does not stop the removal.
    pub async fn remove_topic(&self, topic: impl Into<ByteString>) -> Result<bool> {
        let topic = Topic::new(topic)?;
        self.ask(|done| Command::Remove { topic, done }).await
    }

    async fn add(&self, topic: ByteString, partitions: Option<u32>) -> Result<()> {
        let topic = Topic::new(topic)?;
        let work = WorkTopic { topic, partitions };
        self.ask(|done| Command::Add { work, done }).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (done, answer) = oneshot::channel();
        self.commands
            .send(command(done))
            .await
            .map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

pub(super) fn ended() -> Error {
    Error::closed("the worker has ended")
}
