//! The index of retries as the sorted set that it is on Redis, to look at: entry ids by the time they are due.

use std::collections::BTreeMap;

use streamerson_core::Position;
use streamerson_core::group::{Group, Held, Holding};
use streamerson_core::time::{Millis, unix_ms};

use super::{Answer, Arguments, Command, READ, Run, Session};
use crate::engine::GroupKey;
use crate::port::failure::Failure;
use crate::port::keys::Key;
use crate::port::reply::Reply;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("zcard", 2, Run::Now(count))
        .flags(READ)
        .keys(1, 1, 1),
    Command::new("zrange", -4, Run::Now(range))
        .flags(READ)
        .keys(1, 1, 1),
    Command::new("zscore", 3, Run::Now(score))
        .flags(READ)
        .keys(1, 1, 1),
];

fn count(session: &mut Session, mut arguments: Arguments) -> Answer {
    let waiting = match session.keys().parse(&arguments.next()?)? {
        Key::Delay(key) => retries(session, &key).len(),
        Key::Later(topic) => {
            let scheduled = session.engine().with_topic(&topic, |view| view.scheduled);
            usize::try_from(scheduled.unwrap_or(0)).unwrap_or(usize::MAX)
        }
        Key::Stream(_) => return Err(Failure::WRONG_TYPE),
    };
    Ok(Reply::count(waiting))
}

/// `ZRANGE key start stop [WITHSCORES]`.
fn range(session: &mut Session, mut arguments: Arguments) -> Answer {
    let key = arguments.next()?;
    let (start, stop) = (arguments.integer()?, arguments.integer()?);
    let with_scores = arguments.accept("withscores");
    arguments.end()?;
    let key = session.keys().delay(&key)?;
    let mut retries: Vec<(Millis, Position)> = retries(session, &key)
        .into_iter()
        .map(|(position, due)| (due, position))
        .collect();
    retries.sort_unstable();
    let length = i64::try_from(retries.len()).unwrap_or(i64::MAX);
    // Negative ones count from the end.
    let index = |at: i64| {
        if at < 0 {
            at.saturating_add(length)
        } else {
            at
        }
    };
    let (start, stop) = (index(start).max(0), index(stop));
    let wanted = retries
        .into_iter()
        .zip(0..)
        .filter(|(_, at)| (start..=stop).contains(at))
        .map(|(retry, _)| retry);
    Ok(match with_scores {
        true => Reply::Scores(
            wanted
                .map(|(due, position)| (Reply::Id(position), Reply::Score(due)))
                .collect(),
        ),
        false => Reply::List(wanted.map(|(_, position)| Reply::Id(position)).collect()),
    })
}

fn score(session: &mut Session, mut arguments: Arguments) -> Answer {
    let key = session.keys().delay(&arguments.next()?)?;
    let member = arguments.next()?;
    let Some(position) = crate::port::arguments::id(&member, 0) else {
        return Ok(Reply::Nil);
    };
    let due = retries(session, &key).remove(&position);
    Ok(due.map_or(Reply::Nil, Reply::Score))
}

/// What waits for its retry, and until when by the wall clock.
fn retries(session: &Session, key: &GroupKey) -> BTreeMap<Position, Millis> {
    let wall = unix_ms();
    let collect = |group: &mut Group, now: Millis| {
        let retry = |(position, held): (Position, &Held)| match held.state {
            Holding::Released { due } => {
                Some((position, wall.saturating_add(due).saturating_sub(now)))
            }
            Holding::Working => None,
        };
        group.held().filter_map(retry).collect()
    };
    // No such group: nothing waits.
    session
        .engine()
        .with_group(key, collect)
        .unwrap_or_default()
}
