//! The seat of a member that was given a name: one at a time may have it.
//!
//! The broker does not depend on it: there, the name is followed by that of this start of the worker, so that one who lost the
//! seat unnoticed has nothing in common with the next. Members without a given name have a random one, and need no seat.

use streamerson_core::{Error, ErrorKind, Name, Result, Topic};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::heartbeat::Heartbeat;
use super::settings::Settings;
use crate::exclusive::{Exclusive, Taken};

/// The seat of one member in one topic.
pub(super) struct Seat {
    place: Exclusive,
    group: Name,
    member: Name,
}

impl Seat {
    /// The seat that `settings` need on `topic`, if any.
    pub(super) fn needed(settings: &Settings, topic: &Topic) -> Result<Option<Seat>> {
        let Some(member) = &settings.member else {
            return Ok(None);
        };
        let group = settings.group()?;
        let place = Exclusive {
            broker: settings.broker.clone(),
            topic: topic.clone(),
            // With the length of the group's name, so that no two groups have a seat in common.
            name: Name::new(format!("seat.{}.{group}.{member}", group.as_str().len()))?,
            holder: settings.instance.clone(),
            lease: settings.lease,
        };
        Ok(Some(Seat {
            place,
            group,
            member: member.clone(),
        }))
    }

    /// Takes the seat, and keeps it for as long as the answer lives; cancels `lost` when somebody else has it. One whose
    /// holder died becomes free within its lease; one that is renewed meanwhile is taken: [`Conflict`](ErrorKind::Conflict).
    pub(super) async fn take(
        &self,
        heartbeat: &Heartbeat,
        lost: CancellationToken,
    ) -> Result<AbortOnDropHandle<()>> {
        if let Taken::Theirs(remaining) = self.place.take().await? {
            tracing::info!(seat = %self.place.name, ?remaining, "the seat was not left in order; waiting for its end");
            tokio::time::sleep(remaining).await;
            if let Taken::Theirs(_) = self.place.take().await? {
                return Err(self.taken());
            }
        }
        Ok(heartbeat.spawn(self.place.clone().keep(lost)))
    }

    /// Leaves the seat to others, at once.
    pub(super) async fn leave(&self) {
        if let Err(error) = self.place.leave().await {
            tracing::warn!(%error, "the seat could not be left in order");
        }
    }

    pub(super) fn taken(&self) -> Error {
        Error::new(
            ErrorKind::Conflict,
            "member-taken",
            format!(
                "another worker is member {} of group {} on topic {}: give each member of a group its own name, or none",
                self.member, self.group, self.place.topic
            ),
        )
    }
}
