//! What is delivered and not settled, and who takes it over: `XPENDING`, `XCLAIM`, `XAUTOCLAIM`.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::group::{Grant, Group, Held};
use streamerson_core::time::{Millis, unix_ms};
use streamerson_core::{Name, Position, Receipt, Settlement};

use super::group::{group_key, no_key_or_group};
use super::group_read::{ENOUGH, MANY};
use super::range::{lower, upper};
use super::{Answer, Arguments, Command, READ, Run, Session, WRITE};
use crate::engine::GroupKey;
use crate::port::arguments;
use crate::port::failure::Failure;
use crate::port::reply::Reply;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("xpending", -3, Run::Now(pending))
        .flags(READ)
        .keys(1, 1, 1),
    Command::new("xclaim", -6, Run::Later(claim))
        .flags(WRITE)
        .keys(1, 1, 1),
    Command::new("xautoclaim", -6, Run::Later(auto_claim))
        .flags(WRITE)
        .keys(1, 1, 1),
];

/// `XPENDING key group [[IDLE min-idle] start end count [consumer]]`.
fn pending(session: &mut Session, mut arguments: Arguments) -> Answer {
    let key = group_key(session, &mut arguments)?;
    let reply = if arguments.left() == 0 {
        session.engine().with_group(&key, |group, _| summary(group))
    } else {
        let listing = Listing::parse(&mut arguments)?;
        session
            .engine()
            .with_group(&key, |group, now| listing.list(group, now))
    };
    reply.map_err(|error| no_key_or_group(session, &key, error))
}

fn summary(group: &Group) -> Reply {
    let mut members: BTreeMap<&Name, i64> = BTreeMap::new();
    for (_, held) in group.held() {
        *members.entry(&held.member).or_default() += 1;
    }
    let mut positions = group.held().map(|(position, _)| position);
    let Some(first) = positions.next() else {
        return Reply::List(vec![
            Reply::Integer(0),
            Reply::Nil,
            Reply::Nil,
            Reply::NilList,
        ]);
    };
    let last = positions.next_back().unwrap_or(first);
    let by_member = members.into_iter().map(|(member, count)| {
        Reply::List(vec![
            Reply::text(member.as_str()),
            Reply::text(count.to_string()),
        ])
    });
    Reply::List(vec![
        Reply::count(group.pending()),
        Reply::Id(first),
        Reply::Id(last),
        Reply::List(by_member.collect()),
    ])
}

/// Which deliveries to list.
struct Listing {
    idle: Millis,
    from: Position,
    to: Position,
    count: usize,
    member: Option<bytestring::ByteString>,
}

impl Listing {
    fn parse(arguments: &mut Arguments) -> Result<Listing, Failure> {
        let idle = match arguments.accept("idle") {
            true => arguments.millis()?,
            false => 0,
        };
        let (from, to) = (arguments.next()?, arguments.next()?);
        let count = arguments.count()?;
        let (from, to) = (lower(&from)?, upper(&to)?);
        let member = match arguments.left() {
            0 => None,
            _ => Some(arguments.text()?),
        };
        arguments.end()?;
        Ok(Listing {
            idle,
            from,
            to,
            count,
            member,
        })
    }

    fn list(&self, group: &Group, now: Millis) -> Reply {
        let wanted = |(position, held): &(Position, &Held)| {
            (self.from..=self.to).contains(position)
                && now.saturating_sub(held.touched) >= self.idle
                && self
                    .member
                    .as_deref()
                    .is_none_or(|member| held.member.as_str() == member)
        };
        let describe = |(position, held): (Position, &Held)| {
            Reply::List(vec![
                Reply::Id(position),
                Reply::text(held.member.as_str()),
                Reply::Integer(now.saturating_sub(held.touched) as i64),
                Reply::Integer(held.attempt.into()),
            ])
        };
        Reply::List(
            group
                .held()
                .filter(wanted)
                .take(self.count)
                .map(describe)
                .collect(),
        )
    }
}

