//! A named cursor: where a consumer stands, kept by the broker, held by one consumer at a time.
//!
//! It is the cursor of a group without members, so that it is seen, and trimming minds it. The lease that guards it does
//! not fence commits: a consumer that lost it unnoticed may set the cursor to what it had handled itself. Then messages
//! come again, and none is left out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use streamerson_core::stats::GroupStats;
use streamerson_core::{
    Broker, Error, ErrorKind, Membership, Name, Position, Result, Start, Topic,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::source::is_away;
use crate::backoff::Backoff;

const LEASE: Duration = Membership::DEFAULT_LEASE;

/// Added to the time a lease has left, so that it has ended for sure.
const MARGIN: Duration = Duration::from_millis(20);

/// A cursor of one topic, while it is ours.
pub(super) struct Cursor {
    seat: Seat,
    name: Name,
    committed: Position,
    lost: CancellationToken,
    _keeping: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Seat {
    broker: Arc<dyn Broker>,
    topic: Topic,
    lease: Name,
    holder: Name,
}

impl Cursor {
    /// Takes the cursor, as soon as nobody else has it.
    pub(super) async fn take(
        broker: Arc<dyn Broker>,
        topic: &Topic,
        name: &Name,
        holder: &Name,
    ) -> Result<Cursor> {
        let seat = Seat {
            broker,
            topic: topic.clone(),
            lease: Name::new(format!("cursor.{name}"))?,
            holder: holder.clone(),
        };
        seat.take().await?;
        let lost = CancellationToken::new();
        let keeping = tokio::spawn(seat.clone().keep(lost.clone()));
        Ok(Cursor {
            seat,
            name: name.clone(),
            committed: Position::ZERO,
            lost,
            _keeping: AbortOnDropHandle::new(keeping),
        })
    }

    /// Where to go on; a new cursor begins at `start`.
    pub(super) async fn begin(&self, start: Start) -> Result<Start> {
        let group = match self.group().await? {
            Some(group) => group,
            None => {
                let Seat { broker, topic, .. } = &self.seat;
                broker.seek(topic, &self.name, start).await?;
                self.group().await?.ok_or_else(|| self.shared())?
            }
        };
        if group.pending > 0 || !group.members.is_empty() {
            return Err(self.shared());
        }
        Ok(Start::After(group.cursor.unwrap_or(Position::ZERO)))
    }

    async fn group(&self) -> Result<Option<GroupStats>> {
        match self.seat.broker.stats(&self.seat.topic).await {
            Ok(stats) => Ok(stats
                .groups
                .into_iter()
                .find(|group| group.name == self.name.as_str())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn shared(&self) -> Error {
        Error::new(
            ErrorKind::Conflict,
            "cursor-shared",
            format!(
                "{} is the group of workers on topic {}: give the cursor another name",
                self.name, self.seat.topic
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
        let Seat { broker, topic, .. } = &self.seat;
        broker
            .seek(topic, &self.name, Start::After(position))
            .await?;
        self.committed = position;
        Ok(())
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
        let Cursor { seat, _keeping, .. } = self;
        drop(_keeping);
        seat.broker
            .release(&seat.topic, &seat.lease, &seat.holder)
            .await
            .map(drop)
    }
}

impl Seat {
    async fn take(&self) -> Result<()> {
        let mut backoff = Backoff::new();
        loop {
            match self.acquire().await {
                Ok(None) => return Ok(()),
                // Its holder renews it well before, or is gone.
                Ok(Some(remaining)) => tokio::time::sleep(remaining + MARGIN).await,
                Err(error) if is_away(&error) => {
                    tracing::warn!(lease = %self.lease, %error, "the cursor cannot be taken at the moment");
                    backoff.wait().await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn keep(self, lost: CancellationToken) {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            match self.acquire().await {
                Ok(None) => (),
                Ok(Some(_)) => return lost.cancel(),
                Err(error) => {
                    tracing::warn!(lease = %self.lease, %error, "the cursor cannot be kept at the moment");
                }
            }
        }
    }

    /// `None`: it is ours. Otherwise how long it is somebody else's at least.
    async fn acquire(&self) -> Result<Option<Duration>> {
        let lease = self
            .broker
            .acquire(&self.topic, &self.lease, &self.holder, LEASE)
            .await?;
        Ok((lease.holder != self.holder).then_some(lease.remaining))
    }
}
