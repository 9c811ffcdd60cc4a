//! A world: members, a producer and faults, all from one seed, and time that jumps to where something happens.

use std::collections::BTreeMap;

use streamerson_core::Name;
use streamerson_core::time::Millis;

use crate::broker::{Broker, Defect, Sent};
use crate::chance::Chance;
use crate::member::Member;
use crate::net::Net;
use crate::oracle::{Counts, Oracle};

const LEASE: Millis = 1000;

/// Faults happen until then.
const PEACE: Millis = 12_000;

/// So long a partition may be nobody's while somebody is here: it was released for somebody who died, and was silent for
/// two fifths of a lease, which the others see a fifth later.
const ORPHANED: Millis = LEASE * 7 / 10;

/// So long after the last fault everything must be done.
const PATIENCE: Millis = 120_000;

/// What a run left.
#[derive(Debug)]
pub struct Report {
    pub hash: u64,
    pub counts: Counts,
    pub wrong: Option<String>,
    pub trace: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash,
    Sleep,
    Join,
    Leave,
    BrokerRestarts,
    CallsGetLost,
}

struct World {
    net: Net,
    partitions: u32,
    members: BTreeMap<u64, Member>,
    born: u64,
    faults: Vec<(Millis, Fault)>,
    returns: Vec<Millis>,
    producer: Producer,
    peace: bool,
    /// Until when each partition had an owner, or nobody could be one.
    owned: Vec<Millis>,
}

/// Sends the messages of each key one after the other, and some of them again.
struct Producer {
    next_at: Millis,
    left: u64,
    numbers: Vec<u64>,
    once: bool,
    /// Sent, with an answer that got lost: sent again before the next of its key.
    again: Vec<Sent>,
}

/// Runs the world of `seed` to its end.
pub fn run(seed: u64, defect: Option<Defect>, traced: bool) -> Report {
    let mut world = World::new(seed, defect, traced);
    world.run();
    Report {
        hash: world.net.oracle.hash(),
        counts: world.net.oracle.counts,
        wrong: world.net.oracle.wrong,
        trace: world.net.oracle.trace.unwrap_or_default(),
    }
}

impl World {
    fn new(seed: u64, defect: Option<Defect>, traced: bool) -> World {
        let mut chance = Chance::new(seed);
        let ordered = !chance.percent(25);
        let partitions = if ordered {
            chance.between(1, 7) as u32
        } else {
            1
        };
        let mut faults: Vec<(Millis, Fault)> = (0..chance.between(3, 14))
            .map(|_| {
                let kinds = [
                    Fault::Crash,
                    Fault::Sleep,
                    Fault::Join,
                    Fault::Leave,
                    Fault::BrokerRestarts,
                    Fault::CallsGetLost,
                ];
                let kind = kinds[chance.between(0, 6) as usize];
                (chance.between(200, PEACE), kind)
            })
            .collect();
        faults.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let oracle = Oracle::new(traced);
        let producer = Producer {
            next_at: 0,
            left: chance.between(60, 200),
            numbers: vec![0; chance.between(1, 9) as usize],
            once: chance.percent(50),
            again: Vec::new(),
        };
        let members = chance.between(1, 5);
        let net = Net {
            now: 0,
            broker: Broker::new(partitions, ordered, LEASE, defect),
            oracle,
            chance,
            down_until: 0,
            flaky_until: 0,
        };
        let mut world = World {
            net,
            partitions,
            members: BTreeMap::new(),
            born: 0,
            faults,
            returns: Vec::new(),
            producer,
            peace: false,
            owned: vec![0; partitions as usize],
        };
        (0..members).for_each(|_| world.be_born());
        world
    }

    fn run(&mut self) {
        while self.net.oracle.wrong.is_none() {
            if self.peace
                && self.producer.is_done()
                && self.net.oracle.is_done()
                && self.net.broker.is_drained()
            {
                return;
            }
            let next = self.next_time();
            if next > PEACE + PATIENCE {
                let missing: Vec<&String> = self.net.oracle.missing().take(5).collect();
                self.net.oracle.wrong = Some(format!(
                    "not all was done in time; without an end: {missing:?}"
                ));
                return;
            }
            self.net.now = next;
            self.fault();
            self.produce();
            self.step();
            self.look_for_orphans();
        }
    }

    fn next_time(&self) -> Millis {
        let now = self.net.now;
        let members = self.members.values().map(|member| member.wake(now));
        let fault = self.faults.last().map(|(at, _)| *at);
        let returns = self.returns.iter().copied();
        let produce = (!self.producer.is_done()).then_some(self.producer.next_at);
        let peace = (!self.peace).then_some(PEACE);
        let all = members
            .chain(fault)
            .chain(returns)
            .chain(produce)
            .chain(peace);
        all.min().unwrap_or(Millis::MAX).max(now + 1)
    }

