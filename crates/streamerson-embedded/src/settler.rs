//! Settlers: they end deliveries and keep their leases.

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{Name, Position, Result, Settlement, Settler};

use crate::engine::{Engine, GroupKey};

/// Settles in the name of one member.
pub(crate) struct EmbeddedSettler {
    pub(crate) engine: Engine,
    pub(crate) key: GroupKey,
    pub(crate) member: Name,
}

impl Settler for EmbeddedSettler {
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
        self.engine.settle(&self.key, &self.member, batch).boxed()
    }

    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>> {
        let extended = self.engine.with_group(&self.key, |group, now| {
            group.extend(&self.member, held, now);
        });
        std::future::ready(extended).boxed()
    }
}
