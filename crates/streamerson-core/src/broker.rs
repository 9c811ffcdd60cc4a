//! The contract every backend keeps. Four traits carry messages: a [`Broker`] stores topics, a [`Reader`] sees everything
//! in one, a [`Member`] shares the work of one with its group, a [`Settler`] ends deliveries. Two more go with every broker:
//! [`Leases`] for who owns what, [`Upkeep`] for operators and janitors.
//!
//! `docs/design/broker-contract.md` shows how each operation maps to each backend; the conformance suite in
//! `streamerson-testkit` checks it. Every operation works on batches, so that the price of a call is shared.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures::future::BoxFuture;

use crate::lease::{Fence, Leases};
use crate::message::Foreign;
use crate::retention::{Retention, Trimmed};
use crate::stats::{Incidents, TopicStats};
use crate::upkeep::Upkeep;
use crate::{Durability, Message, Name, Position, Result, Start, Topic};

/// A store of topics. Cheap to share: brokers are used as `Arc<dyn Broker>`.
pub trait Broker: Leases + Upkeep + Debug + Send + Sync + 'static {
    /// What this broker is and what it promises. Read from the broker once, when it was connected.
    fn capabilities(&self) -> &Capabilities;

    /// What happened here that no answer told. A broker that nothing can happen to keeps the default.
    fn incidents(&self) -> Incidents {
        Incidents::default()
    }

    /// What the broker's wall clock says, in milliseconds since 1970: the one that deadlines are judged by, because those
    /// of the machines around it may be hours apart. A broker in this process has the clock of this process; one that wraps
    /// another has that of the other, which is why there is no default.
    fn time(&self) -> BoxFuture<'_, Result<u64>>;

    /// Appends each message to its topic, creating topics as needed, and answers positions in the order of the batch
    /// once they are stored at the broker's durability class. Messages of one batch to one topic keep their order.
    ///
    /// A failure of kind [`Unavailable`](crate::ErrorKind::Unavailable) means that this message was not stored, and
    /// [`Unknown`](crate::ErrorKind::Unknown) that it may have been. Dropping the future does not take the batch back.
    ///
    /// A message with a [due time](Append::due_at) is kept aside, and appears in its topic once that has come, by the
    /// broker's clock, as long as somebody works on the topic; its position is [`Position::ZERO`]. A message that is to be
    /// stored [once](Append::once) is answered with the position of the first one of the same key.
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>>;

    /// Reads a topic: every reader sees everything from `start` on. A topic that does not exist yet is an empty one.
    fn read<'a>(&'a self, topic: &'a Topic, start: Start)
    -> BoxFuture<'a, Result<Box<dyn Reader>>>;

    /// Joins a consumer group, creating topic and group as needed.
    fn join(&self, membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>>;

    /// Opens a private address for replies. It is bounded, and expires when nothing has used it for a while.
    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>>;

    /// The topics there are, by name; without inboxes and dead letters.
    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>>;

    /// How much a topic holds and how far its groups are. [`NotFound`](crate::ErrorKind::NotFound) if there is none.
    fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>>;

    /// Removes the oldest messages of a topic, within `retention`; never what a group has not processed, unless
    /// [`Retention::force`] says so.
    fn trim<'a>(&'a self, topic: &'a Topic, retention: Retention)
    -> BoxFuture<'a, Result<Trimmed>>;
}

/// What a broker is and what it promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Kind of broker and its version, for people: `redis 7.0.15`, `embedded`.
    pub broker: String,
    /// What an acknowledged append survives.
    pub durability: Durability,
    /// Settings of the broker that weaken the promise or endanger data, each with its remedy.
    pub warnings: Vec<String>,
}

