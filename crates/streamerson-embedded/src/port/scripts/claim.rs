//! `claim`: takes over what others gave up, or no longer show life for.
//!
//! `KEYS`: stream, delay. `ARGV`: group, member, lease in ms, most, cursor, fence lease, fence epoch, suspect in hand. Answers
//! the next cursor (`-`, as everything is looked at; with a fence another one when something is left), a list of id, attempt and fields, how many of the messages were
//! gone (they are settled), how many ms until the next retry is due, or -1, and no suspect in hand: the group knows itself who
//! has one. Scheduled messages appear without it.
//!
//! With a fence the member is alone: what others hold is taken at once, and new entries too. With the empty cursor it takes
//! only what is due again, and new entries.

use streamerson_core::group::{Grant, Group};
use streamerson_core::time::Millis;
use streamerson_core::{Name, Position, Receipt, Settlement};

use super::Call;
use crate::engine::{Want, Work};
use crate::port::commands::{Answer, no_key_or_group};
use crate::port::reply::Reply;
use crate::port::session::Session;

/// The largest batch; who asks for more asks again.
const MOST: usize = 1024;

/// The search is through; the next one begins at the start.
const START: &str = "-";

/// There is more to find. The oldest comes first, so that is at the start again.
const AGAIN: &str = "0-0";

/// A lease that does not run out.
const ENDLESS: Millis = Millis::MAX;

pub(super) async fn run(session: &Session, mut call: Call) -> Answer {
    let (key, member) = call.membership(session.keys())?;
    let lease = call.arguments.millis()?;
    let most = call.arguments.count()?.min(MOST);
    let searches = !call.arguments.next()?.is_empty();
    let fence = call.arguments.fence()?;
    let engine = session.engine();
    engine.check_fence(&key.topic, &member, fence.as_ref())?;
    if session.shared().readers.is_gone(&key, &member) {
        return Ok(answer(START, Vec::new(), 0, None));
    }
    if fence.is_some() && searches {
        let freed = engine.with_group(&key, |group, now| free_of_others(group, &member, now));
        freed.map_err(|error| no_key_or_group(session, &key, error))?;
    }
    // Without a search, only what was given back counts.
    let lease = if searches { lease } else { ENDLESS };
    let want = match fence {
        Some(_) => Want::Owned { lease },
        None => Want::Abandoned { lease },
    };
    let taken = engine
        .take_fenced(&key, &member, fence.as_ref(), want, most)
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
    // The next call must not fetch what is new before it has all of this.
    let left = engine.with_group(&key, |group, now| {
        fence.is_some() && group.next_claim(lease).is_some_and(|at| at <= now)
    });
    let left = left.map_err(|error| no_key_or_group(session, &key, error))?;
    let lost = gone.len();
    if lost > 0 {
        // Whoever else settled it meanwhile did the same.
        engine
            .settle_fenced(&key, &member, fence.as_ref(), gone)
            .await;
    }
    let due = engine.with_group(&key, |group, now| {
        let due = match fence {
            Some(_) => group.next_claim(ENDLESS),
            None => group.next_claim_of(&member, now, ENDLESS),
        }?;
        Some(due.saturating_sub(now))
    });
    let due = due.map_err(|error| no_key_or_group(session, &key, error))?;
    let cursor = if left { AGAIN } else { START };
    Ok(answer(cursor, entries, lost, due))
}

/// Frees what others hold, for who is alone.
fn free_of_others(group: &mut Group, member: &Name, now: Millis) {
    let others = group.held().filter(|(_, held)| held.member != *member);
    let others: Vec<(Position, Name)> = others
        .map(|(position, held)| (position, held.member.clone()))
        .collect();
    for (position, holder) in others {
        group.lose(&holder, position, now);
    }
}

fn answer(cursor: &str, entries: Vec<Reply>, lost: usize, due: Option<u64>) -> Reply {
    let due = due.map_or(-1, |due| i64::try_from(due).unwrap_or(i64::MAX));
    Reply::List(vec![
        Reply::text(cursor),
        Reply::List(entries),
        Reply::count(lost),
        Reply::Integer(due),
        Reply::text(""),
    ])
}
