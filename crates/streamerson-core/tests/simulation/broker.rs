//! A broker of the pure rules: groups, leases and remembered keys of the core, behind calls that can get lost.

use std::time::Duration;

use streamerson_core::broker::Once;
use streamerson_core::group::{Grant, Group};
use streamerson_core::lease::{Fence, Lease};
use streamerson_core::lease_table::LeaseTable;
use streamerson_core::once::Remembered;
use streamerson_core::time::Millis;
use streamerson_core::{Name, Position, partition};

use crate::chance::Chance;
use crate::oracle::Oracle;

/// Rules broken on purpose: the oracle has to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Who lost the lease may settle all the same.
    FenceIgnored,
    /// A key that waits for a retry lets later messages pass.
    OrderIgnored,
    /// What was sent twice has two effects.
    RepetitionsIgnored,
    /// An owner does not look for what it was given when the answer got lost.
    LostAnswersForgotten,
    /// Nothing is taken over from the dead.
    TakeoverForgotten,
    /// The message leaves the group before its effect is stored, and the effect may get lost.
    SettledTooEarly,
}

/// A message as its producer sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub id: String,
    pub key: String,
    /// Its place among those of its key.
    pub number: u64,
}

/// What a member is given.
#[derive(Debug, Clone)]
pub struct Given {
    pub position: Position,
    pub attempt: u32,
    pub sent: Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Effect,
    DeadLetter,
    Retry { after: Millis },
}

/// Who acts, under which fence.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    pub member: &'a Name,
    pub epoch: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced;

struct Part {
    log: Vec<(Position, Sent)>,
    group: Group,
    owner: LeaseTable,
    effects: Remembered<()>,
    appended: Remembered<Position>,
}

impl Part {
    fn key(&self, position: Position) -> String {
        let at = self.log.partition_point(|(at, _)| *at < position);
        self.log[at].1.key.clone()
    }
}

pub struct Broker {
    pub ordered: bool,
    pub lease: Millis,
    parts: Vec<Part>,
    seats: LeaseTable,
    owner: Name,
    defect: Option<Defect>,
}

impl Broker {
    pub fn new(partitions: u32, ordered: bool, lease: Millis, defect: Option<Defect>) -> Broker {
        let part = |_| Part {
            log: Vec::new(),
            group: Group::new(Position::ZERO),
            owner: LeaseTable::after(0),
            effects: Remembered::default(),
            appended: Remembered::default(),
        };
        Broker {
            ordered,
            lease,
            parts: (0..partitions).map(part).collect(),
            seats: LeaseTable::after(0),
            owner: Name::new("owner").unwrap(),
            defect,
        }
    }

    /// Stores a message, `once` or as often as it is sent.
    pub fn append(&mut self, sent: Sent, once: bool, now: Millis, oracle: &mut Oracle) {
        let number = partition::of(&sent.key, self.parts.len() as u32);
        let part = &mut self.parts[number as usize];
        let key = Once::new(sent.id.clone(), Duration::from_secs(3600));
        if once && part.appended.recall(&key.key, now).is_some() {
            oracle.counts.repeated += 1;
            return;
        }
        let last = part
            .log
            .last()
            .map_or(Position::ZERO, |(position, _)| *position);
        let position = last.successor(now + 1);
        part.appended.remember(&key, position, now);
        oracle.note(
            now,
            format_args!("stored {} in {number} at {position}", sent.id),
        );
        oracle.stored(&sent);
        part.log.push((position, sent));
    }

    pub fn attend(&mut self, member: &Name, now: Millis) {
        self.seats.acquire(member, member, self.lease, now);
    }

    pub fn seats(&self, now: Millis) -> Vec<(Name, Millis)> {
        let held = self.seats.held(now);
        held.map(|lease| (lease.holder, lease.remaining.as_millis() as Millis))
            .collect()
    }

    pub fn leave_seat(&mut self, member: &Name, now: Millis) {
        self.seats.release(member, member, now);
    }

    pub fn acquire(&mut self, number: u32, member: &Name, now: Millis) -> Lease {
        self.parts[number as usize]
            .owner
            .acquire(&self.owner, member, self.lease, now)
    }

    pub fn release(&mut self, number: u32, member: &Name, now: Millis) {
        self.parts[number as usize]
            .owner
            .release(&self.owner, member, now);
    }

    /// Whether a partition has an owner, as far as anybody can know.
    pub fn is_owned(&self, number: u32, now: Millis) -> bool {
        let part = &self.parts[number as usize];
        !self.ordered || part.owner.find(&self.owner, now).is_some()
    }

    /// Joins. An owner is alone: what others held is for it.
    pub fn join(&mut self, number: u32, actor: Actor<'_>, now: Millis) -> Result<(), Fenced> {
        self.check(number, actor, now)?;
        let forgets = self.defect == Some(Defect::TakeoverForgotten);
        let part = &mut self.parts[number as usize];
        part.group.seen(actor.member, now);
        if actor.epoch.is_some() && !forgets {
            part.group.release_all(now);
        }
        Ok(())
    }