/// `XCLAIM key group consumer min-idle id… [IDLE ms] [TIME unix-ms] [RETRYCOUNT count] [JUSTID] [LASTID id]`.
fn claim(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let key = group_key(session, &mut arguments)?;
        let member = arguments.name()?;
        let idle = min_idle(&mut arguments, "XCLAIM")?;
        // Redis looks for the group before it reads on.
        let known = session.engine().with_group(&key, |_, _| ());
        known.map_err(|error| no_key_or_group(session, &key, error))?;
        let claim = Claim::parse(&mut arguments)?;
        let free = session.engine().with_group(&key, |group, now| {
            let free = claim.positions.iter().copied();
            free.filter(|position| is_idle(group, *position, idle, now))
                .collect()
        });
        let free = free.map_err(|error| no_key_or_group(session, &key, error))?;
        let how =
            |group: &mut Group, position, now| claim.claim(group, &member, position, idle, now);
        let claimed = deliver(session, &key, &member, free, claim.just_id, how).await?;
        Ok(Reply::List(claimed.entries))
    }
    .boxed()
}

/// What to claim, and as what.
#[derive(Default)]
struct Claim {
    positions: Vec<Position>,
    /// How long ago it counts as delivered.
    ago: Millis,
    /// How often it counts as delivered.
    attempt: Option<u32>,
    just_id: bool,
}

impl Claim {
    fn parse(arguments: &mut Arguments) -> Result<Claim, Failure> {
        let mut claim = Claim::default();
        while let Some(id) = arguments
            .rest()
            .first()
            .and_then(|word| arguments::id(word, 0))
        {
            claim.positions.push(id);
            arguments.next()?;
        }
        while let Some(option) = arguments.optional() {
            let more = arguments.left() > 0;
            match option.to_ascii_lowercase().as_slice() {
                b"justid" => claim.just_id = true,
                // Redis uses it to copy a group to its replicas.
                b"force" => {
                    return Err(Failure::err(
                        "FORCE is not offered here: only what was delivered can be claimed",
                    ));
                }
                b"idle" if more => claim.ago = arguments.millis()?,
                b"time" if more => claim.ago = unix_ms().saturating_sub(arguments.millis()?),
                b"retrycount" if more => {
                    claim.attempt = Some(u32::try_from(arguments.count()?).unwrap_or(u32::MAX));
                }
                b"lastid" if more => drop(arguments.id(0)?),
                _ => {
                    return Err(Failure::err(format_args!(
                        "Unrecognized XCLAIM option '{}'",
                        super::quote(&option, super::QUOTED)
                    )));
                }
            }
        }
        Ok(claim)
    }

    fn claim(
        &self,
        group: &mut Group,
        member: &Name,
        position: Position,
        idle: Millis,
        now: Millis,
    ) -> Option<Grant> {
        let count = !self.just_id && self.attempt.is_none();
        let mut grant = group.claim(member, position, now, idle, count)?;
        if (self.ago > 0 || self.attempt.is_some())
            && let Some(mut held) = group.holding(position).cloned()
        {
            held.touched = now.saturating_sub(self.ago);
            held.attempt = self.attempt.unwrap_or(held.attempt);
            grant.attempt = held.attempt;
            group.restore(position, held);
        }
        Some(grant)
    }
}