    fn step(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            // Nobody else is awake at the same time, so that the order among members is part of the schedule.
            let alive = member.step(&mut self.net);
            if !alive {
                self.crash(id);
            } else if member.gone {
                self.members.remove(&id);
            }
        }
    }

    /// A partition that is nobody's has an owner soon, if only somebody is here.
    fn look_for_orphans(&mut self) {
        let now = self.net.now;
        let anybody = self.net.is_calm() && self.members.values().any(Member::is_here);
        for (number, owned) in (0..).zip(&mut self.owned) {
            if !anybody || self.net.broker.is_owned(number, now) {
                *owned = now;
            }
            let lasted = now - *owned;
            if lasted > ORPHANED {
                let wrong = format!("partition {number} was nobody's for {lasted} ms");
                self.net.oracle.fail(wrong);
            }
        }
    }

    fn crash(&mut self, id: u64) {
        if self.members.remove(&id).is_some() {
            self.net.oracle.counts.crashes += 1;
            self.returns
                .push(self.net.now + self.net.chance.between(50, 1500));
        }
    }

    fn be_born(&mut self) {
        self.born += 1;
        let name = Name::new(format!("m{}", self.born)).unwrap();
        self.net.note(format_args!("{name} is here"));
        let drift = self.net.chance.between(0, 21) as i64 - 10;
        let member = Member::new(name, self.partitions, drift, &self.net);
        self.members.insert(self.born, member);
    }

    fn fault(&mut self) {
        let now = self.net.now;
        let returning = self.returns.iter().filter(|at| **at <= now).count();
        self.returns.retain(|at| *at > now);
        (0..returning).for_each(|_| self.be_born());
        while let Some((_, fault)) = self.faults.pop_if(|(at, _)| *at <= now) {
            self.strike(fault);
        }
        if now >= PEACE && !self.peace {
            self.peace = true;
            self.net.note(format_args!("peace"));
            // Somebody stays.
            if self.members.values().all(|member| member.leaving) {
                self.be_born();
            }
        }
    }

    fn strike(&mut self, fault: Fault) {
        let now = self.net.now;
        self.net.note(format_args!("{fault:?}"));
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let victim = ids
            .get(self.net.chance.between(0, ids.len().max(1) as u64) as usize)
            .copied();
        match (fault, victim) {
            (Fault::Crash, Some(id)) => self.crash(id),
            (Fault::Sleep, Some(id)) => {
                let until = now + self.net.chance.between(LEASE / 5, 3 * LEASE);
                if let Some(member) = self.members.get_mut(&id) {
                    member.sleep(until);
                }
            }
            (Fault::Leave, Some(id)) if self.members.len() > 1 => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.leave();
                }
            }
            (Fault::Join, _) if self.members.len() < 6 => self.be_born(),
            (Fault::BrokerRestarts, _) => {
                self.net.down_until = now + self.net.chance.between(50, 2 * LEASE);
            }
            (Fault::CallsGetLost, _) => {
                self.net.flaky_until = now + self.net.chance.between(100, 2 * LEASE);
            }
            _ => (),
        }
    }

    fn produce(&mut self) {
        let producer = &mut self.producer;
        if producer.is_done() || producer.next_at > self.net.now {
            return;
        }
        producer.next_at = self.net.now + self.net.chance.between(1, 100);
        let (sent, fresh) = match producer.again.pop() {
            Some(sent) => (sent, false),
            None => (producer.compose(&mut self.net.chance), true),
        };
        let once = producer.once;
        let stored = self
            .net
            .call(|broker, now, oracle| broker.append(sent.clone(), once, now, oracle));
        let again = match stored {
            Err(_) => true,
            // An answer that came too late, or a user who pressed the button twice.
            Ok(()) => fresh && self.net.chance.percent(10),
        };
        if again {
            self.producer.again.push(sent);
        }
    }
}

impl Producer {
    fn is_done(&self) -> bool {
        self.left == 0 && self.again.is_empty()
    }

    fn compose(&mut self, chance: &mut Chance) -> Sent {
        self.left -= 1;
        let which = chance.between(0, self.numbers.len() as u64) as usize;
        self.numbers[which] += 1;
        let (key, number) = (format!("k{which}"), self.numbers[which]);
        Sent {
            id: format!("{key}-{number}"),
            key,
            number,
        }
    }
}
