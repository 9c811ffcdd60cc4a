//! The oracle: knows what was sent, sees what ends how, and says what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Arguments, Write};
use std::hash::{DefaultHasher, Hasher};

use streamerson_core::Position;
use streamerson_core::time::Millis;

use crate::broker::Sent;

/// What happened in a run, for its hash, its reader, and the checks on whether anything happened at all.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Sent and stored at least once: not ended yet, by id.
    open: BTreeSet<String>,
    ended: BTreeMap<String, &'static str>,
    /// The last of each key that ended, in ordered runs.
    last: BTreeMap<String, u64>,
    /// Who settled, by partition and epoch.
    settlers: BTreeMap<(u32, u64), String>,
    newest_epoch: BTreeMap<u32, u64>,
    pub counts: Counts,
    pub wrong: Option<String>,
    hasher: DefaultHasher,
    line: String,
    /// Every line, when somebody wants to read them.
    pub trace: Option<Vec<String>>,
}

/// How often the interesting things happened; a simulation in which they did not proves nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub effects: u64,
    pub dead: u64,
    pub repeated: u64,
    pub retried: u64,
    pub taken_over: u64,
    pub fenced: u64,
    pub gained: u64,
    pub handed_over: u64,
    pub crashes: u64,
    pub unknown: u64,
}

impl Oracle {
    pub fn new(traced: bool) -> Oracle {
        Oracle {
            trace: traced.then(Vec::new),
            ..Oracle::default()
        }
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, now: Millis, what: Arguments<'_>) {
        self.line.clear();
        let _ = write!(self.line, "{now:>7} {what}");
        self.hasher.write(self.line.as_bytes());
        if let Some(trace) = &mut self.trace {
            trace.push(self.line.clone());
        }
    }

    /// Something is wrong; what was so first is told.
    pub fn fail(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn stored(&mut self, sent: &Sent) {
        if !self.ended.contains_key(&sent.id) {
            self.open.insert(sent.id.clone());
        }
    }

    /// A settlement was accepted, from the holder of `epoch` where there is one.
    pub fn settled(&mut self, partition: u32, epoch: Option<u64>, member: &str) {
        let Some(epoch) = epoch else { return };
        let first = self
            .settlers
            .entry((partition, epoch))
            .or_insert_with(|| member.to_owned());
        if first != member {
            let wrong =
                format!("{first} and {member} settled in partition {partition} at epoch {epoch}");
            self.fail(wrong);
        }
        let newest = self.newest_epoch.insert(partition, epoch).unwrap_or(0);
        if newest > epoch {
            self.fail(format!(
                "{member} settled in partition {partition} at epoch {epoch}, after epoch {newest} did"
            ));
        }
    }

    /// An effect, or a dead letter, appeared.
    pub fn appeared(&mut self, sent: &Sent, position: Position, how: &'static str, ordered: bool) {
        match how {
            "effect" => self.counts.effects += 1,
            _ => self.counts.dead += 1,
        }
        self.open.remove(&sent.id);
        if let Some(before) = self.ended.insert(sent.id.clone(), how) {
            let wrong = format!(
                "{} ended twice: as {before}, and as {how} at {position}",
                sent.id
            );
            self.fail(wrong);
        }
        if !ordered {
            return;
        }
        if let Some(before) = self.last.insert(sent.key.clone(), sent.number)
            && before >= sent.number
        {
            let wrong = format!("of key {}, {} came after {before}", sent.key, sent.number);
            self.fail(wrong);
        }
    }

    pub fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// What was stored and never ended.
    pub fn missing(&self) -> impl Iterator<Item = &String> {
        self.open.iter()
    }
}

impl Counts {
    pub fn add(&mut self, more: &Counts) {
        self.effects += more.effects;
        self.dead += more.dead;
        self.repeated += more.repeated;
        self.retried += more.retried;
        self.taken_over += more.taken_over;
        self.fenced += more.fenced;
        self.gained += more.gained;
        self.handed_over += more.handed_over;
        self.crashes += more.crashes;
        self.unknown += more.unknown;
    }
}