    /// What is delivered and not settled: positions and keys.
    pub fn pending(&self, number: u32) -> Vec<(Position, String)> {
        let part = &self.parts[number as usize];
        let held = part.group.held().map(|(position, _)| position);
        held.map(|position| (position, part.key(position)))
            .collect()
    }

    pub fn next(
        &mut self,
        number: u32,
        actor: Actor<'_>,
        max: usize,
        now: Millis,
        oracle: &mut Oracle,
    ) -> Result<Vec<Given>, Fenced> {
        self.check(number, actor, now)?;
        // The holder itself comes back for what it gave up.
        let lease = match self.defect {
            Some(Defect::TakeoverForgotten) => Millis::MAX / 2,
            _ => self.lease,
        };
        let part = &mut self.parts[number as usize];
        let mut grants = part.group.take_over_in_order(actor.member, now, lease, max);
        oracle.counts.taken_over += grants.len() as u64;
        let from = part
            .log
            .partition_point(|(at, _)| *at <= part.group.cursor());
        let fresh: Vec<Position> = part.log[from..]
            .iter()
            .take(max - grants.len())
            .map(|(at, _)| *at)
            .collect();
        grants.extend(
            fresh
                .into_iter()
                .map(|at| part.group.deliver(actor.member, at, now)),
        );
        let given = grants.into_iter().map(|Grant { position, attempt }| {
            let at = part.log.partition_point(|(at, _)| *at < position);
            let sent = part.log[at].1.clone();
            Given {
                position,
                attempt,
                sent,
            }
        });
        Ok(given.collect())
    }

    pub fn extend(
        &mut self,
        number: u32,
        actor: Actor<'_>,
        held: &[Position],
        now: Millis,
    ) -> Result<(), Fenced> {
        self.check(number, actor, now)?;
        self.parts[number as usize]
            .group
            .extend(actor.member, held, now);
        Ok(())
    }

    pub fn settle(
        &mut self,
        number: u32,
        actor: Actor<'_>,
        given: &Given,
        end: End,
        now: Millis,
        (oracle, chance): (&mut Oracle, &mut Chance),
    ) -> Result<(), Fenced> {
        let Given { position, sent, .. } = given;
        let owns = self.check(number, actor, now);
        if self.defect != Some(Defect::FenceIgnored) {
            owns?;
        }
        let part = &mut self.parts[number as usize];
        let how = match end {
            End::Retry { after } => {
                let given_back = part.group.retry(actor.member, *position, now + after);
                oracle.counts.retried += u64::from(given_back);
                return if given_back { Ok(()) } else { Err(Fenced) };
            }
            End::Effect => "effect",
            End::DeadLetter => "dead letter",
        };
        part.group.settle(*position).ok_or(Fenced)?;
        if owns.is_err() {
            oracle.fail(format!(
                "{} settled in partition {number} and did not own it",
                actor.member
            ));
        }
        oracle.settled(number, actor.epoch, actor.member.as_str());
        if self.defect == Some(Defect::SettledTooEarly) && chance.percent(5) {
            return Ok(());
        }
        let key = Once::new(sent.id.clone(), Duration::from_secs(3600));
        if part.effects.recall(&key.key, now).is_some()
            && self.defect != Some(Defect::RepetitionsIgnored)
        {
            oracle.counts.repeated += 1;
            oracle.note(
                now,
                format_args!("{} again, at {position}: no effect", sent.id),
            );
            return Ok(());
        }
        part.effects.remember(&key, (), now);
        oracle.note(
            now,
            format_args!(
                "{how} of {} by {} at epoch {:?}",
                sent.id, actor.member, actor.epoch
            ),
        );
        oracle.appeared(sent, *position, how, self.ordered);
        Ok(())
    }

    /// Gives back what `actor` holds.
    pub fn leave(&mut self, number: u32, actor: Actor<'_>, now: Millis) {
        if self.check(number, actor, now).is_ok() {
            self.parts[number as usize].group.leave(actor.member, now);
        }
    }

    /// Whether all that was stored is delivered and settled.
    pub fn is_drained(&self) -> bool {
        self.parts.iter().all(|part| {
            let last = part
                .log
                .last()
                .map_or(Position::ZERO, |(position, _)| *position);
            part.group.pending() == 0 && part.group.cursor() >= last
        })
    }

    pub fn defect(&self) -> Option<Defect> {
        self.defect
    }

    fn check(&self, number: u32, actor: Actor<'_>, now: Millis) -> Result<(), Fenced> {
        let Some(epoch) = actor.epoch else {
            return Ok(());
        };
        let fence = Fence {
            lease: self.owner.clone(),
            epoch,
        };
        let admitted = self.parts[number as usize]
            .owner
            .admits(&fence, actor.member, now);
        if admitted { Ok(()) } else { Err(Fenced) }
    }
}
