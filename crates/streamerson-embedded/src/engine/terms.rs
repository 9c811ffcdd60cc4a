//! Entries that are not simply appended: those that are to appear later, and those that are to be stored once.
//!
//! Also completions that are to have their effect once: what the first answered is remembered for the later ones.

use bytes::Bytes;
use bytestring::ByteString;
use streamerson_core::once::{Answer, Remembered};
use streamerson_core::time::{Millis, millis};
use streamerson_core::{Append, Error, Name, Once, Position, Result, Topic};

use super::GroupKey;
use super::cold::Place;
use super::op::Pending;
use super::remembered::Kept;
use super::state::{After, State};
use super::topic::Stored;
use crate::body::Body;
use crate::log::encode::Encoder;
use crate::log::record::Record;

/// When, and how often, an entry is to appear.
#[derive(Debug)]
pub(crate) struct Terms {
    due: Option<u64>,
    once: Option<Once>,
    /// It was kept aside as this until now.
    kept_as: Option<Position>,
    way: Way,
    /// Until when its key is remembered, in unix milliseconds.
    until: u64,
}

/// Where an entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into its topic.
    Stands,
    /// Aside, until it is due.
    Aside(Position),
    /// Into its topic, after it was kept aside.
    Appears(Position),
    /// Nowhere: one with the same key was stored before.
    Repeats,
}

impl Terms {
    /// The terms of `append`, if there are any.
    pub(crate) fn of(append: &Append) -> Option<Box<Terms>> {
        let (due, once) = (append.due(), append.only_once());
        (due.is_some() || once.is_some()).then(|| {
            Box::new(Terms {
                due,
                once: once.map(own),
                kept_as: None,
                way: Way::Stands,
                until: 0,
            })
        })
    }

    /// The terms of what was kept aside as `id`, and is due.
    pub(crate) fn due(id: Position) -> Box<Terms> {
        Box::new(Terms {
            due: None,
            once: None,
            kept_as: Some(id),
            way: Way::Stands,
            until: 0,
        })
    }

    /// Whether it may be kept aside.
    pub(crate) fn may_wait(&self) -> bool {
        self.due.is_some()
    }

    /// No more bytes than this are written for them.
    pub(crate) fn bound(&self) -> usize {
        // The identity of what appears; a record with the topic's name again.
        16 + self.once.as_ref().map_or(0, |once| 256 + once.key.len())
    }
}

/// A key that shares the buffer it was read from would keep it.
fn own(once: &Once) -> Once {
    Once::new(ByteString::from(once.key.to_string()), once.keep)
}

impl Pending {
    /// Where it goes.
    pub(crate) fn way(&self) -> Way {
        self.terms.as_ref().map_or(Way::Stands, |terms| terms.way)
    }
}

/// Decides about an entry that has terms: answers the position that its writer is told.
pub(crate) fn place(state: &mut State, entry: &mut Pending, unix_ms: u64) -> Result<Position> {
    let Pending {
        topic,
        terms: Some(terms),
        insisted,
        position: given,
        ..
    } = entry
    else {
        return stand(
            state,
            &entry.topic,
            entry.insisted,
            &entry.position,
            unix_ms,
        );
    };
    if topic.is_inbox() {
        return Err(Error::invalid(
            "inbox-terms",
            "a message to an inbox has neither a due time nor a key for once, because an inbox does not last: send it to a topic, or without",
        ));
    }
    if let Some(once) = &terms.once {
        once.check()?;
        let keys = state.topic(topic).map(|topic| &topic.keys);
        if let Some(first) = keys.and_then(|keys| keys.recall(&once.key, unix_ms)) {
            terms.way = Way::Repeats;
            return Ok(first.of);
        }
        state.remembered.check(&once.key, &Position::ZERO)?;
    }
    let (way, position) = match (terms.kept_as, terms.due) {
        (Some(id), _) if !state.aside.has(id) => return Err(removed(topic)),
        (Some(id), _) => (
            Way::Appears(id),
            stand(state, topic, *insisted, given, unix_ms)?,
        ),
        (None, Some(due)) if due > unix_ms => {
            state.admit(topic)?;
            (Way::Aside(state.aside.reserve(due)?), Position::ZERO)
        }
        _ => (Way::Stands, stand(state, topic, *insisted, given, unix_ms)?),
    };
    terms.way = way;
    if let Some(once) = &terms.once {
        terms.until = until(once, unix_ms);
        let position = state.remembered.keep(&once.key, position);
        let keys = &mut state.topic_or_new(topic).keys;
        keys.remember(once, position, unix_ms);
    }
    Ok(position)
}

/// The position of an entry that stands in its topic: what it was given already, if it is decided again, so that the order stays.
fn stand(
    state: &mut State,
    topic: &Topic,
    insisted: Option<Position>,
    given: &Result<Position>,
    unix_ms: u64,
) -> Result<Position> {
    match given {
        Ok(given) if *given > Position::ZERO => Ok(*given),
        _ => state.assign(topic, insisted, unix_ms),
    }
}

/// Puts back what [`place`] changed.
pub(crate) fn undo(state: &mut State, entry: &Pending) {
    let (Some(terms), true) = (&entry.terms, entry.position.is_ok()) else {
        return;
    };
    if let Way::Aside(_) = terms.way {
        state.aside.give_up();
    }
    if let (Some(once), false) = (&terms.once, terms.way == Way::Repeats)
        && let Some(topic) = state.topic_mut(&entry.topic)
    {
        topic.keys.remove(&once.key);
    }
}

