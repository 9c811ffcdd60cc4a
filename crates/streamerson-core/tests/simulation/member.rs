//! A member: the same decisions as the worker's, driven by simulated time.

use std::collections::BTreeMap;
use std::time::Duration;

use streamerson_core::lanes::Lanes;
use streamerson_core::ownership::{Change, Ownership, Step};
use streamerson_core::retry::{Decision, RetryPolicy};
use streamerson_core::time::Millis;
use streamerson_core::{Name, Position};

use crate::broker::{Actor, Defect, End, Given};
use crate::net::{Lost, Net};

/// How long a member waits at most before it looks for messages again.
const LOOK: Millis = 40;

/// How many handlers run at a time, over all partitions.
const CONCURRENCY: usize = 4;

/// How many messages of a partition may be here.
const MOST: usize = 12;

pub struct Member {
    pub name: Name,
    /// What its clock makes of the world's: so many per mille more.
    drift: i64,
    /// `None`: it shares a queue, and owns nothing.
    ownership: Option<Ownership>,
    parts: BTreeMap<u32, Part>,
    look_at: Millis,
    beat_at: Millis,
    policy: RetryPolicy,
    lease: Millis,
    /// It was asked to.
    pub leaving: bool,
    pub gone: bool,
    /// Until then it is asleep.
    pub asleep: Option<Millis>,
    /// Just awake, it goes on where it stood, before it looks at the clock.
    careless: bool,
}

struct Part {
    epoch: Option<u64>,
    joined: bool,
    /// It does not know all that was delivered to it, or to those before it.
    unsure: bool,
    draining: bool,
    lanes: Lanes<Given>,
    running: BTreeMap<Position, (Millis, End, Given)>,
    ended: Vec<(Given, End)>,
}

impl Part {
    fn new(epoch: Option<u64>) -> Part {
        Part {
            epoch,
            joined: false,
            unsure: true,
            draining: false,
            lanes: Lanes::new(MOST, usize::MAX),
            running: BTreeMap::new(),
            ended: Vec::new(),
        }
    }

    fn held(&self) -> Vec<Position> {
        let ended = self.ended.iter().map(|(given, _)| given.position);
        let mut held = self.lanes.waiting();
        held.extend(self.running.keys().copied().chain(ended));
        held.sort_unstable();
        held
    }
}

impl Member {
    pub fn new(name: Name, partitions: u32, drift: i64, net: &Net) -> Member {
        let lease = net.broker.lease;
        let ordered = net.broker.ordered;
        let mut parts = BTreeMap::new();
        if !ordered {
            parts.insert(0, Part::new(None));
        }
        Member {
            ownership: ordered.then(|| Ownership::new(name.clone(), partitions, lease)),
            name,
            drift,
            parts,
            look_at: net.now,
            beat_at: net.now,
            policy: RetryPolicy {
                base: Duration::from_millis(50),
                cap: Duration::from_secs(2),
                ..RetryPolicy::default()
            },
            lease,
            leaving: false,
            gone: false,
            asleep: None,
            careless: false,
        }
    }

    /// When it acts next, after `now`.
    pub fn wake(&self, now: Millis) -> Millis {
        if let Some(until) = self.asleep {
            return until.max(now + 1);
        }
        let owned = self.ownership.as_ref().and_then(Ownership::wake);
        let owned = owned.map(|at| self.world(at));
        let running = self
            .parts
            .values()
            .flat_map(|part| part.running.values().map(|(end, ..)| *end));
        let wake = owned
            .into_iter()
            .chain(running)
            .min()
            .unwrap_or(Millis::MAX);
        wake.min(self.look_at).max(now + 1)
    }

    /// Whether it would take a partition.
    pub fn is_here(&self) -> bool {
        self.asleep.is_none() && !self.leaving
    }

    pub fn sleep(&mut self, until: Millis) {
        self.asleep = Some(until);
    }

    pub fn leave(&mut self) {
        self.leaving = true;
        if let Some(ownership) = &mut self.ownership {
            ownership.leave();
        }
        if self.ownership.is_none() {
            self.parts
                .values_mut()
                .for_each(|part| part.draining = true);
        }
    }

    /// Does what there is to do. `false`: it died.
    pub fn step(&mut self, net: &mut Net) -> bool {
        if let Some(until) = self.asleep {
            if until > net.now {
                return true;
            }
            self.asleep = None;
            self.careless = net.chance.percent(70);
        }
        if std::mem::take(&mut self.careless) {
            self.finish(net);
            self.settle(net);
        }
        self.own(net);
        self.fetch(net);
        self.finish(net);
        self.settle(net);
        if !self.start(net) {
            return false;
        }
        self.settle(net);
        self.beat(net);
        self.hand_over(net);
        self.own(net);
        self.look_at = net.now + LOOK;
        true
    }

