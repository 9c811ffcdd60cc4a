//! Settlers: they end deliveries and keep their leases.

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::group::Grant;
use streamerson_core::lease::Fence;
use streamerson_core::{Name, Position, Result, Settlement, Settler, Start};

use crate::engine::{Engine, GroupKey, Loading, Want};

/// Settles in the name of one member.
pub(crate) struct EmbeddedSettler {
    pub(crate) engine: Engine,
    pub(crate) key: GroupKey,
    pub(crate) member: Name,
    /// The lease under which the member owns the topic.
    pub(crate) fence: Option<Fence>,
}

impl EmbeddedSettler {
    /// What the member works on next.
    pub(crate) fn grant(&self, want: Want, max: usize) -> Result<Loading<Grant>> {
        let fence = self.fence.as_ref();
        self.engine
            .grant_fenced(&self.key, &self.member, fence, want, max)
    }

    /// The group was removed under this member: begins it again where all was settled.
    pub(crate) async fn begin_again(&self) -> Result<()> {
        let EmbeddedSettler {
            engine,
            key,
            member,
            fence,
        } = self;
        engine.begin_group(key, Start::Earliest, true).await?;
        engine.join(key, member, fence.as_ref()).map(drop)
    }
}

impl Settler for EmbeddedSettler {
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
        let fence = self.fence.as_ref();
        self.engine
            .settle_fenced(&self.key, &self.member, fence, batch)
            .boxed()
    }

    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>> {
        let fence = self.fence.as_ref();
        let extended = self
            .engine
            .check_fence(&self.key.topic, &self.member, fence)
            .and_then(|()| {
                self.engine.with_group(&self.key, |group, now| {
                    group.extend(&self.member, held, now);
                })
            });
        std::future::ready(extended).boxed()
    }
}
