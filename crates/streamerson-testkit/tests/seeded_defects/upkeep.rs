//! Upkeep, broken in one way.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{
    Append, Broker, Entry, Error, ErrorKind, Fence, Leases, Name, Pending, Position, Result, Start,
    Topic, Upkeep,
};

use crate::broker::{Broken, a_moment};
use crate::defect::Defect;

impl Broken {
    async fn pending_badly(
        &self,
        topic: &Topic,
        group: &Name,
        after: Position,
        max: usize,
    ) -> Result<Vec<Pending>> {
        let max = match self.defect {
            Defect::PendingIsUnbounded => usize::MAX,
            _ => max,
        };
        let mut pending = match self.inner.pending(topic, group, after, max).await {
            Err(error)
                if self.defect == Defect::UnknownGroupsAreEmpty
                    && error.kind() == ErrorKind::NotFound =>
            {
                Vec::new()
            }
            pending => pending?,
        };
        for pending in &mut pending {
            match self.defect {
                Defect::PendingIsTheFirstAttempt => pending.attempt = 1,
                Defect::PendingIsNeverDue => pending.due = None,
                _ => {}
            }
        }
        Ok(pending)
    }

    async fn take_badly(
        &self,
        topic: &Topic,
        position: Position,
        outputs: Vec<Append>,
    ) -> Result<bool> {
        self.shared.note_taken(position);
        match self.defect {
            Defect::EverybodyTakes => {
                self.inner.append(outputs).await;
                self.inner.take(topic, position, Vec::new()).await?;
                Ok(true)
            }
            Defect::TakingChecksTooEarly => {
                let found = self.inner.range(topic, Position::ZERO, 1000).await?;
                let is_there = found.iter().any(|entry| entry.position == position);
                a_moment().await;
                if is_there {
                    self.inner.append(outputs).await;
                    self.inner.take(topic, position, Vec::new()).await?;
                }
                Ok(is_there)
            }
            _ => self.inner.take(topic, position, outputs).await,
        }
    }
}

impl Upkeep for Broken {
    fn range<'a>(
        &'a self,
        topic: &'a Topic,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>>> {
        self.inner.range(topic, after, max)
    }

    fn pending<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Pending>>> {
        self.pending_badly(topic, group, after, max).boxed()
    }

    fn seek<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        to: Start,
        mut fence: Option<&'a Fence>,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            match self.defect {
                Defect::MovesIgnoreTheFence => fence = None,
                Defect::MovesCheckTheFenceTooEarly => {
                    // As who renews its lease first, and then moves the group.
                    if let Some(fence) = fence.take() {
                        let held = self.inner.leases(topic).await?.into_iter();
                        let mut epochs = held.map(|lease| (lease.name, lease.epoch));
                        if !epochs.any(|it| it == (fence.lease.clone(), fence.epoch)) {
                            return Err(Error::fenced("not held"));
                        }
                        if to != Start::Latest {
                            a_moment().await;
                        }
                    }
                }
                Defect::GroupsAreNotMovedBack if to != Start::Latest => return Ok(()),
                Defect::MovingForgetsWhatIsHeld => {
                    self.inner.remove_group(topic, group).await?;
                }
                _ => {}
            }
            self.inner.seek(topic, group, to, fence).await
        }
        .boxed()
    }

    fn take<'a>(
        &'a self,
        topic: &'a Topic,
        position: Position,
        outputs: Vec<Append>,
    ) -> BoxFuture<'a, Result<bool>> {
        self.take_badly(topic, position, outputs).boxed()
    }

    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        match self.defect {
            Defect::RemovedGroupsStay => std::future::ready(Ok(true)).boxed(),
            _ => self.inner.remove_group(topic, group),
        }
    }

    fn remove_topic<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<bool>> {
        async move {
            let partitions = self.inner.partitions(topic).await?;
            let removed = self.inner.remove_topic(topic).await?;
            match self.defect {
                Defect::RemovedTopicsStayDivided if partitions > 0 => {
                    self.inner.divide(topic, partitions).await?;
                }
                Defect::DeadLettersGoWithTheirTopic => {
                    self.inner.remove_topic(&topic.dead_letters()).await?;
                }
                _ => {}
            }
            Ok(removed)
        }
        .boxed()
    }

    fn remove_members<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        silent: Duration,
    ) -> BoxFuture<'a, Result<Vec<Name>>> {
        async move {
            let silent = match self.defect {
                Defect::MembersAreRemovedAtOnce => Duration::ZERO,
                _ => silent,
            };
            let mut removed = self.inner.remove_members(topic, group, silent).await?;
            if self.defect == Defect::RemovedMembersTakeTheirWork && silent.is_zero() {
                let held = self.inner.pending(topic, group, Position::ZERO, 1000);
                for pending in held.await? {
                    self.inner.take(topic, pending.position, Vec::new()).await?;
                    removed.push(pending.member);
                }
            }
            Ok(removed)
        }
        .boxed()
    }

    fn divide<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<u32>> {
        async move {
            match self.inner.divide(topic, partitions).await {
                Ok(_) if self.defect == Defect::DividingAgainCounts => Ok(partitions),
                Err(_) if self.defect == Defect::EverythingIsDivided => Ok(1),
                divided => divided,
            }
        }
        .boxed()
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<u32>> {
        self.inner.partitions(topic)
    }
}
