//! What operators and janitors do: look into groups, move them, and remove what is dead.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::lease::Fence;
use crate::{Append, Entry, Name, Position, Result, Start, Topic};

/// The upkeep of topics and groups.
pub trait Upkeep {
    /// What stands in a topic after a position, up to `max` entries, in order; none at its end, and none in a topic that
    /// does not exist. Unlike a [`Reader`](crate::Reader), it does not wait: for looking at what there is, page by page.
    fn range<'a>(
        &'a self,
        topic: &'a Topic,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>>>;

    /// What is delivered and not settled in a group, after a position, up to `max`, in order. A group that does not
    /// exist is [`NotFound`](crate::ErrorKind::NotFound), code `group-not-found`.
    fn pending<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Pending>>>;

    /// Lets a group go on elsewhere, backwards too; creates it, and its topic, if needed. What is pending up to there stays so.
    /// What comes again comes as if for the first time: it is taken from who holds it, and their settlements of it are
    /// [`Fenced`](crate::ErrorKind::Fenced).
    ///
    /// With a `fence` only while that lease is held at that epoch, which is looked up in the same step: otherwise it is
    /// [`Fenced`](crate::ErrorKind::Fenced), and nothing happened. So who may have been taken for dead cannot undo what its
    /// successor did.
    fn seek<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        to: Start,
        fence: Option<&'a Fence>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Takes one entry out of a topic, and appends `outputs` in the same step. `false`: it is not there, and nothing
    /// happened. So what moves an entry moves it once, however often it is tried; and a delivery of it that is not settled
    /// yet cannot be any more: [`Fenced`](crate::ErrorKind::Fenced).
    fn take<'a>(
        &'a self,
        topic: &'a Topic,
        position: Position,
        outputs: Vec<Append>,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Removes a group and forgets what it held. `false`: there was none. Members that are left in it are told
    /// [`NotFound`](crate::ErrorKind::NotFound), or create it again where they know that all is settled.
    fn remove_group<'a>(&'a self, topic: &'a Topic, group: &'a Name)
    -> BoxFuture<'a, Result<bool>>;

    /// Removes a topic: its entries, groups, scheduled messages, leases and remembered keys; its dead letters stay. `false`:
    /// there was none.
    fn remove_topic<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<bool>>;

    /// Removes the members of a group that gave no sign of life for `silent` and hold nothing; never one that holds
    /// something. Answers who went; one that lives after all is listed again with its next delivery. A group that does
    /// not exist is [`NotFound`](crate::ErrorKind::NotFound), code `group-not-found`.
    fn remove_members<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        silent: Duration,
    ) -> BoxFuture<'a, Result<Vec<Name>>>;

    /// Divides a topic into `partitions` (1 to [`MOST`](crate::partition::MOST)), if it is not divided yet; answers into
    /// how many it is.
    ///
    /// The partitions of `orders` are the topics `orders.0`, `orders.1` and so on; see [`crate::partition`].
    fn divide<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<u32>>;

    /// Into how many partitions a topic is divided; 0: it is not.
    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<u32>>;
}

/// A message delivered and not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Where it stands.
    pub position: Position,
    /// Who holds it, or gave it back last.
    pub member: Name,
    /// Time since the last sign of life for it.
    pub idle: Duration,
    /// How often it was delivered.
    pub attempt: u32,
    /// Given back, to be delivered again after this time; `None`: somebody works on it, or died.
    pub due: Option<Duration>,
}