/// A message to append, and where.
///
/// ```
/// use std::time::Duration;
/// use streamerson_core::{Append, Message, Once, Topic};
///
/// let reminder = Append::new(Topic::new("mail")?, Message::new("mail.remind", "{}"))
///     .due_at(1763900000000)
///     .once(Once::new("reminder-7", Duration::from_secs(3600)));
/// assert_eq!(reminder.due(), Some(1763900000000));
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Where it goes.
    pub topic: Topic,
    /// What is stored.
    pub message: Message,
    /// Boxed, because few messages have any.
    terms: Option<Box<Terms>>,
}

/// When, and how often, a message is to appear.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Terms {
    due: Option<u64>,
    once: Option<Once>,
}

impl Append {
    /// `message` to `topic`, now.
    pub fn new(topic: Topic, message: Message) -> Append {
        Append {
            topic,
            message,
            terms: None,
        }
    }

    /// Not before `unix_ms`, in milliseconds since 1970.
    pub fn due_at(mut self, unix_ms: u64) -> Append {
        self.terms.get_or_insert_default().due = Some(unix_ms);
        self
    }

    /// Only if nothing was appended to the topic under the same key before.
    pub fn once(mut self, once: Once) -> Append {
        self.terms.get_or_insert_default().once = Some(once);
        self
    }

    /// When it is to appear, if not now, in milliseconds since 1970.
    pub fn due(&self) -> Option<u64> {
        self.terms.as_ref()?.due
    }

    /// The key under which it is stored once.
    pub fn only_once(&self) -> Option<&Once> {
        self.terms.as_ref()?.once.as_ref()
    }

    /// Refuses terms that no broker takes.
    pub fn check(&self) -> Result<()> {
        self.only_once().map_or(Ok(()), Once::check)
    }
}

/// What is to have an effect once: everything with the same key within `keep` is the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Names the thing, for example a message id or the caller's idempotency key. 1 to 512 bytes.
    pub key: ByteString,
    /// How long the key is remembered, from the first use on.
    pub keep: Duration,
}

impl Once {
    /// The thing named `key`, remembered for `keep`.
    pub fn new(key: impl Into<ByteString>, keep: Duration) -> Once {
        Once {
            key: key.into(),
            keep,
        }
    }
}

/// An entry of a topic, as a [`Reader`] sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// The message, or what else somebody wrote there.
    pub message: Result<Message, Foreign>,
}

/// Sees everything in one topic, in order.
pub trait Reader: Send {
    /// Waits until there is something, and answers up to `max` entries (at least one).
    ///
    /// Safe to cancel: an entry is either answered or comes again with the next call. After an error the next call
    /// continues where this one stood.
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Entry>>>;
}

/// A private address for replies, and what arrives there.
pub struct Inbox {
    /// Goes into the `reply` field of requests.
    pub address: Topic,
    /// What arrives.
    pub reader: Box<dyn Reader>,
}

/// Who joins which group, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The topic to work on.
    pub topic: Topic,
    /// The group that shares it.
    pub group: Name,
    /// This member; unique within the group.
    pub member: Name,
    /// How long a delivery stays with a member that gives no sign of life.
    pub lease: Duration,
    /// Where a group that does not exist yet begins.
    pub start: Start,
    /// The lease under which this member owns the topic: an owner is alone. Who does not hold it, under this name and at
    /// this epoch, is [`Fenced`](crate::ErrorKind::Fenced) from joining, taking, settling and extending. So what others
    /// held when the owner joins can only be settled by the owner, and is for it at once, before what is new.
    pub fence: Option<Fence>,
}

impl Membership {
    /// The default time a delivery stays with a silent member.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(5);

    /// Membership of `member` with the default lease; a new group begins at the earliest message.
    pub fn new(topic: Topic, group: Name, member: Name) -> Membership {
        Membership {
            topic,
            group,
            member,
            lease: Membership::DEFAULT_LEASE,
            start: Start::Earliest,
            fence: None,
        }
    }
}

