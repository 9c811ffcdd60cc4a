//! What members know of the world: a broker behind calls that may not arrive, and whose answers may not.

use std::fmt::Arguments;

use streamerson_core::time::Millis;

use crate::broker::{Actor, Broker, End, Fenced, Given};
use crate::chance::Chance;
use crate::member::Fate;
use crate::oracle::Oracle;

pub struct Net {
    pub now: Millis,
    pub broker: Broker,
    pub oracle: Oracle,
    pub chance: Chance,
    /// The broker is away until then.
    pub down_until: Millis,
    /// Of a hundred calls so many get lost, until then.
    pub flaky_until: Millis,
}

/// A call without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Nothing happened.
    NotSent,
    /// It may have happened.
    Unknown,
}

impl Net {
    pub fn note(&mut self, what: Arguments<'_>) {
        self.oracle.note(self.now, what);
    }

    /// Whether calls arrive, and answers too.
    pub fn is_calm(&self) -> bool {
        self.now >= self.down_until && self.now >= self.flaky_until
    }

    /// Calls the broker.
    pub fn call<T>(
        &mut self,
        act: impl FnOnce(&mut Broker, Millis, &mut Oracle) -> T,
    ) -> Result<T, Lost> {
        self.reach(|broker, now, oracle, _| act(broker, now, oracle))
    }

    pub fn settle(
        &mut self,
        number: u32,
        actor: Actor<'_>,
        given: &Given,
        end: End,
    ) -> Result<Result<(), Fenced>, Lost> {
        self.reach(|broker, now, oracle, chance| {
            broker.settle(number, actor, given, end, now, (oracle, chance))
        })
    }

    fn reach<T>(
        &mut self,
        act: impl FnOnce(&mut Broker, Millis, &mut Oracle, &mut Chance) -> T,
    ) -> Result<T, Lost> {
        if self.now < self.down_until {
            return Err(Lost::NotSent);
        }
        if self.now < self.flaky_until && self.chance.percent(25) {
            self.oracle.counts.unknown += 1;
            if self.chance.percent(50) {
                act(
                    &mut self.broker,
                    self.now,
                    &mut self.oracle,
                    &mut self.chance,
                );
            }
            return Err(Lost::Unknown);
        }
        Ok(act(
            &mut self.broker,
            self.now,
            &mut self.oracle,
            &mut self.chance,
        ))
    }

    /// How the handler of a message ends: the same whoever runs it.
    pub fn fate(&self, given: &Given) -> Fate {
        let of_message = Chance::new(
            given.sent.number ^ (given.sent.key.len() as u64) << 32 ^ hash(&given.sent.id),
        )
        .next()
            % 100;
        match of_message {
            0 => Fate::Kills,
            1..3 => Fate::IsWrong,
            3..6 => Fate::Fails,
            6..20 if given.attempt < 3 => Fate::Fails,
            _ => Fate::Succeeds,
        }
    }
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(7, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    })
}
