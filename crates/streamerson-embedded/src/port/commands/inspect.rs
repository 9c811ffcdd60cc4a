//! `XINFO`: streams, groups and members as they stand.

use std::collections::HashMap;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{Name, Position};

use super::group::{group_key, no_group};
use super::{Answer, Arguments, Command, READ, Run, Session};
use crate::engine::{Direction, TopicView};
use crate::port::failure::Failure;
use crate::port::reply::Reply;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("xinfo", -2, Run::Container),
    Command::new("xinfo|stream", -3, Run::Later(stream))
        .flags(READ)
        .keys(2, 2, 1),
    Command::new("xinfo|groups", 3, Run::Now(groups))
        .flags(READ)
        .keys(2, 2, 1),
    Command::new("xinfo|consumers", 4, Run::Now(members))
        .flags(READ)
        .keys(2, 2, 1),
];

/// `XINFO STREAM key`.
fn stream(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let topic = session.keys().stream(&arguments.next()?)?;
        if arguments.left() > 0 {
            return Err(Failure::err(
                "XINFO STREAM FULL is not offered here: see XRANGE, XINFO GROUPS and XPENDING",
            ));
        }
        let engine = session.engine();
        let look = |view: &TopicView<'_>| {
            (
                view.length,
                view.appended,
                view.first,
                view.last,
                view.groups.len(),
            )
        };
        let (length, appended, first, last, groups) =
            engine.with_topic(&topic, look).ok_or(Failure::NO_KEY)?;
        let ends = first.zip(last).unwrap_or_default();
        let mut entries = Vec::new();
        for direction in [Direction::Forward, Direction::Backward] {
            let found = engine.range(&topic, ends.0, ends.1, 1, direction).await?;
            entries.push(match found.into_iter().next() {
                Some((position, body)) => Reply::Entry(position, Some(body)),
                None => Reply::Nil,
            });
        }
        let newest = entries.pop().unwrap_or(Reply::Nil);
        let oldest = entries.pop().unwrap_or(Reply::Nil);
        Ok(Reply::map([
            ("length", Reply::Integer(length as i64)),
            // There is no radix tree. Clients that show one show none.
            ("radix-tree-keys", Reply::Integer(0)),
            ("radix-tree-nodes", Reply::Integer(0)),
            ("last-generated-id", Reply::Id(last.unwrap_or_default())),
            ("max-deleted-entry-id", Reply::Id(Position::ZERO)),
            ("entries-added", Reply::Integer(appended as i64)),
            (
                "recorded-first-entry-id",
                Reply::Id(first.unwrap_or_default()),
            ),
            ("groups", Reply::count(groups)),
            ("first-entry", oldest),
            ("last-entry", newest),
        ]))
    }
    .boxed()
}

fn groups(session: &mut Session, mut arguments: Arguments) -> Answer {
    let topic = session.keys().stream(&arguments.next()?)?;
    let describe = |view: &TopicView<'_>| {
        let groups = view.groups.iter().map(|(name, group)| {
            Reply::map([
                ("name", Reply::text(name.as_str())),
                ("consumers", Reply::count(group.members().count())),
                ("pending", Reply::count(group.pending())),
                ("last-delivered-id", Reply::Id(group.cursor())),
                ("entries-read", Reply::Nil),
                (
                    "lag",
                    Reply::Integer((view.count_after)(group.cursor()) as i64),
                ),
            ])
        });
        Reply::List(groups.collect())
    };
    session
        .engine()
        .with_topic(&topic, describe)
        .ok_or(Failure::NO_KEY)
}

fn members(session: &mut Session, mut arguments: Arguments) -> Answer {
    let key = group_key(session, &mut arguments)?;
    if session.engine().with_topic(&key.topic, |_| ()).is_none() {
        return Err(Failure::NO_KEY);
    }
    let described = session.engine().with_group(&key, |group, now| {
        let mut pending: HashMap<&Name, usize> = HashMap::new();
        for (_, held) in group.held() {
            *pending.entry(&held.member).or_default() += 1;
        }
        let members = group.members().map(|(name, seen)| {
            Reply::map([
                ("name", Reply::text(name.as_str())),
                (
                    "pending",
                    Reply::count(pending.get(name).copied().unwrap_or(0)),
                ),
                ("idle", Reply::Integer(now.saturating_sub(seen) as i64)),
            ])
        });
        Reply::List(members.collect())
    });
    described.map_err(|error| no_group(session, &key, error))
}
