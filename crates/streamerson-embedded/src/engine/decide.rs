//! The first step of a commit, under the lock: which operations count, and which positions they get.
//!
//! Fences fall here: a settlement takes its delivery out of the group at once, so that a second one loses. When the
//! log then cannot be written, [`undo`] puts everything back.

use std::time::Duration;

use streamerson_core::group::Holding;
use streamerson_core::lease::Fence;
use streamerson_core::time::Millis;
use streamerson_core::{Error, Name, Position, Result, Topic};

use super::GroupKey;
use super::op::{End, Item, Op, Pending, Verdict};
use super::state::State;
use super::terms::{self, place};
use super::topic::TopicState;

/// The moment of a commit, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// For leases.
    pub(crate) now: Millis,
    /// For positions and for due times that survive a restart.
    pub(crate) unix_ms: u64,
}

/// Decides every operation of a batch.
pub(crate) fn decide(state: &mut State, batch: &mut [Op], moment: Moment) {
    for op in batch {
        match op {
            Op::Append { entries, .. } => {
                for entry in entries {
                    append(state, entry, moment.unix_ms);
                }
            }
            Op::Settle {
                key,
                member,
                fence,
                items,
                ..
            } => {
                let admitted = check_fence(state, &key.topic, member, fence.as_deref(), moment.now);
                for item in items {
                    let settled = admitted
                        .clone()
                        .and_then(|()| settle(state, key, member, item, moment));
                    item.verdict = settled.unwrap_or_else(Verdict::Lost);
                }
            }
            Op::Take {
                topic,
                position,
                outputs,
                taken,
                ..
            } => *taken = take(state, topic, *position, outputs, moment.unix_ms),
            Op::Deliver { key, grants, .. } => {
                // What was settled meanwhile must not come again after a restart.
                let group = state.group_mut(key).ok();
                grants.retain(|grant| {
                    let held = group
                        .as_ref()
                        .and_then(|group| group.holding(grant.position));
                    held.is_some_and(|held| held.attempt == grant.attempt)
                });
            }
            Op::Change { .. } => {}
        }
    }
}

/// Whether `member` may act under `fence`, if it needs one.
pub(crate) fn check_fence(
    state: &State,
    topic: &Topic,
    member: &Name,
    fence: Option<&Fence>,
    now: Millis,
) -> Result<()> {
    let Some(fence) = fence else { return Ok(()) };
    let state = state.topic(topic);
    match state.is_some_and(|state| state.leases.admits(fence, member, now)) {
        true => Ok(()),
        false => Err(Error::fenced(format!(
            "{member} does not hold the lease {} of {topic} at epoch {}",
            fence.lease, fence.epoch
        ))),
    }
}

/// Whether the lease of `fence` is held, by whom it was given to at that epoch.
pub(crate) fn check_held(state: &State, topic: &Topic, fence: &Fence, now: Millis) -> Result<()> {
    let state = state.topic(topic);
    match state.is_some_and(|state| state.leases.is_held(fence, now)) {
        true => Ok(()),
        false => Err(Error::fenced(format!(
            "the lease {} of {topic} is not held at epoch {}",
            fence.lease, fence.epoch
        ))),
    }
}

fn append(state: &mut State, entry: &mut Pending, unix_ms: u64) {
    if entry.position.is_ok() {
        entry.position = state
            .check_memory(entry.bound())
            .and_then(|()| place(state, entry, unix_ms));
    }
}

