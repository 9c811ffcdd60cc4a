//! A named cursor: where a consumer stands, kept by the broker, held by one consumer at a time.
//!
//! It is the cursor of a group without members, so that it is seen, and trimming minds it. The lease that guards it is
//! renewed before every commit, so that a consumer which slept through it does not move the cursor back. That is no fence: one
//! that sleeps between the two calls may set the cursor to what it had handled itself. Then messages come again, and none is
//! left out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use streamerson_core::stats::GroupStats;
use streamerson_core::{
    Broker, Error, ErrorKind, Membership, Name, Position, Result, Start, Topic,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::opening::stats;
use crate::exclusive::Exclusive;

const LEASE: Duration = Membership::DEFAULT_LEASE;

/// A cursor of one topic, while it is ours. Who has it has those of the topic's partitions as well.
pub(super) struct Cursor {
    /// In the topic, also for its partitions.
    seat: Exclusive,
    /// The topic, or a partition of it.
    topic: Topic,
    name: Name,
    committed: Position,
    lost: CancellationToken,
    /// `None` in a partition.
    keeping: Option<AbortOnDropHandle<()>>,
}

impl Cursor {
    /// Takes the cursor, as soon as nobody else has it.
    pub(super) async fn take(
        broker: Arc<dyn Broker>,
        topic: &Topic,
        name: &Name,
        holder: &Name,
    ) -> Result<Cursor> {
        let seat = Exclusive {
            broker,
            topic: topic.clone(),
            name: Name::new(format!("cursor.{name}"))?,
            holder: holder.clone(),
            lease: LEASE,
        };
        // Its holder renews it well before, or is gone.
        while let Some(remaining) = seat.take().await? {
            tokio::time::sleep(remaining).await;
        }
        let lost = CancellationToken::new();
        let keeping = tokio::spawn(seat.clone().keep(lost.clone()));
        Ok(Cursor {
            seat,
            topic: topic.clone(),
            name: name.clone(),
            committed: Position::ZERO,
            lost,
            keeping: Some(AbortOnDropHandle::new(keeping)),
        })
    }

    /// The cursor in `topic`, which is the same one or a partition of it, for as long as this one is ours.
    pub(super) fn within(&self, topic: &Topic) -> Cursor {
        Cursor {
            seat: self.seat.clone(),
            topic: topic.clone(),
            name: self.name.clone(),
            committed: Position::ZERO,
            lost: self.lost.clone(),
            keeping: None,
        }
    }

    /// After what to go on; a new cursor begins at `start`.
    pub(super) async fn begin(&self, start: Start) -> Result<Position> {
        let group = match self.group().await? {
            Some(group) => group,
            None => {
                let broker = &self.seat.broker;
                broker.seek(&self.topic, &self.name, start, None).await?;
                self.group().await?.ok_or_else(|| self.shared())?
            }
        };
        if group.pending > 0 || !group.members.is_empty() {
            return Err(self.shared());
        }
        Ok(group.cursor.unwrap_or(Position::ZERO))
    }

    /// Whether it stands anywhere yet.
    pub(super) async fn exists(&self) -> Result<bool> {
        Ok(self.group().await?.is_some())
    }

    async fn group(&self) -> Result<Option<GroupStats>> {
        let stats = stats(&*self.seat.broker, &self.topic).await?;
        let mut groups = stats.into_iter().flat_map(|stats| stats.groups);
        Ok(groups.find(|group| group.name == self.name.as_str()))
    }

    fn shared(&self) -> Error {
        Error::new(
            ErrorKind::Conflict,
            "cursor-shared",
            format!(
                "{} is the group of workers on topic {}: give the cursor another name",
                self.name, self.topic
            ),
        )
    }

    /// Everything up to `position` is handled.
    pub(super) async fn commit(&mut self, position: Position) -> Result<()> {
        if self.lost.is_cancelled() {
            return Err(self.fenced());
        }
        if position <= self.committed {
            return Ok(());
        }
        self.confirm().await?;
        let broker = &self.seat.broker;
        broker
            .seek(&self.topic, &self.name, Start::After(position), None)
            .await?;
        self.committed = position;
        Ok(())
    }

    /// There is nothing more to read here, and everything is handled.
    pub(super) async fn finish(&mut self) -> Result<()> {
        self.confirm().await?;
        let broker = &self.seat.broker;
        broker.remove_group(&self.topic, &self.name).await.map(drop)
    }

    /// Makes sure that the cursor is still ours.
    async fn confirm(&self) -> Result<()> {
        // Once it was somebody else's, it is not taken back: it stands elsewhere then.
        if !self.lost.is_cancelled() && self.seat.acquire().await?.is_some() {
            self.lost.cancel();
        }
        match self.lost.is_cancelled() {
            true => Err(self.fenced()),
            false => Ok(()),
        }
    }

    /// Completes when the cursor is somebody else's.
    pub(super) fn lost(&self) -> impl Future<Output = Error> + Send + 'static {
        let lost = self.lost.clone();
        let error = self.fenced();
        async move {
            lost.cancelled().await;
            error
        }
    }

    fn fenced(&self) -> Error {
        Error::new(
            ErrorKind::Fenced,
            "cursor-lost",
            format!(
                "another consumer has the cursor {} of topic {}: this one was silent for too long",
                self.name, self.seat.topic
            ),
        )
    }

    /// Lets others have it, at once.
    pub(super) async fn leave(self) -> Result<()> {
        let Cursor { seat, keeping, .. } = self;
        if keeping.is_none() {
            return Ok(());
        }
        drop(keeping);
        seat.leave().await
    }
}
