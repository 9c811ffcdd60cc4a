//! Members of consumer groups: they wait for work, and give back what they hold when they go.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::group::{Grant, Group};
use streamerson_core::meta::DeadLetter;
use streamerson_core::time::{Millis, unix_ms};
use streamerson_core::{
    Append, Delivery, ErrorKind, Member, Membership, Name, Receipt, Result, Settlement, Settler,
    dead_letter,
};
use tokio::sync::Notify;

use crate::engine::{Body, Engine, GroupKey, Loading, Want};
use crate::settler::EmbeddedSettler;

/// Deliveries taken in one go, whatever is asked for.
const MOST: usize = 10_000;

type Pending = BoxFuture<'static, Result<Vec<Delivery>>>;

type Works = Vec<(Grant, Option<Body>)>;

/// A member of a group.
pub(crate) struct EmbeddedMember {
    settler: Arc<EmbeddedSettler>,
    changed: Arc<Notify>,
    lease: Millis,
    /// Deliveries that are being read from the log or set aside; kept here so that cancelling loses nothing.
    loading: Option<Pending>,
}

impl EmbeddedMember {
    /// Joins a group that exists.
    pub(crate) fn join(
        engine: Engine,
        key: GroupKey,
        membership: Membership,
    ) -> Result<EmbeddedMember> {
        let Membership {
            member,
            lease,
            fence,
            ..
        } = membership;
        engine.join(&key, &member, fence.as_ref())?;
        Ok(EmbeddedMember {
            changed: engine.changed(&key.topic),
            settler: Arc::new(EmbeddedSettler {
                engine,
                key,
                member,
                fence,
            }),
            lease: Millis::try_from(lease.as_millis()).unwrap_or(Millis::MAX),
            loading: None,
        })
    }

    fn take(&self, max: usize) -> Result<Loading<Grant>> {
        let lease = self.lease;
        let want = match self.settler.fence {
            Some(_) => Want::Owned { lease },
            None => Want::Any { lease },
        };
        self.settler.grant(want, max)
    }
}

impl Member for EmbeddedMember {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        let max = max.clamp(1, MOST);
        async move {
            loop {
                if let Some(loading) = &mut self.loading {
                    let loaded = loading.await;
                    self.loading = None;
                    match loaded {
                        Ok(deliveries) if deliveries.is_empty() => {}
                        loaded => return loaded,
                    }
                }
                let changed = self.changed.clone();
                let notified = changed.notified();
                tokio::pin!(notified);
                // Registered before looking, so that an append in between is not missed.
                notified.as_mut().enable();
                let granted = match self.take(max) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        self.settler.begin_again().await?;
                        continue;
                    }
                    granted => granted?,
                };
                if granted.is_empty() {
                    wait(&self.settler, self.lease, notified).await;
                    continue;
                }
                let settler = self.settler.clone();
                if !granted.is_here() || has_repeats(&granted) {
                    self.loading = Some(load(settler, granted).boxed());
                    continue;
                }
                match deliveries(granted.here(usize::MAX)) {
                    (deliveries, odd) if odd.is_empty() => return Ok(deliveries),
                    (deliveries, odd) => {
                        self.loading = Some(set_aside(settler, deliveries, odd).boxed());
                    }
                }
            }
        }
        .boxed()
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.settler.clone()
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.go(Group::leave);
        std::future::ready(Ok(())).boxed()
    }
}

impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        self.go(Group::drop_member);
    }
}

impl EmbeddedMember {
    fn go(&self, how: fn(&mut Group, &Name, Millis) -> bool) {
        let EmbeddedSettler {
            engine,
            key,
            member,
            fence,
        } = &*self.settler;
        // Under the same name another may own the topic now, and must keep what it holds.
        if engine
            .check_fence(&key.topic, member, fence.as_ref())
            .is_err()
        {
            return;
        }
        // A group that is gone holds nothing.
        let _ = engine.with_group(key, |group, now| how(group, member, now));
    }
}

/// Waits until `notified`, or until something may be taken over.
async fn wait(settler: &EmbeddedSettler, lease: Millis, notified: impl Future<Output = ()>) {
    let EmbeddedSettler {
        engine,
        key,
        member,
        fence,
    } = settler;
    let next = engine.with_group(key, |group, now| {
        group.next_look(member, now, lease, fence.is_some())
    });
    // If there is no group, the next look finds out what to do about that.
    if let Ok(at) = next {
        let at = engine.instant(at).into();
        let _ = tokio::time::timeout_at(at, notified).await;
    }
}

async fn load(settler: Arc<EmbeddedSettler>, granted: Loading<Grant>) -> Result<Vec<Delivery>> {
    let EmbeddedSettler { engine, key, .. } = &*settler;
    engine.note_again(key, granted.what()).await?;
    let (deliveries, odd) = deliveries(granted.load(usize::MAX).await?);
    match odd.is_empty() {
        true => Ok(deliveries),
        false => set_aside(settler, deliveries, odd).await,
    }
}

/// Whether something is delivered again, which is noted first.
fn has_repeats(granted: &Loading<Grant>) -> bool {
    granted.what().any(|grant| grant.attempt > 1)
}

/// What can be delivered, and what cannot.
fn deliveries(works: Works) -> (Vec<Delivery>, Works) {
    let mut odd = Vec::new();
    let deliveries = works.into_iter().filter_map(|(grant, body)| match body {
        Some(Body::Message(message)) => Some(Delivery {
            receipt: Receipt::new(grant.position, grant.attempt),
            message,
        }),
        body => {
            odd.push((grant, body));
            None
        }
    });
    (deliveries.collect(), odd)
}

/// Moves entries that are not messages to the dead letters, and forgets those that were trimmed away meanwhile.
async fn set_aside(
    settler: Arc<EmbeddedSettler>,
    deliveries: Vec<Delivery>,
    odd: Works,
) -> Result<Vec<Delivery>> {
    let lost = odd.iter().filter(|(_, body)| body.is_none()).count();
    let foreign = odd.len() - lost;
    let settlements = odd.into_iter().map(|(grant, body)| {
        let receipt = Receipt::new(grant.position, grant.attempt);
        let letter = body.map(|body| letter(&settler, &receipt, body));
        Settlement::complete_with(receipt, letter.into_iter().collect())
    });
    let counts = settler.engine.counts();
    counts.lost_messages.add(lost as u64);
    counts.foreign_entries.add(foreign as u64);
    for settled in settler.settle(settlements.collect()).await {
        if let Err(error) = settled {
            // It stays held, and is set aside by who takes it over.
            let topic = &settler.key.topic;
            tracing::warn!(%topic, %error, "an entry that is not a message could not be moved to the dead letters");
        }
    }
    Ok(deliveries)
}

fn letter(settler: &EmbeddedSettler, receipt: &Receipt, body: Body) -> Append {
    let GroupKey { topic, group } = &settler.key;
    let why = DeadLetter::new(topic, group, &settler.member, receipt, unix_ms());
    match body {
        Body::Foreign(foreign) => dead_letter::foreign_letter(topic, &foreign, why),
        Body::Message(message) => dead_letter::letter(topic, &message, why),
    }
}
