//! Changes of topics and groups: what is to be written for one, and what it does once it is.

use streamerson_core::group::Group;
use streamerson_core::lease_table::LeaseTable;
use streamerson_core::once::Remembered;
use streamerson_core::retention::Trimmed;
use streamerson_core::{Error, Name, Position, Result, Start, Topic, partition};

use super::decide::{Moment, check_held};
use super::op::{Change, Changed};
use super::state::{After, State, no_group};
use super::topic::{self, Gone, TopicState};
use super::{GroupKey, Trim};
use crate::log::record::Record;

/// What is to be written for `change`; `None`: it changes nothing.
pub(crate) fn record(state: &mut State, change: &Change, moment: Moment) -> Result<Option<Record>> {
    admit(state, change)?;
    let state = &*state;
    let has_group = |key: &GroupKey| {
        let topic = state.topic(&key.topic);
        topic.is_some_and(|topic| topic.groups.contains_key(&key.group))
    };
    let resolve = |key: &GroupKey, start| {
        let topic = state.topic(&key.topic);
        topic.map_or(Position::ZERO, |topic| topic.resolve(start))
    };
    let created = |key: &GroupKey, start| Record::GroupCreated {
        topic: key.topic.clone(),
        group: key.group.clone(),
        cursor: resolve(key, start),
    };
    let moved = |key: &GroupKey, start| {
        let group = state.topic(&key.topic)?.groups.get(&key.group)?;
        Some(Record::GroupMoved {
            topic: key.topic.clone(),
            group: key.group.clone(),
            from: group.cursor(),
            cursor: resolve(key, start),
        })
    };
    Ok(match change {
        Change::CreateGroup(key, _)
        | Change::JoinGroup { key, .. }
        | Change::BeginOrSeek { key, .. }
            if key.topic.is_inbox() =>
        {
            return Err(Error::invalid(
                "inbox-has-no-groups",
                format!(
                    "{} is an inbox: it has one reader, and no groups",
                    key.topic
                ),
            ));
        }
        Change::CreateGroup(key, start) => (!has_group(key)).then(|| created(key, *start)),
        Change::JoinGroup {
            key,
            start,
            was_there,
        } => (!has_group(key)).then(|| {
            let resumed = resumed(state, key, *was_there);
            created(key, resumed.map_or(*start, Start::After))
        }),
        Change::RemoveGroup(key) => has_group(key).then(|| Record::GroupRemoved {
            topic: key.topic.clone(),
            group: key.group.clone(),
        }),
        Change::LoseGroup(key) => {
            let topic = state.topic(&key.topic);
            let group = topic.and_then(|topic| topic.groups.get(&key.group));
            group.map(|group| Record::GroupGone {
                topic: key.topic.clone(),
                group: key.group.clone(),
                cursor: topic::settled(group),
                lost: true,
            })
        }
        Change::SeekGroup(key, start) => Some(moved(key, *start).ok_or_else(|| no_group(key))?),
        Change::BeginOrSeek { key, start, fence } => {
            if let Some(fence) = fence {
                check_held(state, &key.topic, fence, moment.now)?;
            }
            Some(moved(key, *start).unwrap_or_else(|| created(key, *start)))
        }
        Change::Trim(topic, trim) => state
            .topic(topic)
            .and_then(|state| boundary(state, *trim, moment.unix_ms))
            .map(|boundary| Record::Trimmed {
                topic: topic.clone(),
                boundary,
            }),
        Change::Divide(topic, partitions) => {
            partition::check(topic, *partitions)?;
            let divided = state.topic(topic).is_some_and(|topic| topic.partitions > 0);
            (!divided).then(|| Record::Divided {
                topic: topic.clone(),
                partitions: *partitions,
            })
        }
        Change::Acquire { topic, name, .. } => {
            let leases = state.topic(topic).map(|topic| &topic.leases);
            let held = leases.is_some_and(|leases| leases.find(name, moment.now).is_some());
            (!held).then(|| Record::Epoch {
                topic: topic.clone(),
                epoch: leases.map_or(0, LeaseTable::epoch).saturating_add(1),
            })
        }
        Change::RemoveTopic(topic) => {
            let exists = state.topic(topic).is_some_and(TopicState::exists);
            exists.then(|| Record::TopicRemoved {
                topic: topic.clone(),
            })
        }
    })
}

/// Whether there is room for the topic that `change` may begin.
fn admit(state: &mut State, change: &Change) -> Result<()> {
    match change {
        Change::CreateGroup(key, _)
        | Change::JoinGroup { key, .. }
        | Change::BeginOrSeek { key, .. } => state.admit(&key.topic),
        Change::Divide(topic, _) | Change::Acquire { topic, .. } => state.admit(topic),
        _ => Ok(()),
    }
}

/// The first position to keep, if anything is to go.
fn boundary(state: &TopicState, trim: Trim, unix_ms: u64) -> Option<Position> {
    let nth = |n: u64| state.nth_newest(n);
    let wanted = match trim {
        Trim::Retain(retention) => retention.boundary(unix_ms, nth, state.first_unprocessed()),
        Trim::Before(position) => Some(position),
        Trim::Newest(0) => Some(state.last.successor(0)),
        Trim::Newest(n) => nth(n),
    }?;
    // What comes later must not fall under it.
    let wanted = wanted.min(state.last.successor(0));
    state
        .first()
        .is_some_and(|first| first < wanted)
        .then_some(wanted)
}

