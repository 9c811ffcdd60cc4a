//! The first step of a commit, under the lock: which operations count, and which positions they get.
//!
//! Fences fall here: a settlement takes its delivery out of the group at once, so that a second one loses. When the
//! log then cannot be written, [`undo`] puts everything back.

use std::time::Duration;

use streamerson_core::group::Holding;
use streamerson_core::time::Millis;
use streamerson_core::{Error, Name, Position, Result};

use super::GroupKey;
use super::op::{End, Item, Op, Pending, Verdict};
use super::state::State;

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
                key, member, items, ..
            } => {
                for item in items {
                    item.verdict =
                        settle(state, key, member, item, moment).unwrap_or_else(Verdict::Lost);
                }
            }
            Op::Change { .. } => {}
        }
    }
}

fn append(state: &mut State, entry: &mut Pending, unix_ms: u64) {
    if entry.position.is_ok() {
        entry.position = state
            .check_memory(entry.bound())
            .and_then(|()| state.assign(&entry.topic, entry.insisted, unix_ms));
    }
}

fn settle(
    state: &mut State,
    key: &GroupKey,
    member: &Name,
    item: &mut Item,
    moment: Moment,
) -> Result<Verdict> {
    let position = item.position;
    let group = state.group_mut(key)?;
    let before = group.holding(position).ok_or_else(|| fenced(position))?;
    match &mut item.end {
        End::Retry(after) => {
            let before = before.clone();
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
            for output in outputs {
                output.position = Ok(state.assign(&output.topic, None, moment.unix_ms)?);
            }
            let before = state.group_mut(key)?.settle(position);
            before.map(Verdict::Won).ok_or_else(|| fenced(position))
        }
    }
}

/// Puts back what [`decide`] changed. Positions given stay unused.
pub(crate) fn undo(state: &mut State, batch: &[Op]) {
    for op in batch {
        let Op::Settle { key, items, .. } = op else {
            continue;
        };
        let Ok(group) = state.group_mut(key) else {
            continue;
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
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

fn fenced(position: Position) -> Error {
    Error::fenced(format!(
        "the delivery of {position} was settled or taken over by another member"
    ))
}
