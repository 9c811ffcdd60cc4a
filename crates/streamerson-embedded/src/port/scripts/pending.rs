//! `pending`: what is delivered and not settled.
//!
//! `KEYS`: stream, delay. `ARGV`: group, first id (`-`, or `(ID` for what comes after), most. Answers a list of id, member, idle
//! ms, attempt, and ms until it is due again, or -1.

use streamerson_core::Position;
use streamerson_core::group::{Held, Holding};
use streamerson_core::time::Millis;

use super::Call;
use crate::engine::GroupKey;
use crate::port::commands::{Answer, lower, no_key_or_group};
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) fn run(session: &Session, mut call: Call) -> Answer {
    let topic = call.topic(session.keys())?;
    let Call { arguments, .. } = &mut call;
    let group = arguments.name()?;
    let from = lower(&arguments.next()?)?;
    let most = arguments.count()?;
    let key = GroupKey { topic, group };
    let listed = session.engine().with_group(&key, |group, now| {
        let held = group.held().filter(|(position, _)| *position >= from);
        let rows = held.take(most).map(|(at, held)| row(at, held, now));
        Reply::List(rows.collect())
    });
    listed.map_err(|error| no_key_or_group(session, &key, error))
}

fn row(position: Position, held: &Held, now: Millis) -> Reply {
    let ms = |ms: Millis| Reply::Integer(i64::try_from(ms).unwrap_or(i64::MAX));
    Reply::List(vec![
        Reply::Id(position),
        Reply::text(held.member.as_str()),
        ms(now.saturating_sub(held.touched)),
        Reply::Integer(held.attempt.into()),
        match held.state {
            Holding::Working => Reply::Integer(-1),
            Holding::Released { due } => ms(due.saturating_sub(now)),
        },
    ])
}
