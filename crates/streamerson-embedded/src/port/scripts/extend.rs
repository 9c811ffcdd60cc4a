//! `extend`: signs of life for what a member holds.
//!
//! `KEYS`: stream. `ARGV`: group, member, fence lease, fence epoch, ids. Answers how many of them the member still holds; only
//! these are kept, so that a late sign of life takes nothing back from a new holder.

use streamerson_core::group::Holding;

use super::Call;
use crate::port::commands::{Answer, no_key_or_group};
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) fn run(session: &Session, mut call: Call) -> Answer {
    let (key, member) = call.membership(session.keys())?;
    let fence = call.arguments.fence()?;
    let mut positions = Vec::with_capacity(call.arguments.left());
    while call.arguments.left() > 0 {
        positions.push(call.arguments.id(0)?);
    }
    let engine = session.engine();
    engine.check_fence(&key.topic, &member, fence.as_ref())?;
    let held = engine.with_group(&key, |group, now| {
        positions.retain(|position| {
            group
                .holding(*position)
                .is_some_and(|held| held.member == member && held.state == Holding::Working)
        });
        group.extend(&member, &positions, now);
        positions.len()
    });
    held.map(Reply::count)
        .map_err(|error| no_key_or_group(session, &key, error))
}
