//! Leases: who owns what, for how long, and under which epoch.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::{Name, Result, Topic};

/// Exclusive, expiring ownership of named things that belong to a topic: a partition, the duty of its janitor, a seat.
///
/// Time is the broker's, so that holders need not agree on it. A lease that was not renewed for its time to live is free for
/// others; its epoch tells the work of the next holder from that of one that was only asleep.
pub trait Leases {
    /// Acquires the lease `name` of `topic` for `holder`, or renews it if `holder` has it: in both cases it ends `ttl` from
    /// now. Answers the lease as it stands, whoever has it.
    ///
    /// The epoch grows whenever the lease goes to a holder anew, also to the same one after a loss, and never goes back.
    fn acquire<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease>>;

    /// Gives the lease up, so that others may have it at once. `false`: `holder` did not have it.
    fn release<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
    ) -> BoxFuture<'a, Result<bool>>;

    /// The leases of `topic` that are held, by name.
    fn leases<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Lease>>>;
}

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is owned.
    pub name: Name,
    /// By whom.
    pub holder: Name,
    /// Grows with every new holder.
    pub epoch: u64,
    /// Time until it ends, unless it is renewed.
    pub remaining: Duration,
}

/// Who may act: whoever holds this lease, at this epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The name of the lease, of the same topic.
    pub lease: Name,
    /// The epoch at which it was acquired.
    pub epoch: u64,
}
