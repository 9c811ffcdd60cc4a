//! The rest of the engine's interface: leases, what is taken out or divided, and what is noted of deliveries.

use streamerson_core::group::Grant;
use streamerson_core::lease::{Fence, Lease};
use streamerson_core::time::Millis;
use streamerson_core::{Append, Durability, ErrorKind, Name, Position, Result, Start, Topic};
use tokio::sync::oneshot;

use super::op::{Change, Changed, Op, Pending, check_sizes};
use super::{Engine, GroupKey, decide, unanswered};

impl Engine {
    /// Takes one entry out of a topic, and appends `outputs` in the same step. `false`: it is not there.
    pub(crate) async fn take_out(
        &self,
        topic: &Topic,
        position: Position,
        outputs: Vec<Append>,
    ) -> Result<bool> {
        let outputs: Vec<Pending> = outputs.into_iter().map(Pending::of).collect();
        check_sizes(&outputs)?;
        if outputs.iter().any(Pending::may_wait) {
            self.begin_timer();
        }
        let (answer, answered) = oneshot::channel();
        self.submit(Op::Take {
            topic: topic.clone(),
            position,
            outputs,
            taken: Ok(false),
            answer,
        });
        answered.await.unwrap_or_else(|_| Err(unanswered()))
    }

    /// Divides a topic, if it is not divided yet. Answers into how many partitions it is.
    pub(crate) async fn divide(&self, topic: &Topic, partitions: u32) -> Result<u32> {
        self.change(Change::Divide(topic.clone(), partitions))
            .await?;
        Ok(self.partitions(topic))
    }

    /// Into how many partitions a topic is divided; 0: it is not.
    pub(crate) fn partitions(&self, topic: &Topic) -> u32 {
        self.with_topic(topic, |view| view.partitions).unwrap_or(0)
    }

    /// Acquires or renews a lease. Answers it as it stands, whoever has it.
    pub(crate) async fn acquire(
        &self,
        topic: &Topic,
        name: &Name,
        holder: &Name,
        ttl: Millis,
    ) -> Result<Lease> {
        loop {
            if let Some(lease) = self.renew(topic, name, holder, ttl)? {
                return Ok(lease);
            }
            self.change(Change::Acquire {
                topic: topic.clone(),
                name: name.clone(),
                holder: holder.clone(),
                ttl,
            })
            .await?;
        }
    }

    /// The lease as it stands, if it is held; renewed if `holder` has it.
    fn renew(
        &self,
        topic: &Topic,
        name: &Name,
        holder: &Name,
        ttl: Millis,
    ) -> Result<Option<Lease>> {
        let now = self.now();
        let mut state = self.inner.shared.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let Some(topic) = state.topic_mut(topic) else {
            return Ok(None);
        };
        let held = topic.leases.find(name, now).is_some();
        Ok(held.then(|| topic.leases.acquire(name, holder, ttl, now)))
    }

    /// Refuses who does not hold the lease of `fence`, if there is one.
    pub(crate) fn check_fence(
        &self,
        topic: &Topic,
        member: &Name,
        fence: Option<&Fence>,
    ) -> Result<()> {
        if fence.is_none() {
            return Ok(());
        }
        let now = self.now();
        let state = self.inner.shared.state.lock();
        decide::check_fence(&state, topic, member, fence, now)
    }

    /// Makes a member of a group known; what others held is for an owner, who is alone. Answers how far the group is delivered.
    pub(crate) fn join(
        &self,
        key: &GroupKey,
        member: &Name,
        fence: Option<&Fence>,
    ) -> Result<Position> {
        self.check_fence(&key.topic, member, fence)?;
        self.with_group(key, |group, now| {
            group.seen(member, now);
            if fence.is_some() {
                group.release_all(now);
            }
            group.cursor()
        })
    }

    /// Creates a group where there is none, before somebody joins it: at `start`, or, when it was lost, where all was settled.
    /// It was lost when somebody destroyed it who does not know us, or when `was_there`: a member that worked in it says so.
    /// Answers whether a lost group goes on by this.
    pub(crate) async fn begin_group(
        &self,
        key: &GroupKey,
        start: Start,
        was_there: bool,
    ) -> Result<bool> {
        let join = Change::JoinGroup {
            key: key.clone(),
            start,
            was_there,
        };
        let Changed::Resumed(settled) = self.changed_by(join).await? else {
            return Ok(false);
        };
        self.counts().lost_groups.add(1);
        tracing::error!(
            topic = %key.topic, group = %key.group, position = %settled,
            "the consumer group or its topic was removed under its members: it begins again after this position, and what was pending is delivered again if it still exists"
        );
        Ok(true)
    }

    /// Gives a lease up. `false`: `holder` did not have it.
    pub(crate) fn release(&self, topic: &Topic, name: &Name, holder: &Name) -> bool {
        let now = self.now();
        let mut state = self.inner.shared.state.lock();
        let Some(topic) = state.topic_mut(topic) else {
            return false;
        };
        let released = topic.leases.release(name, holder, now);
        let changed = topic.changed.clone();
        drop(state);
        if released {
            changed.notify_waiters();
        }
        released
    }

    /// The lease `name` of `topic`, if it is held.
    pub(crate) fn lease(&self, topic: &Topic, name: &Name) -> Option<Lease> {
        let now = self.now();
        let state = self.inner.shared.state.lock();
        state.topic(topic)?.leases.find(name, now)
    }

    /// The leases of `topic` that are held.
    pub(crate) fn leases(&self, topic: &Topic) -> Vec<Lease> {
        let now = self.now();
        let state = self.inner.shared.state.lock();
        let topic = state.topic(topic);
        topic.map_or_else(Vec::new, |topic| topic.leases.held(now).collect())
    }

    /// Notes how far the group is delivered, before that is handed out: it survives the death of the process.
    pub(super) fn mark<'a>(&self, key: &GroupKey, grants: impl Iterator<Item = &'a Grant>) {
        let Some(marks) = &self.inner.shared.marks else {
            return;
        };
        let first = grants.filter(|grant| grant.attempt == 1);
        if let Some(cursor) = first.map(|grant| grant.position).max() {
            marks.reach(key, cursor);
        }
    }

    /// Notes what is delivered again, before it is handed out: it survives as what is settled does.
    pub(crate) async fn note_again<'a>(
        &self,
        key: &GroupKey,
        grants: impl Iterator<Item = &'a Grant>,
    ) -> Result<()> {
        if self.durability() == Durability::Memory {
            return Ok(());
        }
        let grants: Vec<Grant> = grants.filter(|grant| grant.attempt > 1).copied().collect();
        if grants.is_empty() {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        let key = key.clone();
        self.submit(Op::Deliver {
            key,
            grants,
            answer,
        });
        match answered.await.unwrap_or_else(|_| Err(unanswered())) {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                // Deliveries go on also when the disk is full.
                tracing::warn!(%error, "it could not be noted what is delivered again: should the process die, it does not count");
                Ok(())
            }
            noted => noted,
        }
    }

    /// The groups for which `gone` says so are no more.
    pub(super) fn forget_marks(&self, gone: impl Fn(&GroupKey) -> bool) {
        if let Some(marks) = &self.inner.shared.marks {
            marks.forget(gone);
        }
    }
}