/// Places all outputs, or none.
fn place_all(state: &mut State, outputs: &mut [Pending], unix_ms: u64) -> Result<()> {
    if !outputs.is_empty() {
        state.check_memory_of_outputs(outputs.iter().map(Pending::bound).sum())?;
    }
    for at in 0..outputs.len() {
        let (before, rest) = outputs.split_at_mut(at);
        let Some(output) = rest.first_mut() else {
            break;
        };
        match place(state, output, unix_ms) {
            Ok(position) => output.position = Ok(position),
            Err(error) => {
                before.iter().for_each(|output| terms::undo(state, output));
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Whether the entry is there, and nobody is taking it already. If so, places the outputs.
fn take(
    state: &mut State,
    topic: &Topic,
    position: Position,
    outputs: &mut [Pending],
    unix_ms: u64,
) -> Result<bool> {
    let there = |topic: &TopicState| topic.has(position) && !topic.going.contains(&position);
    if !state.topic(topic).is_some_and(there) {
        return Ok(false);
    }
    place_all(state, outputs, unix_ms)?;
    if let Some(topic) = state.topic_mut(topic) {
        topic.going.insert(position);
    }
    Ok(true)
}

fn settle(
    state: &mut State,
    key: &GroupKey,
    member: &Name,
    item: &mut Item,
    moment: Moment,
) -> Result<Verdict> {
    let position = item.position;
    let going = state.topic(&key.topic).map(|topic| &topic.going);
    if going.is_some_and(|going| going.contains(&position)) {
        return Err(fenced(position));
    }
    let group = state.group_mut(key)?;
    let before = group.holding(position).ok_or_else(|| fenced(position))?;
    match &mut item.end {
        End::Retry(after) => {
            let before = before.clone();
            // Who got it again under the same name must not be disturbed by itself.
            if item.attempt != 0 && item.attempt != before.attempt {
                return Err(fenced(position));
            }
            if !group.retry(member, position, moment.now.saturating_add(millis(*after))) {
                return Err(fenced(position));
            }
            let due_unix_ms = moment.unix_ms.saturating_add(millis(*after));
            Ok(Verdict::Returned {
                before,
                due_unix_ms,
            })
        }
        End::Complete(outputs) => {
            if let Some(effect) = &mut item.effect {
                effect.decide(state, key, outputs, moment.unix_ms)?;
            }
            if let Err(error) = place_all(state, outputs, moment.unix_ms) {
                item.effect
                    .iter()
                    .for_each(|effect| effect.undo(state, key));
                return Err(error);
            }
            let before = state.group_mut(key)?.settle(position);
            before.map(Verdict::Won).ok_or_else(|| fenced(position))
        }
    }
}

/// Puts back what [`decide`] changed. Positions given stay unused.
pub(crate) fn undo(state: &mut State, batch: &[Op]) {
    for op in batch {
        match op {
            Op::Append { entries, .. } => {
                entries.iter().for_each(|entry| terms::undo(state, entry));
            }
            Op::Take {
                topic,
                position,
                outputs,
                taken: Ok(true),
                ..
            } => {
                outputs.iter().for_each(|output| terms::undo(state, output));
                if let Some(topic) = state.topic_mut(topic) {
                    topic.going.remove(position);
                }
            }
            Op::Settle { key, items, .. } => undo_settle(state, key, items),
            _ => {}
        }
    }
}

fn undo_settle(state: &mut State, key: &GroupKey, items: &[Item]) {
    for item in items {
        if let (Verdict::Won(_), End::Complete(outputs)) = (&item.verdict, &item.end) {
            outputs.iter().for_each(|output| terms::undo(state, output));
            item.effect
                .iter()
                .for_each(|effect| effect.undo(state, key));
        }
    }
    let Ok(group) = state.group_mut(key) else {
        return;
    };
    for item in items {
        match &item.verdict {
            Verdict::Won(before) => group.restore(item.position, before.clone()),
            Verdict::Returned { before, .. } => {
                // Somebody may have taken it over meanwhile.
                let still = group.holding(item.position).is_some_and(|held| {
                    held.member == before.member && held.state != Holding::Working
                });
                if still {
                    group.restore(item.position, before.clone());
                }
            }
            Verdict::Open | Verdict::Lost(_) => {}
        }
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

fn fenced(position: Position) -> Error {
    Error::fenced(format!(
        "the delivery of {position} was settled or taken over by another member"
    ))
}