    /// The time by its own clock.
    fn local(&self, world: Millis) -> Millis {
        (world as i64 + world as i64 * self.drift / 1000) as Millis
    }

    fn world(&self, local: Millis) -> Millis {
        (local as i64 * 1000 / (1000 + self.drift) + 1) as Millis
    }

    fn own(&mut self, net: &mut Net) {
        let local = self.local(net.now);
        while let Some(step) = self
            .ownership
            .as_mut()
            .and_then(|ownership| ownership.next(local))
        {
            self.act(step, local, net);
        }
    }

    fn act(&mut self, step: Step, local: Millis, net: &mut Net) {
        let Some(ownership) = &mut self.ownership else {
            return;
        };
        let name = &self.name;
        match step {
            Step::Attend | Step::Look => match net.call(|broker, now, _| {
                if step == Step::Attend {
                    broker.attend(name, now);
                }
                broker.seats(now)
            }) {
                Ok(seats) => ownership.attended(local, local, &seats),
                Err(_) => ownership.not_attended(local),
            },
            Step::Acquire(partition) => {
                let Ok(lease) = net.call(|broker, now, _| broker.acquire(partition, name, now))
                else {
                    return;
                };
                let change = if lease.holder == *name {
                    ownership.granted(partition, lease.epoch, local, local)
                } else {
                    let remaining = lease.remaining.as_millis() as Millis;
                    ownership.refused(partition, remaining, local)
                };
                match change {
                    Change::None => (),
                    Change::Gained { epoch } | Change::Regained { epoch } => {
                        net.oracle.counts.gained += 1;
                        net.note(format_args!("{name} gained {partition} at epoch {epoch}"));
                        self.parts.insert(partition, Part::new(Some(epoch)));
                    }
                    Change::Lost => {
                        net.note(format_args!("{name} lost {partition}"));
                        self.parts.remove(&partition);
                    }
                }
            }
            Step::Drain(partition) => match self.parts.get_mut(&partition) {
                Some(part) => part.draining = true,
                None => ownership.drained(partition),
            },
            Step::Release(partition) => {
                self.parts.remove(&partition);
                net.oracle.counts.handed_over += 1;
                net.note(format_args!("{name} released {partition}"));
                let _ = net.call(|broker, now, _| broker.release(partition, name, now));
            }
            Step::Stop(partition) => {
                net.note(format_args!("{name} stopped {partition}"));
                self.parts.remove(&partition);
            }
            Step::Leave => {
                let _ = net.call(|broker, now, _| broker.leave_seat(name, now));
                self.gone = true;
            }
        }
    }

    /// Joins what it owns, and takes what there is room for.
    fn fetch(&mut self, net: &mut Net) {
        let mut fenced = Vec::new();
        for (number, part) in &mut self.parts {
            let actor = Actor {
                member: &self.name,
                epoch: part.epoch,
            };
            if !part.joined {
                match net.call(|broker, now, _| broker.join(*number, actor, now)) {
                    Ok(Ok(())) => part.joined = true,
                    Ok(Err(_)) => fenced.push(*number),
                    Err(_) => (),
                }
            }
            if part.joined
                && part.unsure
                && part.epoch.is_some()
                && let Ok(pending) = net.call(|broker, _, _| broker.pending(*number))
            {
                part.unsure = false;
                pending
                    .into_iter()
                    .for_each(|(position, key)| part.lanes.expect(position, key));
            }
            let room = match part.lanes.room(1) {
                0 if part.lanes.awaited() > 0 => 1,
                room => room.min(6),
            };
            let knows = part.joined && (!part.unsure || part.epoch.is_none());
            if !knows || part.draining || part.lanes.startable() > 0 || room == 0 {
                continue;
            }
            match net.call(|broker, now, oracle| broker.next(*number, actor, room, now, oracle)) {
                Ok(Ok(given)) => {
                    for given in given {
                        let in_order = part.epoch.is_some()
                            && net.broker.defect() != Some(Defect::OrderIgnored);
                        let key = if in_order {
                            given.sent.key.clone()
                        } else {
                            given.position.to_string()
                        };
                        part.lanes.add(given.position, key, 0, given);
                    }
                }
                Ok(Err(_)) => fenced.push(*number),
                Err(_) => {
                    part.unsure = net.broker.defect() != Some(Defect::LostAnswersForgotten);
                }
            }
        }
        for number in fenced {
            net.note(format_args!("{} is fenced from {number}", self.name));
            net.oracle.counts.fenced += 1;
            self.parts.remove(&number);
            if let Some(ownership) = &mut self.ownership {
                ownership.drained(number);
            }
        }
    }

