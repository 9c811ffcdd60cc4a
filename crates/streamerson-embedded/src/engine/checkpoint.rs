//! The checkpoint at the head of a segment: with it, nothing that older segments say about groups is needed.

use streamerson_core::group::{Group, Holding};
use streamerson_core::time::Millis;

use super::decide::Moment;
use super::shared::Shared;
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
    }
}

fn held(group: &Group, moment: Moment) -> Vec<HeldRecord> {
    let records = group.held().map(|(position, held)| HeldRecord {
        position,
        due_unix_ms: match held.state {
            Holding::Working => 0,
            Holding::Released { due } => due_unix(due, moment),
        },
        attempt: held.attempt,
    });
    records.collect()
}

fn due_unix(due: Millis, moment: Moment) -> u64 {
    match due.checked_sub(moment.now) {
        Some(left) if left > 0 => moment.unix_ms.saturating_add(left),
        _ => 0,
    }
}