/// `XAUTOCLAIM key group consumer min-idle start [COUNT count] [JUSTID]`.
fn auto_claim(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let key = group_key(session, &mut arguments)?;
        let member = arguments.name()?;
        let idle = min_idle(&mut arguments, "XAUTOCLAIM")?;
        let from = lower(&arguments.next()?)?;
        let (mut count, mut just_id) = (100, false);
        while arguments.left() > 0 {
            if arguments.accept("justid") {
                just_id = true;
            } else if arguments.left() >= 2 && arguments.accept("count") {
                count = match arguments.count() {
                    Ok(count @ 1..) => count,
                    _ => return Err(Failure::err("COUNT must be > 0")),
                };
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        let swept = session.engine().with_group(&key, |group, now| {
            sweep(group, idle, from, count.min(MANY), now)
        });
        let (next, free) = swept.map_err(|error| no_key_or_group(session, &key, error))?;
        let how = |group: &mut Group, at, now| group.claim(&member, at, now, idle, !just_id);
        let claimed = deliver(session, &key, &member, free, just_id, how).await?;
        Ok(Reply::List(vec![
            Reply::Id(claimed.left.unwrap_or(next)),
            Reply::List(claimed.entries),
            Reply::List(claimed.gone),
        ]))
    }
    .boxed()
}

/// Up to `max` of the deliveries from `from` on that are idle; answers also where to go on.
fn sweep(
    group: &Group,
    idle: Millis,
    from: Position,
    max: usize,
    now: Millis,
) -> (Position, Vec<Position>) {
    let mut positions = Vec::new();
    for (position, held) in group.held().filter(|(position, _)| *position >= from) {
        if positions.len() >= max {
            return (position, positions);
        }
        if held.touched.saturating_add(idle) <= now {
            positions.push(position);
        }
    }
    (Position::ZERO, positions)
}

fn is_idle(group: &Group, position: Position, idle: Millis, now: Millis) -> bool {
    let held = group.holding(position);
    held.is_some_and(|held| held.touched.saturating_add(idle) <= now)
}

/// What was claimed.
#[derive(Default)]
struct Claimed {
    entries: Vec<Reply>,
    /// The ids of what is gone, which is settled: there is nothing to work on.
    gone: Vec<Reply>,
    /// The first that there was no room for. It stays where it is.
    left: Option<Position>,
}

/// Claims these one by one, in the way of `claim`, as far as there is room for them in one answer.
async fn deliver(
    session: &Session,
    key: &GroupKey,
    member: &Name,
    positions: Vec<Position>,
    just_id: bool,
    claim: impl Fn(&mut Group, Position, Millis) -> Option<Grant>,
) -> Result<Claimed, Failure> {
    let engine = session.engine();
    let found = engine.find_each(&key.topic, positions.clone());
    let found: Vec<(Position, Option<Reply>)> = if just_id {
        let there = found.there();
        there
            .map(|(at, there)| (*at, there.then_some(Reply::Id(*at))))
            .collect()
    } else {
        let loaded = found.load(ENOUGH).await?.into_iter();
        let entry = |at, body| Reply::Entry(at, Some(body));
        loaded
            .map(|(at, body)| (at, body.map(|body| entry(at, body))))
            .collect()
    };
    let mut claimed = Claimed {
        left: positions.get(found.len()).copied(),
        ..Claimed::default()
    };
    let (mut grants, mut settled) = (Vec::new(), Vec::new());
    let done = engine.with_group(key, |group, now| {
        for (position, reply) in found {
            let Some(grant) = claim(group, position, now) else {
                continue;
            };
            grants.push(grant);
            match reply {
                Some(reply) => claimed.entries.push(reply),
                None => {
                    claimed.gone.push(Reply::Id(position));
                    settled.push(Settlement::complete(Receipt::new(position, grant.attempt)));
                }
            }
        }
    });
    done.map_err(|error| no_key_or_group(session, key, error))?;
    session
        .deliveries
        .record(engine, key, member, grants.iter().copied());
    if !just_id {
        engine.note_again(key, grants.iter()).await?;
    }
    if !settled.is_empty() {
        // Whoever else settled it meanwhile did the same.
        engine.settle(key, member, settled).await;
    }
    Ok(claimed)
}

fn min_idle(arguments: &mut Arguments, command: &str) -> Result<Millis, Failure> {
    let invalid = |_| Failure::err(format_args!("Invalid min-idle-time argument for {command}"));
    arguments.millis().map_err(invalid)
}
