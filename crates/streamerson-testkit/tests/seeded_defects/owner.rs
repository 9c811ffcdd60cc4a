//! Leases, broken in one way.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{Lease, Leases, Membership, Name, Result, Topic};

use crate::broker::Broken;
use crate::defect::Defect;

impl Leases for Broken {
    fn acquire<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease>> {
        let ttl = match self.defect {
            Defect::OwnershipNeverEnds => Duration::from_secs(3600),
            Defect::OwnershipEndsEarly => ttl / 10,
            Defect::LeasesOfNoTimeAreGiven => ttl.max(Duration::from_millis(1)),
            _ => ttl,
        };
        async move {
            let mut lease = self.inner.acquire(topic, name, holder, ttl).await?;
            match self.defect {
                Defect::LeasesGoToWhoAsks => lease.holder = holder.clone(),
                Defect::EpochsDoNotGrow => lease.epoch = 1,
                _ => {}
            }
            Ok(lease)
        }
        .boxed()
    }

    fn release<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            let held = self.find(topic, name).await?;
            let holder = match (self.defect, &held) {
                (Defect::AnybodyReleases, Some(lease)) => &lease.holder,
                _ => holder,
            };
            self.inner.release(topic, name, holder).await
        }
        .boxed()
    }

    fn leases<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Lease>>> {
        match self.defect {
            Defect::LeasesAreNotListed => std::future::ready(Ok(Vec::new())).boxed(),
            _ => self.inner.leases(topic),
        }
    }
}

impl Broken {
    async fn find(&self, topic: &Topic, name: &Name) -> Result<Option<Lease>> {
        let mut leases = self.inner.leases(topic).await?.into_iter();
        Ok(leases.find(|lease| lease.name == *name))
    }

    pub(crate) async fn damage_fence(&self, membership: &mut Membership) -> Result<()> {
        let Some(fence) = &mut membership.fence else {
            return Ok(());
        };
        match self.defect {
            Defect::FencesIgnoreTheEpoch => {
                if let Some(lease) = self.find(&membership.topic, &fence.lease).await? {
                    fence.epoch = lease.epoch;
                }
            }
            Defect::FencesAreIgnored => membership.fence = None,
            _ => {}
        }
        Ok(())
    }
}
