//! The client: sends messages, and requests answers within a deadline.
//!
//! One inbox per client, whatever the number of requests. Four tasks: one compares the clocks (`clock`), one sends what is queued, in batches with one
//! in flight (`sender`); one reads the answers (`inbox`); one lets deadlines pass (`replies`).

mod in_flight;
mod inbox;
mod replies;
mod request;
mod sender;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use parking_lot::Mutex;
use streamerson_core::{Append, Broker, Error, ErrorKind, Message, Position, Result, Topic};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::draft::Draft;
use crate::partitions::Partitions;
pub use in_flight::InFlight;
use in_flight::Waiting;
use replies::{Replies, closed};
pub use request::{IDEMPOTENCY_KEEP, RequestBuilder, RequestError, SendBuilder};
use sender::{Confirm, Outgoing};
pub use stats::ClientStats;

/// Messages that may be queued before senders have to wait.
const QUEUE: usize = 4096;

/// Sends messages, and requests answers. Clones share one inbox and one queue.
///
/// ```
/// use std::time::Duration;
/// use streamerson::{Client, RequestError, connect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::open(connect("memory:").await?).await?;
/// client.send("orders", "order.created").json(&serde_json::json!({ "id": 7 })).await?;
///
/// // Nobody works on this topic: the deadline passes.
/// let outcome = client.request("orders", "order.count").timeout(Duration::from_millis(10)).await;
/// assert_eq!(outcome.unwrap_err().code(), "no-reply-in-time");
/// client.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// The bounds of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Requests that may wait for their answer at the same time; more are refused as `overloaded`. 10,000 by default.
    pub max_in_flight: usize,
    /// How long [`Client::request`] waits for an answer, unless told otherwise. 10 seconds by default.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_in_flight: 10_000,
            timeout: Duration::from_secs(10),
        }
    }
}

#[derive(Debug)]
struct Shared {
    address: ByteString,
    options: Options,
    replies: Arc<Replies>,
    clock: Arc<Clock>,
    outbox: mpsc::Sender<Outgoing>,
    tasks: Mutex<Option<Tasks>>,
}

/// Dropped with the last client and the last request in flight: the sender ends by itself once its queue is empty, the others at once.
#[derive(Debug)]
struct Tasks {
    sender: JoinHandle<()>,
    stop_sending: CancellationToken,
    readers: [JoinHandle<()>; 2],
    stop_reading: DropGuard,
    _comparing: AbortOnDropHandle<()>,
}

impl Client {
    /// Opens a client: its inbox, and the tasks that serve it.
    pub async fn open(broker: Arc<dyn Broker>) -> Result<Client> {
        Client::open_with(broker, Options::default()).await
    }

    /// Opens a client with other bounds.
    pub async fn open_with(broker: Arc<dyn Broker>, options: Options) -> Result<Client> {
        let inbox = broker.inbox().await?;
        let replies = Arc::new(Replies::new(options.max_in_flight));
        let clock = Arc::new(Clock::new(broker.clone()));
        clock.ask().await;
        let (outbox, queue) = mpsc::channel(QUEUE);
        let (stop_sending, stop_reading) = (CancellationToken::new(), CancellationToken::new());
        let tasks = Tasks {
            sender: tokio::spawn(sender::run(
                Partitions::new(broker),
                replies.clone(),
                queue,
                stop_sending.clone(),
            )),
            stop_sending,
            readers: [
                tokio::spawn(inbox::run(
                    inbox.reader,
                    replies.clone(),
                    stop_reading.clone(),
                )),
                tokio::spawn(replies::run_timer(replies.clone(), stop_reading.clone())),
            ],
            stop_reading: stop_reading.drop_guard(),
            _comparing: AbortOnDropHandle::new(tokio::spawn({
                let clock = clock.clone();
                async move { clock.run().await }
            })),
        };
        let shared = Shared {
            address: inbox.address.to_byte_string(),
            options,
            replies,
            clock,
            outbox,
            tasks: Mutex::new(Some(tasks)),
        };
        Ok(Client {
            shared: Arc::new(shared),
        })
    }

    /// Where answers to this client arrive: the inbox that is its own.
    pub fn address(&self) -> &ByteString {
        &self.shared.address
    }

    /// What the broker's wall clock says, in milliseconds since 1970, as far as it is known here: deadlines travel on it, and
    /// this machine's own may be hours away from it.
    pub fn broker_unix_ms(&self) -> u64 {
        self.shared.clock.broker_unix_ms()
    }