    /// Begins handlers. `false`: one of them killed its process.
    fn start(&mut self, net: &mut Net) -> bool {
        let mut running: usize = self.parts.values().map(|part| part.running.len()).sum();
        for part in self.parts.values_mut() {
            while running < CONCURRENCY {
                let Some((position, given)) = part.lanes.start() else {
                    break;
                };
                if given.attempt > self.policy.max_attempts {
                    part.ended.push((given, End::DeadLetter));
                    continue;
                }
                let fate = net.fate(&given);
                if fate == Fate::Kills {
                    net.note(format_args!("{} is killed by {}", self.name, given.sent.id));
                    return false;
                }
                let age = Duration::from_millis(net.now.saturating_sub(position.major()));
                let end = match fate {
                    Fate::Succeeds | Fate::Kills => End::Effect,
                    Fate::IsWrong => End::DeadLetter,
                    Fate::Fails => {
                        match self
                            .policy
                            .decide(given.attempt, age, net.chance.fraction())
                        {
                            Decision::Retry { after } => End::Retry {
                                after: after.as_millis() as Millis,
                            },
                            Decision::GiveUp => End::DeadLetter,
                        }
                    }
                };
                let time = match net.chance.percent(5) {
                    true => net.chance.between(self.lease, 2 * self.lease),
                    false => net.chance.between(1, 100),
                };
                running += 1;
                part.running.insert(position, (net.now + time, end, given));
            }
        }
        true
    }

    /// Collects the handlers that have ended.
    fn finish(&mut self, net: &Net) {
        for part in self.parts.values_mut() {
            let done = part.running.iter().filter(|(_, (end, ..))| *end <= net.now);
            let done: Vec<Position> = done.map(|(position, _)| *position).collect();
            for position in done {
                if let Some((_, end, given)) = part.running.remove(&position) {
                    part.ended.push((given, end));
                }
            }
        }
    }

    fn settle(&mut self, net: &mut Net) {
        for (number, part) in &mut self.parts {
            let actor = Actor {
                member: &self.name,
                epoch: part.epoch,
            };
            for (given, end) in std::mem::take(&mut part.ended) {
                let is_retry = matches!(end, End::Retry { .. });
                let settled = net.settle(*number, actor, &given, end);
                match settled {
                    Err(Lost::NotSent) => part.ended.push((given, end)),
                    // A repeat is harmless, but for a retry: that message comes again in any case.
                    Err(Lost::Unknown) if !is_retry => part.ended.push((given, end)),
                    Ok(Ok(())) if is_retry => part.lanes.parked(given.position),
                    Err(Lost::Unknown) => part.lanes.parked(given.position),
                    Ok(Ok(())) => part.lanes.settled(given.position),
                    Ok(Err(_)) => {
                        net.oracle.counts.fenced += 1;
                        match is_retry {
                            true => part.lanes.parked(given.position),
                            false => part.lanes.settled(given.position),
                        }
                    }
                }
            }
        }
    }

    fn beat(&mut self, net: &mut Net) {
        if self.beat_at > net.now {
            return;
        }
        self.beat_at = net.now + self.lease / 3;
        for (number, part) in &self.parts {
            let actor = Actor {
                member: &self.name,
                epoch: part.epoch,
            };
            let held = part.held();
            let _ = net.call(|broker, now, _| broker.extend(*number, actor, &held, now));
        }
    }

    /// Gives up what was drained.
    fn hand_over(&mut self, net: &mut Net) {
        for (number, part) in &mut self.parts {
            if !part.draining || !part.lanes.is_quiet() || !part.ended.is_empty() {
                continue;
            }
            let actor = Actor {
                member: &self.name,
                epoch: part.epoch,
            };
            let _ = net.call(|broker, now, _| broker.leave(*number, actor, now));
            match &mut self.ownership {
                Some(ownership) => ownership.drained(*number),
                None => self.gone = true,
            }
        }
    }
}

/// How a handler ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Succeeds,
    /// It may work the next time.
    Fails,
    /// It never will.
    IsWrong,
    /// It takes its process with it.
    Kills,
}
