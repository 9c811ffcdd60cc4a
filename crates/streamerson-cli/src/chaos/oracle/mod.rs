//! The oracle: what must be true of a run, whatever went wrong in it. Pure: a record in, a verdict out.
//!
//! [`rules`] are the promises, [`guards`] see to it that a run which proves nothing does not pass, [`takeover`]
//! measures how long the work of a lost worker waits.

mod guards;
mod index;
mod rules;
mod takeover;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

use super::fault::Fault;
use super::record::Record;
pub(crate) use index::Balance;
use index::Index;
pub(crate) use takeover::Takeovers;

/// Violations that are told one by one.
const EXAMPLES: usize = 5;

/// What a run was to do.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) lease: Duration,
    /// Deliveries of one message, at most.
    pub(crate) attempts: usize,
    pub(crate) faults: Vec<Fault>,
    pub(crate) kills: usize,
    /// The work of a killed worker goes on within this, 99 times of 100.
    pub(crate) takeover_within: Option<Duration>,
}

/// What is to be thought of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// Whether every promise was kept, and the run was worth something.
    pub(crate) holds: bool,
    pub(crate) rules: Vec<Finding>,
    pub(crate) guards: Vec<Guard>,
    pub(crate) balance: Balance,
    /// Of queued work.
    pub(crate) takeovers: Takeovers,
    /// Of partitions, whose work waits for another owner.
    pub(crate) ordered_takeovers: Takeovers,
}

/// What became of one promise.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    pub(crate) checked: usize,
    pub(crate) violations: usize,
    /// The first of them.
    pub(crate) examples: Vec<String>,
}

/// Something that must have happened, or the run proves nothing about it.
#[derive(Debug, Serialize)]
pub(crate) struct Guard {
    pub(crate) what: &'static str,
    pub(crate) at_least: usize,
    pub(crate) seen: usize,
}

impl Finding {
    fn new(rule: &'static str) -> Finding {
        Finding {
            rule,
            checked: 0,
            violations: 0,
            examples: Vec::new(),
        }
    }

    /// One more thing looked at. It must be so, or else it says why not.
    fn check(&mut self, is_so: bool, otherwise: impl FnOnce() -> String) {
        self.checked += 1;
        if is_so {
            return;
        }
        self.violations += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(otherwise());
        }
    }
}

impl Guard {
    pub(crate) fn holds(&self) -> bool {
        self.seen >= self.at_least
    }
}

/// Judges `record` by `terms`.
pub(crate) fn judge(record: &Record, terms: &Terms) -> Verdict {
    let index = Index::of(record);
    let takeovers = takeover::of_messages(record, terms.lease);
    let ordered_takeovers = takeover::of_partitions(record, terms.lease);
    let mut rules = rules::all(&index, terms);
    rules.extend(takeover::rules(&takeovers, &ordered_takeovers, terms));
    let guards = guards::all(&index, (&takeovers, &ordered_takeovers), terms);
    Verdict {
        holds: rules.iter().all(|finding| finding.violations == 0)
            && guards.iter().all(Guard::holds),
        rules,
        guards,
        balance: index.balance(),
        takeovers,
        ordered_takeovers,
    }
}