/// One member of a consumer group: it receives deliveries, each held under a lease.
///
/// Dropping a member is as if it crashed: what it held goes to others, at once where the broker can tell, otherwise
/// when the lease has run out.
pub trait Member: Send {
    /// Waits until there is work, and answers up to `max` deliveries (at least one): what others gave up first, where
    /// the broker has noticed it, then new ones. Safe to cancel: what was taken meanwhile is answered by the next call.
    ///
    /// After a failure something may have been delivered all the same, with an answer that got lost; it comes again when its
    /// lease has run out, and may come after what is newer. So a member with a [fence](Membership::fence), which may have an
    /// order to keep, is told every such failure, and finds in [`Upkeep::pending`] what it was not told.
    ///
    /// An entry that is not a message is moved to the dead letters by the broker, and not delivered.
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>>;

    /// A handle that settles this member's deliveries, and keeps their leases.
    fn settler(&self) -> Arc<dyn Settler>;

    /// Leaves the group: what is still held goes to others at once.
    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

/// Ends deliveries and keeps their leases.
pub trait Settler: Send + Sync {
    /// Settles each delivery, in one step per delivery: the acknowledgement and all outputs, or nothing.
    ///
    /// Fenced: one settlement of a delivery wins. Who comes later gets [`Fenced`](crate::ErrorKind::Fenced), and none
    /// of its outputs appear. On [`Unknown`](crate::ErrorKind::Unknown) the delivery comes again if it did not happen.
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>>;

    /// Signs of life for deliveries still held, to be sent well within the lease, also for those not begun yet.
    /// What was taken over meanwhile is left with its new holder.
    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>>;
}

/// A message held by one member of a group.
#[derive(Debug)]
pub struct Delivery {
    /// Settles this delivery.
    pub receipt: Receipt,
    /// What to work on.
    pub message: Message,
}

/// The right to settle one delivery. It cannot be copied: a delivery is settled once.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    position: Position,
    attempt: u32,
}

impl Receipt {
    /// The receipt of the `attempt`th delivery (the first is 1) of the message at `position`; for the authors of brokers.
    pub fn new(position: Position, attempt: u32) -> Receipt {
        Receipt { position, attempt }
    }

    /// Where the message stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How often the message has been delivered, this time included.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// How a delivery ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Which delivery.
    pub receipt: Receipt,
    /// How it ends.
    pub outcome: Outcome,
}

/// The end of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done. The outputs (a reply, the next stage of a pipeline, a dead letter) appear with the acknowledgement, or not at all.
    Complete {
        /// What to append, each to its topic.
        outputs: Vec<Append>,
        /// The effect this is, where it must not happen twice: of all completions in this group with the same key, the
        /// outputs of the first appear. Of a later one (the same thing was sent twice) only answers to inboxes
        /// appear, with the `meta` and `data` of the first one's answer.
        once: Option<Box<Once>>,
    },
    /// Deliver again, to any member, not before `after` has passed. Survives restarts where messages do.
    Retry {
        /// The least delay.
        after: Duration,
    },
}

impl Settlement {
    /// The work is done, and nothing follows from it.
    pub fn complete(receipt: Receipt) -> Settlement {
        Settlement::complete_with(receipt, Vec::new())
    }

    /// The work is done, and these follow from it.
    pub fn complete_with(receipt: Receipt, outputs: Vec<Append>) -> Settlement {
        Settlement {
            receipt,
            outcome: Outcome::Complete {
                outputs,
                once: None,
            },
        }
    }

    /// The same, of an effect that must not happen twice. A retry has none.
    pub fn once(mut self, effect: Once) -> Settlement {
        if let Outcome::Complete { once, .. } = &mut self.outcome {
            *once = Some(Box::new(effect));
        }
        self
    }

    /// The work is to be tried again, after a while.
    pub fn retry(receipt: Receipt, after: Duration) -> Settlement {
        Settlement {
            receipt,
            outcome: Outcome::Retry { after },
        }
    }
}
