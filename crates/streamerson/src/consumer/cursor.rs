//! A named cursor: where a consumer stands, kept by the broker, held by one consumer at a time.
//!
//! It is the cursor of a group without members, so that it is seen, and trimming minds it. It is moved under the fence of a
//! lease: a consumer that slept through that, wherever it was, moves nothing back. A fence must be of the topic whose group is
//! moved, so each partition has a lease of its own; that of the topic as a whole lets one consumer come to them at a time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamerson_core::stats::GroupStats;
use streamerson_core::{
    Broker, Error, ErrorKind, Fence, Membership, Name, Position, Result, Start, Topic,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::opening::stats;
use crate::exclusive::{Exclusive, Taken};

const LEASE: Duration = Membership::DEFAULT_LEASE;

/// Takes a cursor: in a topic, and in its partitions.
#[derive(Clone)]
pub(super) struct Claim {
    broker: Arc<dyn Broker>,
    /// As a whole.
    topic: Topic,
    name: Name,
    holder: Name,
    /// Whoever lost it somewhere goes on nowhere: the next one would wait for what is left.
    lost: CancellationToken,
    /// What was taken, the topic as a whole first.
    taken: Arc<Mutex<Vec<Exclusive>>>,
}

/// A cursor of one topic or partition, while it is ours.
pub(super) struct Cursor {
    claim: Claim,
    seat: Exclusive,
    /// Nobody else has moved it since then.
    epoch: u64,
    committed: Position,
    _keeping: AbortOnDropHandle<()>,
}

impl Claim {
    pub(super) fn new(broker: Arc<dyn Broker>, topic: Topic, name: Name, holder: Name) -> Claim {
        Claim {
            broker,
            topic,
            name,
            holder,
            lost: CancellationToken::new(),
            taken: Arc::default(),
        }
    }

    /// Takes the cursor in `topic`, which is the claim's or a partition of it, as soon as nobody else has it.
    pub(super) async fn take(&self, topic: &Topic) -> Result<Cursor> {
        let seat = Exclusive {
            broker: self.broker.clone(),
            topic: topic.clone(),
            name: Name::new(format!("cursor.{}", self.name))?,
            holder: self.holder.clone(),
            lease: LEASE,
        };
        let epoch = loop {
            match seat.take().await? {
                Taken::Ours(epoch) => break epoch,
                // Its holder renews it well before, or is gone.
                Taken::Theirs(remaining) => tokio::time::sleep(remaining).await,
            }
        };
        self.taken.lock().push(seat.clone());
        let (keep, lost) = (seat.clone().keep(self.lost.clone()), self.lost.clone());
        let keeping = tokio::spawn(async move {
            lost.run_until_cancelled(keep).await;
        });
        Ok(Cursor {
            claim: self.clone(),
            seat,
            epoch,
            committed: Position::ZERO,
            _keeping: AbortOnDropHandle::new(keeping),
        })
    }

    /// Whether it stands anywhere yet in `topic`.
    pub(super) async fn exists(&self, topic: &Topic) -> Result<bool> {
        Ok(self.group(topic).await?.is_some())
    }

    async fn group(&self, topic: &Topic) -> Result<Option<GroupStats>> {
        let stats = stats(&*self.broker, topic).await?;
        let mut groups = stats.into_iter().flat_map(|stats| stats.groups);
        Ok(groups.find(|group| group.name == self.name.as_str()))
    }

    fn lose(&self) -> Error {
        self.lost.cancel();
        self.fenced()
    }

    fn fenced(&self) -> Error {
        Error::new(
            ErrorKind::Fenced,
            "cursor-lost",
            format!(
                "another consumer has the cursor {} of topic {}, or had it: this one was silent for too long",
                self.name, self.topic
            ),
        )
    }
}

impl Cursor {
    /// After what to go on; a new cursor begins at `start`.
    pub(super) async fn begin(&mut self, start: Start) -> Result<Position> {
        let topic = &self.seat.topic;
        let group = match self.claim.group(topic).await? {
            Some(group) => group,
            None => {
                // One that slept here must not pass over what its successor has not come to.
                self.seek(start).await?;
                let group = self.claim.group(topic).await?;
                group.ok_or_else(|| self.shared())?
            }
        };
        if group.pending > 0 || !group.members.is_empty() {
            return Err(self.shared());
        }
        self.committed = group.cursor.unwrap_or(Position::ZERO);
        Ok(self.committed)
    }

    fn shared(&self) -> Error {
        Error::new(
            ErrorKind::Conflict,
            "cursor-shared",
            format!(
                "{} is the group of workers on topic {}: give the cursor another name",
                self.claim.name, self.seat.topic
            ),
        )
    }

    /// Everything up to `position` is handled.
    pub(super) async fn commit(&mut self, position: Position) -> Result<()> {
        if self.claim.lost.is_cancelled() {
            return Err(self.claim.fenced());
        }
        if position <= self.committed {
            return Ok(());
        }
        let to = Start::After(position);
        match self.seek(to).await {
            Err(error) if error.kind() == ErrorKind::Fenced => {
                self.confirm(position).await?;
                self.seek(to).await?;
            }
            moved => moved?,
        }
        self.committed = position;
        Ok(())
    }

    /// There is nothing more to read here, and everything is handled.
    pub(super) async fn finish(&mut self) -> Result<()> {
        // Needs no fence: everything up to the end is committed, and whoever follows finds the cursors of the partitions.
        self.confirm(self.committed).await?;
        let removed = self
            .claim
            .broker
            .remove_group(&self.seat.topic, &self.claim.name);
        removed.await.map(drop)
    }

    /// Moves it, while it is ours.
    async fn seek(&self, to: Start) -> Result<()> {
        let fence = Fence {
            lease: self.seat.name.clone(),
            epoch: self.epoch,
        };
        let broker = &self.claim.broker;
        let moved = broker.seek(&self.seat.topic, &self.claim.name, to, Some(&fence));
        moved.await.map_err(|error| match error.kind() {
            ErrorKind::Fenced => self.claim.fenced(),
            _ => error,
        })
    }

    /// Makes sure that it is still ours. The lease may have run out, or the broker have lost it, and nobody may have noticed:
    /// then it is taken again, unless the cursor has moved beyond `handled`, so that committing that would move it back.
    async fn confirm(&mut self, handled: Position) -> Result<()> {
        if self.claim.lost.is_cancelled() {
            return Err(self.claim.fenced());
        }
        let Taken::Ours(epoch) = self.seat.acquire().await? else {
            return Err(self.claim.lose());
        };
        if epoch != self.epoch {
            // From now on nobody else moves it: who could is fenced by the epoch.
            let group = self.claim.group(&self.seat.topic).await?;
            let stands = group.and_then(|group| group.cursor);
            if stands.is_some_and(|stands| stands > handled) {
                return Err(self.claim.lose());
            }
            self.epoch = epoch;
        }
        Ok(())
    }

    /// Completes when the cursor is somebody else's.
    pub(super) fn lost(&self) -> impl Future<Output = Error> + Send + 'static {
        let lost = self.claim.lost.clone();
        let error = self.claim.fenced();
        async move {
            lost.cancelled().await;
            error
        }
    }

    /// Lets others have it everywhere, at once: in the topic, and in partitions that were not read yet, too.
    pub(super) async fn leave(self) -> Result<()> {
        // Nothing is kept from now on.
        self.claim.lost.cancel();
        let taken = std::mem::take(&mut *self.claim.taken.lock());
        // The topic as a whole last: by it others come to the partitions.
        for seat in taken.into_iter().rev() {
            seat.leave().await?;
        }
        Ok(())
    }
}
