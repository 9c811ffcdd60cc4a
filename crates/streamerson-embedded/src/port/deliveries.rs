//! What was delivered over one connection, so that others get it at once when the connection closes.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use parking_lot::Mutex;
use streamerson_core::group::{Grant, Group, Holding};
use streamerson_core::time::Millis;
use streamerson_core::{Name, Position};

use super::readers::Readers;
use crate::engine::{Engine, GroupKey};

/// What was delivered over one connection, by group and member.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    members: Mutex<HashMap<(GroupKey, Name), Held>>,
}

#[derive(Debug, Default)]
struct Held {
    attempts: BTreeMap<Position, u32>,
    /// Looks for what was settled meanwhile, over other connections too, when there are more than this.
    review_at: usize,
    /// The member reads over this connection; it does not only take over.
    reads: bool,
}

const FIRST_REVIEW: usize = 1024;
/// Members that only take over are looked through when their number reaches a power of two from here on.
const FEW_MEMBERS: usize = 64;

impl Deliveries {
    /// Notes that `member` reads over this connection.
    pub(super) fn enter(&self, readers: &Readers, key: &GroupKey, member: &Name) {
        let mut members = self.members.lock();
        let held = members.entry((key.clone(), member.clone())).or_default();
        if !std::mem::replace(&mut held.reads, true) {
            readers.enter(key, member);
        }
    }

    /// Notes what was given to `member`.
    pub(super) fn record(
        &self,
        engine: &Engine,
        key: &GroupKey,
        member: &Name,
        grants: impl IntoIterator<Item = Grant>,
    ) {
        let mut grants = grants.into_iter().peekable();
        if grants.peek().is_none() {
            return;
        }
        let mut members = self.members.lock();
        if members.len() >= FEW_MEMBERS && members.len().is_power_of_two() {
            members.retain(|(key, member), held| {
                held.review(engine, key, member);
                held.reads || !held.attempts.is_empty()
            });
        }
        let held = members.entry((key.clone(), member.clone())).or_default();
        held.attempts
            .extend(grants.map(|grant| (grant.position, grant.attempt)));
        if held.attempts.len() > held.review_at.max(FIRST_REVIEW) {
            held.review(engine, key, member);
        }
    }

    /// Hands what is still held to anyone. A member that then works on nothing is gone, as far as one can tell.
    pub(super) fn release(&self, engine: &Engine, readers: &Readers, now: Instant) {
        for ((key, member), held) in self.members.lock().drain() {
            // First, so that the member does not get back itself what it loses here.
            if held.reads {
                readers.leave(&key, &member, now);
            }
            // No such group any more: nothing to release.
            let _ = engine.with_group(&key, |group, now| {
                held.release(group, &member, now);
                let works = group
                    .held()
                    .any(|(_, held)| held.member == member && held.state == Holding::Working);
                if !works {
                    group.leave(&member, now);
                }
            });
        }
    }
}

impl Held {
    fn release(&self, group: &mut Group, member: &Name, now: Millis) {
        for (position, attempt) in &self.attempts {
            if is_held(group, member, *position, *attempt) {
                group.lose(member, *position, now);
            }
        }
    }

    /// Forgets what was settled or taken over; the next look comes when as much again was added, so that looking costs
    /// a constant per delivery.
    fn review(&mut self, engine: &Engine, key: &GroupKey, member: &Name) {
        let looked = engine.with_group(key, |group, _| {
            self.attempts
                .retain(|position, attempt| is_held(group, member, *position, *attempt));
        });
        if looked.is_err() {
            self.attempts.clear();
        }
        self.review_at = 2 * self.attempts.len();
    }
}

/// Whether it is still that delivery: the same member may have got the message again over another connection.
fn is_held(group: &Group, member: &Name, position: Position, attempt: u32) -> bool {
    group.holding(position).is_some_and(|held| {
        held.member == *member && held.attempt == attempt && held.state == Holding::Working
    })
}
