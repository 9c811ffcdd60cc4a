//! Forwards what was sent to a divided topic as a whole: by producers that do not know partitions, or did not yet.
//!
//! One member of all groups does it, under a lease, and in the order of keys: a message and its acknowledgement move in one
//! step, so that it arrives once.

use std::sync::Arc;
use std::time::Duration;

use streamerson_core::lanes::Lanes;
use streamerson_core::{
    Append, Broker, Delivery, Error, ErrorKind, Fence, Member, Membership, Message, Name, Position,
    Receipt, Result, Settlement, Settler, Start, Topic, partition,
};

use crate::backoff::Backoff;

/// The most messages moved at a time.
const BATCH: usize = 256;

/// Forwards for as long as it runs, whenever nobody else does.
pub(super) async fn run(
    broker: Arc<dyn Broker>,
    topic: Topic,
    me: Name,
    partitions: u32,
    lease: Duration,
) {
    let Ok(name) = Name::new(partition::FORWARDER) else {
        return;
    };
    let forwarder = Forwarder {
        broker,
        topic,
        me,
        name,
        partitions,
        lease,
    };
    let mut backoff = Backoff::new();
    loop {
        match forwarder.once().await {
            Ok(wait) => {
                backoff.reset();
                tokio::time::sleep(wait).await;
            }
            Err(error) => {
                tracing::warn!(topic = %forwarder.topic, %error, "what is sent to the topic as a whole cannot be forwarded at the moment");
                backoff.wait().await;
            }
        }
    }
}

/// Gives the lease up, so that others may forward at once.
pub(super) async fn give_up(broker: &dyn Broker, topic: &Topic, me: &Name) -> Result<()> {
    broker
        .release(topic, &Name::new(partition::FORWARDER)?, me)
        .await
        .map(drop)
}

struct Forwarder {
    broker: Arc<dyn Broker>,
    topic: Topic,
    me: Name,
    name: Name,
    partitions: u32,
    lease: Duration,
}

impl Forwarder {
    /// Forwards until the lease is lost. Answers how long somebody else has it, if somebody does.
    async fn once(&self) -> Result<Duration> {
        let held = self.acquire().await?;
        if held.holder != self.me {
            return Ok(held.remaining.min(self.lease / 2) + Duration::from_millis(1));
        }
        let membership = Membership {
            lease: self.lease,
            start: self.start().await?,
            fence: Some(Fence {
                lease: self.name.clone(),
                epoch: held.epoch,
            }),
            ..Membership::new(self.topic.clone(), self.name.clone(), self.me.clone())
        };
        let mut member = self.broker.join(membership).await?;
        let settler = member.settler();
        tokio::select! {
            lost = self.keep(held.epoch) => Err(lost),
            failed = self.forward(&mut *member, &*settler) => Err(failed),
        }
    }

    async fn acquire(&self) -> Result<streamerson_core::Lease> {
        self.broker
            .acquire(&self.topic, &self.name, &self.me, self.lease)
            .await
    }

    /// Renews the lease for as long as it can be. The broker fences a stale holder, so that this one need not hurry.
    async fn keep(&self, epoch: u64) -> Error {
        loop {
            tokio::time::sleep(self.lease / 3).await;
            match self.acquire().await {
                Ok(lease) if lease.holder == self.me && lease.epoch == epoch => (),
                Ok(_) => return Error::fenced("another member forwards now"),
                Err(error) => {
                    tracing::debug!(topic = %self.topic, %error, "the lease cannot be renewed at the moment")
                }
            }
        }
    }

    /// Where to begin, if nothing was forwarded yet: behind what every group has processed that worked on the topic before it
    /// was divided.
    async fn start(&self) -> Result<Start> {
        let stats = match self.broker.stats(&self.topic).await {
            Ok(stats) => stats,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Start::Earliest),
            Err(error) => return Err(error),
        };
        let processed = stats.groups.iter().map(|group| match group.oldest_pending {
            Some(oldest) => super::takeover::before(oldest),
            None => group.cursor.unwrap_or(Position::ZERO),
        });
        Ok(processed.min().map_or(Start::Earliest, Start::After))
    }

    async fn forward(&self, member: &mut dyn Member, settler: &dyn Settler) -> Error {
        loop {
            let moved = match member.next(BATCH).await {
                Ok(deliveries) => self.pass_on(deliveries, settler).await,
                Err(error) => Err(error),
            };
            if let Err(error) = moved {
                return error;
            }
        }
    }

    /// Moves all of `deliveries`: of each key one at a time, so that a failure in between does not change their order.
    async fn pass_on(&self, deliveries: Vec<Delivery>, settler: &dyn Settler) -> Result<()> {
        let mut lanes = Lanes::new(usize::MAX, usize::MAX);
        for delivery in deliveries {
            let key = partition::key(&delivery.message);
            lanes.add(delivery.receipt.position(), key, 0, delivery);
        }
        let mut backoff = Backoff::new();
        let mut moving: Vec<(Position, u32, Message)> = Vec::new();
        loop {
            while let Some((position, delivery)) = lanes.start() {
                moving.push((position, delivery.receipt.attempt(), delivery.message));
            }
            if moving.is_empty() {
                return Ok(());
            }
            let settlements: Result<Vec<Settlement>> =
                moving.iter().map(|moved| self.settlement(moved)).collect();
            let results = settler.settle(settlements?).await;
            let mut again = Vec::new();
            for (moved, result) in moving.drain(..).zip(results) {
                match result.map_err(|error| (error.kind(), error)) {
                    Err((ErrorKind::Unavailable | ErrorKind::Unknown, _)) => again.push(moved),
                    // It was moved before, or somebody else moves it now.
                    Ok(()) | Err((ErrorKind::Fenced, _)) => lanes.settled(moved.0),
                    Err((_, error)) => return Err(error),
                }
            }
            moving = again;
            if !moving.is_empty() {
                backoff.wait().await;
            }
        }
    }

    fn settlement(
        &self,
        (position, attempt, message): &(Position, u32, Message),
    ) -> Result<Settlement> {
        let number = partition::of(&partition::key(message), self.partitions);
        let output = Append::new(partition::topic(&self.topic, number)?, message.clone());
        let receipt = Receipt::new(*position, *attempt);
        Ok(Settlement::complete_with(receipt, vec![output]))
    }
}
