//! In which order faults come, and when. Pure: the same seed gives the same order.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::fault::Fault;

/// One fault, after a calm of `calm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Episode {
    pub(crate) calm: Duration,
    pub(crate) fault: Fault,
}

/// Episodes without end, in rounds: each fault once in a round, in an order left to chance.
#[derive(Debug)]
pub(crate) struct Schedule {
    chance: StdRng,
    faults: Vec<Fault>,
    round: Vec<Fault>,
    lease: Duration,
}

impl Schedule {
    /// The episodes among `faults`, with a calm of one and a half to two and a half leases between them: long enough that
    /// calls begin and end in it.
    pub(crate) fn new(seed: u64, faults: &[Fault], lease: Duration) -> Schedule {
        Schedule {
            chance: StdRng::seed_from_u64(seed),
            faults: faults
                .iter()
                .copied()
                .filter(|fault| fault.is_episode())
                .collect(),
            round: Vec::new(),
            lease,
        }
    }
}

impl Iterator for Schedule {
    type Item = Episode;

    fn next(&mut self) -> Option<Episode> {
        if self.round.is_empty() {
            self.round.clone_from(&self.faults);
            self.round.shuffle(&mut self.chance);
        }
        let fault = self.round.pop()?;
        let calm = self.lease.mul_f64(self.chance.random_range(1.5..2.5));
        Some(Episode { calm, fault })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(1);

    #[test]
    fn the_same_seed_gives_the_same_episodes() {
        let episodes = |seed| Schedule::new(seed, Fault::all(), LEASE).take(60);
        assert!(episodes(7).eq(episodes(7)));
        assert!(!episodes(7).eq(episodes(8)));
    }

    #[test]
    fn every_fault_comes_once_in_a_round() {
        let mut schedule = Schedule::new(1, Fault::all(), LEASE);
        let length = Fault::all()
            .iter()
            .filter(|fault| fault.is_episode())
            .count();
        for _ in 0..10 {
            let mut round: Vec<Fault> = (&mut schedule).take(length).map(|e| e.fault).collect();
            round.sort();
            round.dedup();
            assert_eq!(round.len(), length);
        }
    }

    #[test]
    fn without_episodes_there_is_nothing_to_wait_for() {
        assert_eq!(Schedule::new(1, &[Fault::Kill], LEASE).next(), None);
    }
}
