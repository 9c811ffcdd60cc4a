//! Members of a group, and how they settle.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use super::shared::{Look, Shared};
use crate::broker::{Delivery, Member, Membership, Settlement, Settler};
use crate::group::Group;
use crate::time::{Millis, millis};
use crate::{Name, Position, Result};

pub(super) struct MemoryMember {
    settler: Arc<MemorySettler>,
}

impl MemoryMember {
    pub(super) fn join(shared: Arc<Shared>, membership: Membership) -> Result<MemoryMember> {
        shared.with(&membership.topic, |state, now| {
            state.join(&membership, now)?;
            // What an owner has taken from others is for it, and it may wait already.
            state.changed.notify_waiters();
            Ok(())
        })?;
        let settler = Arc::new(MemorySettler { shared, membership });
        Ok(MemoryMember { settler })
    }
}

impl Member for MemoryMember {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        let MemorySettler { shared, membership } = &*self.settler;
        let look = shared.wait_for(&membership.topic, move |state, now| {
            let deliveries = state.deliver(membership, now, max.max(1))?;
            if !deliveries.is_empty() {
                return Ok(Look::Found(deliveries));
            }
            let group = &state.group(membership)?.deliveries;
            let (member, lease) = (&membership.member, millis(membership.lease));
            let alone = membership.fence.is_some();
            Ok(Look::Nothing {
                next: Some(group.next_look(member, now.monotonic, lease, alone)),
            })
        });
        look.boxed()
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.settler.clone()
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.go(Group::leave);
        std::future::ready(Ok(())).boxed()
    }
}

impl Drop for MemoryMember {
    fn drop(&mut self) {
        self.go(Group::drop_member);
    }
}

impl MemoryMember {
    fn go(&self, how: fn(&mut Group, &Name, Millis) -> bool) {
        let MemorySettler { shared, membership } = &*self.settler;
        shared.with_all(|topics, now| {
            let Some(state) = topics.existing(&membership.topic, now) else {
                return;
            };
            // Under the same name another may own the topic now, and must keep what it holds.
            if state.check_fence(membership, now).is_err() {
                return;
            }
            if let Ok(group) = state.group(membership) {
                how(&mut group.deliveries, &membership.member, now.monotonic);
                state.changed.notify_waiters();
            }
        });
    }
}

struct MemorySettler {
    shared: Arc<Shared>,
    membership: Membership,
}

impl Settler for MemorySettler {
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
        let settled = self.shared.with_all(|topics, now| {
            batch
                .into_iter()
                .map(|settlement| topics.settle(&self.membership, settlement, now))
                .collect()
        });
        std::future::ready(settled).boxed()
    }

    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>> {
        let MemorySettler { shared, membership } = self;
        let extended = shared.with(&membership.topic, |state, now| {
            state.check_fence(membership, now)?;
            let group = &mut state.group(membership)?.deliveries;
            group.extend(&membership.member, held, now.monotonic);
            Ok(())
        });
        std::future::ready(extended).boxed()
    }
}