/// Does what `record` says. The same during a commit and during recovery.
pub(crate) fn apply(state: &mut State, record: Option<Record>, after: &mut After) -> Changed {
    let Some(record) = record else {
        return Changed::Done(false);
    };
    match record {
        Record::GroupCreated {
            topic,
            group,
            cursor,
        } => {
            let topic = state.topic_or_new(&topic);
            // A group that goes on where it was removed has had its effects; a new one has completed nothing.
            let gone = topic.removed_groups.remove(&group);
            if gone.is_none_or(|gone| gone.settled != cursor) {
                topic.effects.remove(&group);
            }
            topic.groups.insert(group, Group::new(cursor));
        }
        Record::GroupMoved {
            topic,
            group,
            cursor,
            ..
        } => {
            let key = GroupKey { topic, group };
            if let Ok(group) = state.group_mut(&key) {
                group.seek(cursor);
            }
            wake(state, &key.topic, after);
        }
        Record::GroupRemoved { topic, group } => {
            if let Some(topic) = state.topic_mut(&topic) {
                topic.remove_group(&group);
            }
            state.may_be_fewer();
            wake(state, &topic, after);
        }
        Record::GroupGone {
            topic,
            group,
            cursor: settled,
            lost,
        } => {
            let gone = Gone { settled, lost };
            state.topic_or_new(&topic).note_gone(group, gone);
            state.may_be_fewer();
            // Its members wait for what will not come.
            wake(state, &topic, after);
        }
        Record::Trimmed { topic, boundary } => {
            return Changed::Trimmed(trim(state, &topic, boundary));
        }
        Record::TopicRemoved { topic } => {
            let end = state.topic(&topic).map(|topic| topic.last.successor(0));
            state.trim(&topic, end.unwrap_or_default());
            state.drop_aside_of(&topic);
            if let Some(topic) = state.topic_mut(&topic) {
                let groups: Vec<Name> = topic.groups.keys().cloned().collect();
                groups.iter().for_each(|group| topic.remove_group(group));
                topic.keys = Remembered::default();
                topic.effects.clear();
                topic.partitions = 0;
                // Positions and epochs go on growing, should it come again.
                topic.leases = LeaseTable::after(topic.leases.epoch());
            }
            state.note_removed(&topic);
            wake(state, &topic, after);
        }
        Record::Divided { topic, partitions } => {
            state.topic_or_new(&topic).partitions = partitions;
        }
        // The lease itself is in memory: only that its epoch was given must survive.
        Record::Epoch { topic, epoch } => {
            let leases = &mut state.topic_or_new(&topic).leases;
            if epoch > leases.epoch() {
                *leases = LeaseTable::after(epoch);
            }
        }
        _ => return Changed::Done(false),
    }
    Changed::Done(true)
}

fn wake(state: &State, topic: &Topic, after: &mut After) {
    let changed = state.topic(topic).map(|topic| topic.changed.clone());
    after.wake.extend(changed);
}

fn trim(state: &mut State, name: &Topic, boundary: Position) -> Trimmed {
    let lost = state.topic(name).map_or(0, |topic| {
        let safe = topic.first_unprocessed().unwrap_or(Position::ZERO);
        let kept = topic.count_from(boundary);
        topic.count_from(safe).saturating_sub(kept)
    });
    let removed = state.trim(name, boundary);
    Trimmed { removed, lost }
}

/// Does what `change` asks for, once `record` is written.
pub(crate) fn commit(
    state: &mut State,
    change: &Change,
    record: Option<Record>,
    moment: Moment,
    after: &mut After,
) -> Changed {
    match change {
        Change::Acquire {
            topic,
            name,
            holder,
            ttl,
        } => {
            // It was held, and may not be any more: an epoch that is not written must not be given.
            if record.is_none() {
                return Changed::Done(false);
            }
            let leases = &mut state.topic_or_new(topic).leases;
            leases.acquire(name, holder, *ttl, moment.now);
            // Whoever waits as its owner is so no longer.
            wake(state, topic, after);
            Changed::Done(true)
        }
        Change::JoinGroup { key, was_there, .. } => {
            let resumed = resumed(state, key, *was_there);
            match (apply(state, record, after), resumed) {
                (Changed::Done(true), Some(settled)) => Changed::Resumed(settled),
                (changed, _) => changed,
            }
        }
        _ => apply(state, record, after),
    }
}

/// Behind which position a group goes on, that was lost, or is joined again by who `was_there`. `None`: it is a new one.
fn resumed(state: &State, key: &GroupKey, was_there: bool) -> Option<Position> {
    let topic = state.topic(&key.topic);
    let gone = topic.and_then(|topic| topic.removed_groups.get(&key.group));
    let resumes = was_there || gone.is_some_and(|gone| gone.lost);
    resumes.then(|| gone.map(|gone| gone.settled).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::state::Limit;
    use super::*;

    /// A lease is given up without the log: also between the two steps of a change.
    #[test]
    fn no_epoch_is_given_that_is_not_in_the_log() {
        let name = |name: &str| Name::new(name.to_owned()).unwrap();
        let (orders, seat, ada) = (Topic::new("orders").unwrap(), name("seat"), name("ada"));
        let mut state = State::new(Limit::Cache(1 << 30));
        let moment = Moment { now: 0, unix_ms: 0 };
        let leases = &mut state.topic_or_new(&orders).leases;
        leases.acquire(&seat, &ada, 1000, 0);
        let acquire = Change::Acquire {
            topic: orders.clone(),
            name: seat.clone(),
            holder: name("bob"),
            ttl: 1000,
        };
        let record = record(&mut state, &acquire, moment).unwrap();
        assert_eq!(record, None);
        let leases = &mut state.topic_or_new(&orders).leases;
        assert!(leases.release(&seat, &ada, 0));
        let after = &mut After::default();
        let changed = commit(&mut state, &acquire, record, moment, after);
        assert_eq!(changed, Changed::Done(false));
        let leases = &state.topic_or_new(&orders).leases;
        assert_eq!((leases.epoch(), leases.held(0).count()), (1, 0));
    }
}
