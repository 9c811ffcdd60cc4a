//! `claim`: takes over what others gave up, or no longer show life for.
//!
//! `KEYS`: stream, delay. `ARGV`: group, member, lease in ms, most, cursor. Answers the next cursor (always `-`, as
//! everything is looked at), a list of id, attempt and fields, how many of the messages were gone (they are settled),
//! and how many ms until the next retry is due, or -1.

use streamerson_core::group::Grant;
use streamerson_core::{Receipt, Settlement};

use super::Call;
use crate::engine::{Want, Work};
use crate::port::commands::{Answer, no_key_or_group};
use crate::port::reply::Reply;
use crate::port::session::Session;

/// The largest batch; who asks for more asks again.
const MOST: usize = 1024;

pub(super) async fn run(session: &Session, mut call: Call) -> Answer {
    let (key, member) = call.membership(session.keys())?;
    let lease = call.arguments.millis()?;
    let most = call.arguments.count()?.min(MOST);
    let engine = session.engine();
    if session.shared().readers.is_gone(&key, &member) {
        return Ok(answer(Vec::new(), 0, None));
    }
    let taken = engine
        .take(&key, &member, Want::Abandoned { lease }, most)
        .await;
    let taken = taken.map_err(|error| no_key_or_group(session, &key, error))?;
    let grants = taken.iter().map(|work| work.grant);
    session.deliveries.record(engine, &key, &member, grants);

    let (mut entries, mut gone) = (Vec::new(), Vec::new());
    for Work {
        grant: Grant { position, attempt },
        body,
    } in taken
    {
        match body {
            Some(body) => entries.push(Reply::List(vec![
                Reply::Id(position),
                Reply::Integer(attempt.into()),
                Reply::Fields(body),
            ])),
            None => gone.push(Settlement::complete(Receipt::new(position, attempt))),
        }
    }
    let lost = gone.len();
    if lost > 0 {
        // Whoever else settled it meanwhile did the same.
        engine.settle(&key, &member, gone).await;
    }
    // With a lease without end, only what was given back counts.
    let due = engine.with_group(&key, |group, now| {
        let due = group.next_claim(u64::MAX)?;
        Some(due.saturating_sub(now))
    });
    let due = due.map_err(|error| no_key_or_group(session, &key, error))?;
    Ok(answer(entries, lost, due))
}

fn answer(entries: Vec<Reply>, lost: usize, due: Option<u64>) -> Reply {
    let due = due.map_or(-1, |due| i64::try_from(due).unwrap_or(i64::MAX));
    Reply::List(vec![
        Reply::text("-"),
        Reply::List(entries),
        Reply::count(lost),
        Reply::Integer(due),
    ])
}
