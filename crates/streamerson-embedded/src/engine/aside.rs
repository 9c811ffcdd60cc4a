//! What is kept aside until it is due: messages that are to appear in their topics later.

use std::collections::{BTreeMap, BTreeSet};

use streamerson_core::{Error, Position, Result, Topic};

use super::cold::Place;
use super::state::{After, State};
use super::topic::Slot;
use crate::body::Body;

/// How many messages may be kept aside: each takes memory.
const MOST: usize = 1_000_000;

/// What is kept aside, in the order in which it is due.
///
/// What each is kept as looks like a position: the due time in unix milliseconds, and a number.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    waiting: BTreeMap<Position, Waiting>,
    /// Of these, those that cannot be read or are refused. They are tried again after a restart.
    skipped: BTreeSet<Position>,
    /// Numbers given.
    given: u64,
    /// Of these, those that are not stored yet.
    coming: usize,
}

/// A message that is kept aside.
#[derive(Debug)]
struct Waiting {
    topic: Topic,
    slot: Slot,
}

impl Aside {
    /// A name for a message that is to be kept until `due`.
    pub(crate) fn reserve(&mut self, due: u64) -> Result<Position> {
        if self.waiting.len() + self.coming >= MOST {
            return Err(Error::unavailable(
                "too-many-scheduled",
                format!(
                    "{MOST} messages are kept until they are due already: schedule less far ahead, or wait until some have appeared"
                ),
            ));
        }
        self.given += 1;
        self.coming += 1;
        Ok(Position::new(due, self.given))
    }

    /// What was reserved is not kept after all.
    pub(crate) fn give_up(&mut self) {
        self.coming = self.coming.saturating_sub(1);
    }

    /// Whether `id` is kept.
    pub(crate) fn has(&self, id: Position) -> bool {
        self.waiting.contains_key(&id)
    }

    /// `id` cannot appear: it is kept, but is not due any more.
    pub(crate) fn skip(&mut self, id: Position) {
        if self.has(id) {
            self.skipped.insert(id);
        }
    }

    /// When the first is due, in unix milliseconds.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.waiting().next().map(|(id, _)| id.major())
    }

    fn waiting(&self) -> impl Iterator<Item = (&Position, &Waiting)> {
        let waiting = self.waiting.iter();
        waiting.filter(|(id, _)| !self.skipped.contains(id))
    }

    /// What each is kept as.
    pub(crate) fn ids(&self) -> Vec<Position> {
        self.waiting.keys().copied().collect()
    }

    /// Up to `max` that are due, with where they go.
    pub(crate) fn due(&self, unix_ms: u64, max: usize) -> Vec<((Position, Topic), Option<Slot>)> {
        let due = self.waiting().take_while(|(id, _)| id.major() <= unix_ms);
        due.take(max)
            .map(|(id, waiting)| ((*id, waiting.topic.clone()), Some(waiting.slot.clone())))
            .collect()
    }
}

impl State {
    /// A committed message is kept aside as `id`.
    pub(crate) fn set_aside(
        &mut self,
        id: Position,
        topic: &Topic,
        (place, body): (Place, Body),
        after: &mut After,
    ) {
        self.aside.give_up();
        let slot = match self.stores_bodies() {
            true => {
                self.memory += body.size();
                Slot::Here(body)
            }
            false => {
                after.garbage.push(body);
                Slot::Stored(place)
            }
        };
        let earlier = self.aside.next_due().is_none_or(|due| id.major() < due);
        after.due |= earlier;
        self.keep_aside(id, topic, slot);
    }

    /// The same, as found in the log.
    pub(crate) fn keep_aside(&mut self, id: Position, topic: &Topic, slot: Slot) {
        if let Slot::Stored(place) = &slot {
            self.hold(place.segment);
        }
        let state = self.topic_or_new(topic);
        state.scheduled += 1;
        state.removed = false;
        let topic = topic.clone();
        self.aside.given = self.aside.given.max(id.minor());
        self.aside.waiting.insert(id, Waiting { topic, slot });
    }

    /// `id` is not kept aside any more.
    pub(crate) fn drop_aside(&mut self, id: Position) {
        let Some(Waiting { topic, slot }) = self.aside.waiting.remove(&id) else {
            return;
        };
        self.aside.skipped.remove(&id);
        match slot {
            Slot::Here(body) => self.memory -= body.size(),
            Slot::Stored(place) => self.release(place.segment),
        }
        if let Some(state) = self.topic_mut(&topic) {
            state.scheduled -= 1;
        }
    }

    /// Nothing is kept aside for `topic` any more.
    pub(crate) fn drop_aside_of(&mut self, topic: &Topic) {
        if self.topic(topic).is_none_or(|state| state.scheduled == 0) {
            return;
        }
        let of_topic = self.aside.waiting.iter().filter(|(_, w)| w.topic == *topic);
        let ids: Vec<Position> = of_topic.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.drop_aside(id));
    }

    /// Of what is kept aside, only `ids` still are: the others appeared, as a checkpoint says.
    pub(crate) fn keep_aside_only(&mut self, ids: &[Position]) {
        let gone = self.aside.waiting.keys();
        let gone: Vec<Position> = gone
            .filter(|id| ids.binary_search(id).is_err())
            .copied()
            .collect();
        gone.into_iter().for_each(|id| self.drop_aside(id));
    }
}