    /// Begins a request of type `kind` to `topic`: await it for the answer.
    pub fn request(
        &self,
        topic: impl Into<ByteString>,
        kind: impl Into<ByteString>,
    ) -> RequestBuilder<'_> {
        RequestBuilder::new(self, Draft::new(topic, kind))
    }

    /// Begins a message of type `kind` to `topic`, which wants no answer: await it to send it.
    pub fn send(
        &self,
        topic: impl Into<ByteString>,
        kind: impl Into<ByteString>,
    ) -> SendBuilder<'_> {
        SendBuilder::new(self, Draft::new(topic, kind))
    }

    /// Sends `message` as it is, except for its `reply`, and waits until `deadline` for the answer; the lowest level,
    /// for gateways. The deadline in its `meta` is the caller's to set, [on the broker's clock](Client::broker_unix_ms).
    ///
    /// A failure of kind [`Unavailable`](ErrorKind::Unavailable) means that nothing was sent, and
    /// [`Unknown`](ErrorKind::Unknown) that it may be handled all the same; with code `no-reply-in-time` the deadline
    /// has passed. Safe to cancel: a request given up is not sent if it still was in the queue.
    ///
    /// The request is on its way when this returns, before the future is polled: so the future is small, and a gateway that
    /// holds thousands of them does not carry each message twice.
    pub fn dispatch(&self, topic: Topic, message: Message, deadline: Instant) -> InFlight {
        self.begin(topic, message, deadline)
            .unwrap_or_else(InFlight::refused)
    }

    /// Registers the waiter and queues the request, if there is room.
    fn begin(&self, topic: Topic, mut message: Message, deadline: Instant) -> Result<InFlight> {
        if deadline <= Instant::now() {
            return Err(Error::unavailable(
                "deadline-passed",
                "the deadline passed before the request was sent; nothing happened",
            ));
        }
        message.reply = self.shared.address.clone();
        let id = message.correlation().clone();
        let (waiter, answer) = oneshot::channel();
        let waiting = Waiting::begin(&self.shared, id.clone(), deadline, waiter)?;
        let outgoing = Outgoing {
            append: Append::new(topic, message),
            confirm: Confirm::Request(id),
        };
        match self.shared.outbox.try_send(outgoing) {
            Ok(()) => Ok(InFlight::waits(waiting, answer)),
            Err(TrySendError::Full(outgoing)) => Ok(InFlight::queues_up(waiting, answer, outgoing)),
            Err(TrySendError::Closed(_)) => Err(closed()),
        }
    }

    /// Appends `message` to `topic` as it is, together with what else is queued; answers its position once it is stored.
    ///
    /// Dropping the future does not take a queued message back.
    pub async fn append(&self, topic: Topic, message: Message) -> Result<Position> {
        self.store(Append::new(topic, message)).await
    }

    /// The same for a message with terms: one that is due later, or is to be stored once.
    pub async fn store(&self, append: Append) -> Result<Position> {
        let (waiter, stored) = oneshot::channel();
        let outgoing = Outgoing {
            append,
            confirm: Confirm::Stored(waiter),
        };
        self.shared
            .outbox
            .send(outgoing)
            .await
            .map_err(|_| closed())?;
        stored.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Unknown,
                "append-unanswered",
                "the broker did not say whether the message was stored",
            ))
        })
    }

    /// What this client and its clones have done so far.
    pub fn stats(&self) -> ClientStats {
        self.shared.replies.stats()
    }

    /// Ends the waiting of all requests of this client and its clones, for a shutdown that has no more time: each fails with an
    /// error of kind [`Unknown`](ErrorKind::Unknown), code `given-up`. Answers how many that were. New requests may begin; see
    /// [`close`](Client::close).
    pub fn give_up(&self) -> usize {
        self.shared.replies.give_up()
    }

    /// Refuses new messages, sends what is queued, waits for the answers to what is in flight, at most until their deadlines, and ends.
    ///
    /// For all clones: whoever comes later gets an error of kind [`Closed`](ErrorKind::Closed).
    pub async fn close(&self) {
        let Some(tasks) = self.shared.tasks.lock().take() else {
            return;
        };
        tasks.stop_sending.cancel();
        // A task that panicked has nothing left to wait for.
        let _ = tasks.sender.await;
        self.shared.replies.empty().await;
        drop(tasks.stop_reading);
        for reader in tasks.readers {
            let _ = reader.await;
        }
        self.shared.replies.close();
    }
}
