//! The checkpoint at the head of a segment: with it, nothing that older segments say about groups is needed.

use streamerson_core::Topic;
use streamerson_core::group::{Group, Holding};
use streamerson_core::time::Millis;

use super::decide::Moment;
use super::shared::Shared;
use super::topic::TopicState;
use crate::log::encode::Encoder;
use crate::log::record::{GroupRecord, HeldRecord, Record, Sealed, TopicRecord};

/// Writes the state of all topics as one frame; `segments` are those before it.
pub(crate) fn checkpoint(shared: &Shared, segments: Vec<Sealed>, encoder: &mut Encoder) {
    let moment = Moment {
        now: shared.clock.now(),
        unix_ms: (shared.unix_ms)(),
    };
    let state = shared.state.lock();
    encoder.begin();
    encoder.record(&Record::Checkpoint {
        newest: state.newest,
        segments,
    });
    // Inboxes expire: what is not in the last segments is not needed.
    let kept = state
        .topics()
        .filter(|(name, topic)| !name.is_inbox() && !topic.is_vacant());
    for (name, topic) in kept {
        let groups = topic.groups.iter().map(|(name, group)| GroupRecord {
            name: name.clone(),
            cursor: group.cursor(),
            held: held(group, moment),
        });
        encoder.record(&Record::Topic(TopicRecord {
            topic: name.clone(),
            last: topic.assigned,
            boundary: topic.boundary,
            removed: topic.removed,
            groups: groups.collect(),
        }));
        beside(name, topic, moment.unix_ms, encoder);
    }
    let ids = state.aside.ids();
    if !ids.is_empty() {
        encoder.record(&Record::Waiting { ids });
    }
}

/// What a topic has beside its entries and groups, as far as it has any.
fn beside(name: &Topic, state: &TopicState, unix_ms: u64, encoder: &mut Encoder) {
    let topic = || name.clone();
    if !state.holes.is_empty() {
        encoder.record(&Record::Holes {
            topic: topic(),
            positions: state.holes.keys().copied().collect(),
        });
    }
    for (group, gone) in &state.removed_groups {
        encoder.record(&Record::GroupGone {
            topic: topic(),
            group: group.clone(),
            cursor: gone.settled,
            lost: gone.lost,
        });
    }
    if state.partitions > 0 {
        encoder.record(&Record::Divided {
            topic: topic(),
            partitions: state.partitions,
        });
    }
    if state.leases.epoch() > 0 {
        encoder.record(&Record::Epoch {
            topic: topic(),
            epoch: state.leases.epoch(),
        });
    }
    for (key, position, until) in state.keys.iter().filter(|(.., until)| *until > unix_ms) {
        encoder.record(&Record::StoredOnce {
            topic: topic(),
            key: key.clone(),
            position: position.of,
            until,
        });
    }
    for (group, effects) in &state.effects {
        for (key, answer, until) in effects.iter().filter(|(.., until)| *until > unix_ms) {
            let answer = answer.of.as_ref();
            encoder.record(&Record::DoneOnce {
                topic: topic(),
                group: group.clone(),
                key: key.clone(),
                until,
                answer: answer.map(|answer| (answer.meta.clone(), answer.data.clone())),
            });
        }
    }
}

fn held(group: &Group, moment: Moment) -> Vec<HeldRecord> {
    let records = group.held().map(|(position, held)| HeldRecord {
        position,
        due_unix_ms: match held.state {
            Holding::Released { due } if !held.lost => due_unix(due, moment),
            _ => 0,
        },
        attempt: held.attempt,
    });
    records.collect()
}

fn due_unix(due: Millis, moment: Moment) -> u64 {
    let left = due.saturating_sub(moment.now);
    moment.unix_ms.saturating_add(left)
}
