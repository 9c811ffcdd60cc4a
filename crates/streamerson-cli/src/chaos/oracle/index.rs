//! A record, so that it can be looked up by message.

use std::collections::HashMap;

use serde::Serialize;

use crate::chaos::record::{Call, Effect, End, Kind, Letter, Place, Record, Stored};

/// The record, and everything in it by message id.
pub(super) struct Index<'a> {
    pub(super) record: &'a Record,
    pub(super) calls: HashMap<&'a str, &'a Call>,
    pub(super) effects: HashMap<&'a str, Vec<&'a Effect>>,
    pub(super) letters: HashMap<&'a str, Vec<&'a Letter>>,
    pub(super) entries: HashMap<&'a str, Vec<Place>>,
}

/// What became of every entry ever appended: the parts add up to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Balance {
    pub(crate) appended: usize,
    /// Their work has its effect.
    pub(crate) effective: usize,
    pub(crate) dead: usize,
    /// Requests whose caller was told of a failure, or waits no more.
    pub(crate) given_up: usize,
    /// None of these.
    pub(crate) missing: usize,
}

/// How an entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Effective,
    Dead,
    GivenUp,
    Missing,
}

impl<'a> Index<'a> {
    pub(super) fn of(record: &'a Record) -> Index<'a> {
        let mut index = Index {
            record,
            calls: HashMap::with_capacity(record.calls.len()),
            effects: HashMap::with_capacity(record.effects.len()),
            letters: HashMap::new(),
            entries: HashMap::with_capacity(record.entries.len()),
        };
        for call in &record.calls {
            index.calls.insert(&call.id, call);
        }
        for effect in &record.effects {
            index.effects.entry(&effect.id).or_default().push(effect);
        }
        for letter in &record.letters {
            index.letters.entry(&letter.id).or_default().push(letter);
        }
        for Stored { id, place } in &record.entries {
            index.entries.entry(id).or_default().push(*place);
        }
        index
    }

    pub(super) fn has_effect(&self, id: &str) -> bool {
        self.effects.contains_key(id)
    }

    pub(super) fn is_dead(&self, id: &str) -> bool {
        self.letters.contains_key(id)
    }

    pub(super) fn is_missing(&self, id: &str) -> bool {
        self.fate(id) == Fate::Missing
    }

    pub(super) fn balance(&self) -> Balance {
        let mut balance = Balance {
            appended: self.record.entries.len(),
            ..Balance::default()
        };
        for entry in &self.record.entries {
            *match self.fate(&entry.id) {
                Fate::Effective => &mut balance.effective,
                Fate::Dead => &mut balance.dead,
                Fate::GivenUp => &mut balance.given_up,
                Fate::Missing => &mut balance.missing,
            } += 1;
        }
        balance
    }

    fn fate(&self, id: &str) -> Fate {
        if self.has_effect(id) {
            return Fate::Effective;
        }
        if self.is_dead(id) {
            return Fate::Dead;
        }
        let Some(call) = self.calls.get(id) else {
            return Fate::Missing;
        };
        // A worker drops a request that nobody waits for any more.
        let may_be_dropped = matches!(call.end, End::Failed(_) | End::Unknown(_));
        match call.kind {
            Kind::Request if may_be_dropped => Fate::GivenUp,
            _ => Fate::Missing,
        }
    }
}
