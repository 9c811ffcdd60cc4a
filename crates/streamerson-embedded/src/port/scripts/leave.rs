//! `leave`: hands all that a member holds to anyone at once, and forgets the member.
//!
//! `KEYS`: stream, delay. `ARGV`: group, member. Answers how many deliveries were given back.

use streamerson_core::group::Holding;

use super::Call;
use crate::port::commands::{Answer, no_key_or_group};
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) fn run(session: &Session, mut call: Call) -> Answer {
    let (key, member) = call.membership(session.keys())?;
    let released = session.engine().with_group(&key, |group, now| {
        let held = group.held().map(|(_, held)| held);
        let released = held
            .filter(|held| held.member == member && held.state == Holding::Working)
            .count();
        group.leave(&member, now);
        released
    });
    released
        .map(Reply::count)
        .map_err(|error| no_key_or_group(session, &key, error))
}
