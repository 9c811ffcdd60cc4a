//! The seat of a member that was given a name: one at a time may have it.
//!
//! The broker does not depend on it: there, the name is followed by that of this start of the worker, so that one who lost the
//! seat unnoticed has nothing in common with the next. Members without a given name have a random one, and need no seat.

use std::sync::Arc;
use std::time::Duration;

use streamerson_core::{Broker, Error, ErrorKind, Name, Result, Topic};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::heartbeat::Heartbeat;
use super::settings::Settings;
use crate::backoff::Backoff;

/// Added to the time a lease has left, so that it has ended for sure.
const MARGIN: Duration = Duration::from_millis(20);

/// What the lease of a seat is for.
#[derive(Clone)]
pub(super) struct Seat {
    broker: Arc<dyn Broker>,
    topic: Topic,
    name: Name,
    holder: Name,
    lease: Duration,
}

impl Seat {
    /// The seat that `settings` need on `topic`, if any.
    pub(super) fn needed(settings: &Settings, topic: &Topic) -> Result<Option<Seat>> {
        let Some(member) = &settings.member else {
            return Ok(None);
        };
        let group = settings.group()?;
        Ok(Some(Seat {
            broker: settings.broker.clone(),
            topic: topic.clone(),
            // With the length of the group's name, so that no two groups have a seat in common.
            name: Name::new(format!("seat.{}.{group}.{member}", group.as_str().len()))?,
            holder: settings.instance.clone(),
            lease: settings.lease,
        }))
    }

    /// Takes the seat, and keeps it for as long as the answer lives; cancels `lost` when somebody else has it. One whose
    /// holder died becomes free within its lease; one that is renewed meanwhile is taken: [`Conflict`](ErrorKind::Conflict).
    pub(super) async fn take(
        &self,
        heartbeat: &Heartbeat,
        lost: CancellationToken,
    ) -> Result<AbortOnDropHandle<()>> {
        let mut backoff = Backoff::new();
        let mut waited = false;
        loop {
            match self.acquire().await {
                Ok(None) => return Ok(heartbeat.spawn(self.clone().keep(lost))),
                Ok(Some(_)) if waited => return Err(self.taken()),
                Ok(Some(remaining)) => {
                    tracing::info!(seat = %self.name, ?remaining, "the seat was not left in order; waiting for its end");
                    waited = true;
                    tokio::time::sleep(remaining + MARGIN).await;
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) =>
                {
                    tracing::warn!(%error, "the seat cannot be taken at the moment");
                    backoff.wait().await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn keep(self, lost: CancellationToken) {
        loop {
            tokio::time::sleep(self.lease / 3).await;
            match self.acquire().await {
                Ok(None) => (),
                Ok(Some(_)) => return lost.cancel(),
                Err(error) => tracing::warn!(%error, "the seat cannot be kept at the moment"),
            }
        }
    }

    /// Leaves the seat to others, at once.
    pub(super) async fn leave(&self) {
        let release = self.broker.release(&self.topic, &self.name, &self.holder);
        if let Err(error) = release.await {
            tracing::warn!(%error, "the seat could not be left in order");
        }
    }

    pub(super) fn taken(&self) -> Error {
        Error::new(
            ErrorKind::Conflict,
            "member-taken",
            format!(
                "another worker sits on {} of topic {}: give each member of a group its own name, or none",
                self.name, self.topic
            ),
        )
    }

    /// `None`: it is ours. Otherwise how long it is somebody else's at least.
    async fn acquire(&self) -> Result<Option<Duration>> {
        let lease = self
            .broker
            .acquire(&self.topic, &self.name, &self.holder, self.lease)
            .await?;
        Ok((lease.holder != self.holder).then_some(lease.remaining))
    }
}
