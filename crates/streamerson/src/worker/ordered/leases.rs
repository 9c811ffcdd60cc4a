//! The leases behind an ordered topic: of seats, by which members know of each other, and of partitions.

use std::sync::Arc;
use std::time::Duration;

use streamerson_core::time::millis;
use streamerson_core::{Broker, Error, Fence, Lease, Membership, Name, Result, Topic, partition};

use super::forward;
use crate::worker::settings::Settings;

/// One member's access to the leases of one topic.
pub(super) struct OwnerLeases {
    broker: Arc<dyn Broker>,
    topic: Topic,
    group: Name,
    me: Name,
    /// How the names of seats begin. With the length of the group's name, so that no two groups have a seat in common.
    seats: String,
    seat: Name,
    owner: Name,
    ttl: Duration,
}

impl OwnerLeases {
    pub(super) fn new(settings: &Settings, topic: &Topic) -> Result<OwnerLeases> {
        let group = settings.group()?;
        let instance = &settings.instance;
        let me = match &settings.member {
            // Two processes that were given the same name must not own the same partition.
            Some(member) => Name::new(format!("{member}.{instance}"))?,
            None => instance.clone(),
        };
        let seats = format!("share.{}.{group}.", group.as_str().len());
        Ok(OwnerLeases {
            broker: settings.broker.clone(),
            topic: topic.clone(),
            seat: Name::new(format!("{seats}{me}"))?,
            owner: Name::new(format!("owner.{group}"))?,
            group,
            me,
            seats,
            ttl: settings.lease,
        })
    }

    /// The name of this member, which nobody else has.
    pub(super) fn me(&self) -> &Name {
        &self.me
    }

    /// Who has a seat, with what remains of its time; the one of this member is taken or renewed first if it is to be.
    pub(super) async fn seats(&self, renew: bool) -> Result<Vec<(Name, u64)>> {
        let looking = async {
            if renew {
                self.broker
                    .acquire(&self.topic, &self.seat, &self.me, self.ttl)
                    .await?;
            }
            self.broker.leases(&self.topic).await
        };
        let leases = self.within(looking).await?;
        let seats = leases.into_iter().filter(|lease| self.is_seat(lease));
        Ok(seats
            .map(|lease| (lease.holder, millis(lease.remaining)))
            .collect())
    }

    fn is_seat(&self, lease: &Lease) -> bool {
        let member = lease.name.as_str().strip_prefix(&self.seats);
        member == Some(lease.holder.as_str())
    }

    pub(super) async fn leave(&self) -> Result<bool> {
        self.within(self.broker.release(&self.topic, &self.seat, &self.me))
            .await
    }

    /// Acquires or renews the lease of `partition`.
    pub(super) async fn acquire(&self, partition: u32) -> Result<Lease> {
        let topic = partition::topic(&self.topic, partition)?;
        self.within(self.broker.acquire(&topic, &self.owner, &self.me, self.ttl))
            .await
    }

    pub(super) async fn release(&self, partition: u32) -> Result<bool> {
        let topic = partition::topic(&self.topic, partition)?;
        self.within(self.broker.release(&topic, &self.owner, &self.me))
            .await
    }

    /// Gives up what the owner of the first partition does for the topic as a whole.
    pub(super) async fn stop_forwarding(&self) -> Result<()> {
        self.within(forward::give_up(&*self.broker, &self.topic, &self.me))
            .await
    }

    /// The membership of the owner of `partition`.
    pub(super) fn membership(
        &self,
        settings: &Settings,
        partition: u32,
        epoch: u64,
    ) -> Result<Membership> {
        Ok(Membership {
            lease: self.ttl,
            start: settings.start,
            fence: Some(Fence {
                lease: self.owner.clone(),
                epoch,
            }),
            ..Membership::new(
                partition::topic(&self.topic, partition)?,
                self.group.clone(),
                self.me.clone(),
            )
        })
    }

    /// Waits for an answer, but not so long that leases run out meanwhile.
    async fn within<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let bound = self.ttl / 5;
        let answer = tokio::time::timeout(bound, answer).await;
        answer.unwrap_or_else(|_| {
            let detail = format!("the broker did not answer within {bound:?}");
            Err(Error::unknown("broker-unanswered", detail))
        })
    }
}