/// Writes an entry that does not simply stand in its topic, and answers where.
pub(crate) fn encode(encoder: &mut Encoder, entry: &Pending) -> u32 {
    let position = entry.position.clone().unwrap_or_default();
    match entry.way() {
        Way::Stands => encoder.append(&entry.topic, position, &entry.body),
        Way::Aside(id) => encoder.scheduled(&entry.topic, id, &entry.body),
        Way::Appears(id) => encoder.appeared(id, &entry.topic, position, &entry.body),
        Way::Repeats => 0,
    }
}

/// Writes the key under which an entry was stored, if it has one.
pub(crate) fn encode_key(encoder: &mut Encoder, entry: &Pending) {
    let Some(terms) = &entry.terms else { return };
    if let (Some(once), false) = (&terms.once, terms.way == Way::Repeats) {
        encoder.record(&Record::StoredOnce {
            topic: entry.topic.clone(),
            key: once.key.clone(),
            position: entry.position.clone().unwrap_or_default(),
            until: terms.until,
        });
    }
}

/// Makes a committed entry that has terms what it is to be.
pub(crate) fn apply(
    state: &mut State,
    entry: Pending,
    place: Place,
    now: Millis,
    after: &mut After,
) {
    match entry.way() {
        Way::Aside(id) => {
            return state.set_aside(id, &entry.topic, (place, entry.body), after);
        }
        Way::Repeats => return after.garbage.push(entry.body),
        Way::Appears(id) => state.drop_aside(id),
        Way::Stands => {}
    }
    let stored = Stored {
        position: entry.position.unwrap_or_default(),
        place,
        body: entry.body,
    };
    state.show(&entry.topic, stored, now, after);
}

/// A completion whose effect is to happen once.
#[derive(Debug)]
pub(crate) struct Effect {
    once: Once,
    /// Whether this is the first. Then the key, and what it answered, are to be remembered.
    first: bool,
    /// Until when the key is remembered, in unix milliseconds.
    until: u64,
}

impl Effect {
    /// What is to happen once.
    pub(crate) fn new(once: &Once) -> Box<Effect> {
        let once = own(once);
        Box::new(Effect {
            once,
            first: false,
            until: 0,
        })
    }

    /// Decides about it: remembers it if it is the first, else leaves of `outputs` what appears again.
    pub(crate) fn decide(
        &mut self,
        state: &mut State,
        key: &GroupKey,
        outputs: &mut Vec<Pending>,
        unix_ms: u64,
    ) -> Result<()> {
        self.once.check()?;
        let effects = state
            .topic(&key.topic)
            .and_then(|topic| topic.effects.get(&key.group));
        if let Some(first) = effects.and_then(|effects| effects.recall(&self.once.key, unix_ms)) {
            repeat(outputs, first.of.as_ref());
            return Ok(());
        }
        let answer = answer(outputs);
        state.remembered.check(&self.once.key, &answer)?;
        self.first = true;
        self.until = until(&self.once, unix_ms);
        let answer = state.remembered.keep(&self.once.key, answer);
        let effects = effects_of(state, &key.topic, &key.group);
        effects.remember(&self.once, answer, unix_ms);
        Ok(())
    }

    /// Puts back what [`Effect::decide`] remembered.
    pub(crate) fn undo(&self, state: &mut State, key: &GroupKey) {
        if self.first {
            effects_of(state, &key.topic, &key.group).remove(&self.once.key);
        }
    }

    /// Writes the key and the answer, if it is the first.
    pub(crate) fn encode(&self, encoder: &mut Encoder, key: &GroupKey, outputs: &[Pending]) {
        if self.first {
            let answer = answer(outputs).map(|answer| (answer.meta, answer.data));
            encoder.record(&Record::DoneOnce {
                topic: key.topic.clone(),
                group: key.group.clone(),
                key: self.once.key.clone(),
                until: self.until,
                answer,
            });
        }
    }

    /// No more bytes than this are written for it.
    pub(crate) fn bound(&self, outputs: &[Pending]) -> usize {
        let answers = outputs.iter().filter(|output| output.topic.is_inbox());
        1024 + answers.map(|output| output.body.size()).max().unwrap_or(0)
    }
}

/// What a group has done once.
fn effects_of<'a>(
    state: &'a mut State,
    topic: &Topic,
    group: &Name,
) -> &'a mut Remembered<Kept<Option<Answer>>> {
    let topic = state.topic_or_new(topic);
    topic.effects.entry(group.clone()).or_default()
}

/// The first answer to an inbox among `outputs`, in memory of its own.
fn answer(outputs: &[Pending]) -> Option<Answer> {
    let first = outputs.iter().find(|output| output.topic.is_inbox())?;
    match &first.body {
        Body::Message(message) => Some(Answer {
            meta: Bytes::copy_from_slice(&message.meta),
            data: Bytes::copy_from_slice(&message.data),
        }),
        Body::Foreign(_) => None,
    }
}

/// What appears of the outputs of a completion that happened before.
fn repeat(outputs: &mut Vec<Pending>, first: Option<&Answer>) {
    outputs.retain(|output| output.topic.is_inbox());
    let Some(answer) = first else { return };
    for output in outputs {
        if let Body::Message(message) = &mut output.body {
            message.meta = answer.meta.clone();
            message.data = answer.data.clone();
        }
    }
}

fn until(once: &Once, unix_ms: u64) -> u64 {
    unix_ms.saturating_add(millis(once.keep))
}

fn removed(topic: &Topic) -> Error {
    Error::new(
        streamerson_core::ErrorKind::NotFound,
        "topic-not-found",
        format!("{topic} was removed, with what was kept aside for it"),
    )
}
