//! What is delivered and not settled, and who takes it over: `XPENDING`, `XCLAIM`, `XAUTOCLAIM`.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::group::{Grant, Group, Held};
use streamerson_core::time::{Millis, unix_ms};
use streamerson_core::{Name, Position, Receipt, Settlement};

use super::group::{group_key, no_key_or_group};
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
        let grants = session
            .engine()
            .with_group(&key, |group, now| claim.claim(group, &member, idle, now));
        let grants = grants.map_err(|error| no_key_or_group(session, &key, error))?;
        let (claimed, _) = deliver(session, &key, &member, grants, claim.just_id).await?;
        Ok(Reply::List(claimed))
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

    fn claim(&self, group: &mut Group, member: &Name, idle: Millis, now: Millis) -> Vec<Grant> {
        let count = !self.just_id && self.attempt.is_none();
        let mut grants = Vec::new();
        for position in &self.positions {
            let Some(mut grant) = group.claim(member, *position, now, idle, count) else {
                continue;
            };
            if (self.ago > 0 || self.attempt.is_some())
                && let Some(mut held) = group.holding(*position).cloned()
            {
                held.touched = now.saturating_sub(self.ago);
                held.attempt = self.attempt.unwrap_or(held.attempt);
                grant.attempt = held.attempt;
                group.restore(*position, held);
            }
            grants.push(grant);
        }
        grants
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
        let claimed = session.engine().with_group(&key, |group, now| {
            sweep(group, &member, idle, from, count, !just_id, now)
        });
        let (next, grants) = claimed.map_err(|error| no_key_or_group(session, &key, error))?;
        let (claimed, gone) = deliver(session, &key, &member, grants, just_id).await?;
        Ok(Reply::List(vec![
            Reply::Id(next),
            Reply::List(claimed),
            Reply::List(gone),
        ]))
    }
    .boxed()
}

/// Claims up to `max` of the deliveries from `from` on that are idle; answers also where to go on.
fn sweep(
    group: &mut Group,
    member: &Name,
    idle: Millis,
    from: Position,
    max: usize,
    count: bool,
    now: Millis,
) -> (Position, Vec<Grant>) {
    let mut positions = Vec::new();
    let mut next = Position::ZERO;
    for (position, held) in group.held().filter(|(position, _)| *position >= from) {
        if positions.len() >= max {
            next = position;
            break;
        }
        if held.touched.saturating_add(idle) <= now {
            positions.push(position);
        }
    }
    let claim = |position| group.claim(member, position, now, idle, count);
    (next, positions.into_iter().filter_map(claim).collect())
}

/// Answers what was claimed, and apart the ids of what is gone, which is settled: there is nothing to work on.
async fn deliver(
    session: &Session,
    key: &GroupKey,
    member: &Name,
    grants: Vec<Grant>,
    just_id: bool,
) -> Result<(Vec<Reply>, Vec<Reply>), Failure> {
    let engine = session.engine();
    session
        .deliveries
        .record(engine, key, member, grants.iter().copied());
    if !just_id {
        engine.note_again(key, grants.iter()).await?;
    }
    let positions: Vec<Position> = grants.iter().map(|grant| grant.position).collect();
    let bodies = engine.fetch(&key.topic, &positions).await?;
    let (mut claimed, mut gone, mut settled) = (Vec::new(), Vec::new(), Vec::new());
    for (grant, body) in grants.into_iter().zip(bodies) {
        let position = grant.position;
        match body {
            Some(_) if just_id => claimed.push(Reply::Id(position)),
            Some(body) => claimed.push(Reply::Entry(position, Some(body))),
            None => {
                gone.push(Reply::Id(position));
                settled.push(Settlement::complete(Receipt::new(position, grant.attempt)));
            }
        }
    }
    if !settled.is_empty() {
        // Whoever else settled it meanwhile did the same.
        engine.settle(key, member, settled).await;
    }
    Ok((claimed, gone))
}

fn min_idle(arguments: &mut Arguments, command: &str) -> Result<Millis, Failure> {
    let invalid = |_| Failure::err(format_args!("Invalid min-idle-time argument for {command}"));
    arguments.millis().map_err(invalid)
}
