//! All topics, and the steps that concern several of them.

use std::collections::BTreeMap;

use super::shared::Now;
use super::topic::TopicState;
use crate::broker::{Append, Membership, Once, Outcome, Settlement};
use crate::once::{Answer, repeated};
use crate::time::millis;
use crate::{Error, Name, Position, Result, Topic};

#[derive(Debug, Default)]
pub(super) struct Topics {
    by_name: BTreeMap<Topic, TopicState>,
    /// The newest epoch of a lease of a topic that was removed: it may begin again, and epochs never go back.
    epoch: u64,
}

impl Topics {
    /// The state of a topic, with what is due by now; that of a topic that does not exist is empty.
    pub(super) fn state(&mut self, topic: &Topic, now: Now) -> &mut TopicState {
        let state = self.by_name.entry(topic.clone());
        let state = state.or_insert_with(|| TopicState::new(self.epoch));
        state.publish_due(topic, now);
        state
    }

    /// The state of a topic that exists, with what is due by now.
    pub(super) fn existing(&mut self, topic: &Topic, now: Now) -> Option<&mut TopicState> {
        let state = self.by_name.get_mut(topic)?;
        state.publish_due(topic, now);
        state.exists().then_some(state)
    }

    /// The names of the topics there are.
    pub(super) fn names(&self) -> impl Iterator<Item = &Topic> {
        let existing = self.by_name.iter().filter(|(_, state)| state.exists());
        existing.map(|(topic, _)| topic)
    }

    /// Removes a topic. Who waits for it is told.
    pub(super) fn remove(&mut self, topic: &Topic) -> bool {
        let removed = self.by_name.remove(topic);
        removed.is_some_and(|state| {
            self.epoch = self.epoch.max(state.leases.epoch());
            state.changed.notify_waiters();
            state.exists()
        })
    }

    pub(super) fn append(&mut self, append: Append, now: Now) -> Result<Position> {
        self.check(&append, now)?;
        self.store(append, now)
    }

    /// Refuses what cannot be stored.
    fn check(&self, append: &Append, now: Now) -> Result<()> {
        append.check()?;
        let state = self.by_name.get(&append.topic);
        state.map_or(Ok(()), |state| state.check_room(append, now))
    }

    fn store(&mut self, append: Append, now: Now) -> Result<Position> {
        if append.topic.is_inbox() && !self.by_name.contains_key(&append.topic) {
            // Nobody reads this inbox any more: the reply is late.
            return Ok(Position::ZERO);
        }
        let topic = append.topic.clone();
        Ok(self.state(&topic, now).append(append, now))
    }

    /// Ends a delivery: the acknowledgement and all outputs, or nothing.
    pub(super) fn settle(
        &mut self,
        membership: &Membership,
        settlement: Settlement,
        now: Now,
    ) -> Result<()> {
        let position = settlement.receipt.position();
        let state = self.state(&membership.topic, now);
        state.check_fence(membership, now)?;
        let group = state.group(membership)?;
        if let Outcome::Complete { outputs, once } = &settlement.outcome {
            once.as_deref()
                .map_or(Ok(()), |once| group.check_room(membership, once, now))?;
            outputs
                .iter()
                .try_for_each(|output| self.check(output, now))?;
        }
        let state = self.state(&membership.topic, now);
        let changed = state.changed.clone();
        let group = state.group(membership)?;
        let offers = group.deliveries.offers();
        let won = match settlement.outcome {
            Outcome::Complete { outputs, once } => {
                let won = group.deliveries.settle(position).is_some();
                if group.deliveries.offers() != offers {
                    changed.notify_waiters();
                }
                if won {
                    let outputs = group.take_effect(outputs, once.as_deref(), now);
                    self.append_all(outputs, now)?;
                }
                won
            }
            Outcome::Retry { after } => {
                let due = now.monotonic.saturating_add(millis(after));
                let won = group.deliveries.retry(&membership.member, position, due);
                changed.notify_waiters();
                won
            }
        };
        if won {
            return Ok(());
        }
        Err(Error::fenced(format!(
            "the delivery of {position} was settled or taken over by another member"
        )))
    }

    /// Takes an entry out of a topic, and appends `outputs`.
    pub(super) fn take(
        &mut self,
        topic: &Topic,
        position: Position,
        outputs: Vec<Append>,
        now: Now,
    ) -> Result<bool> {
        outputs
            .iter()
            .try_for_each(|output| self.check(output, now))?;
        let taken = self
            .existing(topic, now)
            .is_some_and(|state| state.remove(position));
        if taken {
            self.append_all(outputs, now)?;
        }
        Ok(taken)
    }

    fn append_all(&mut self, outputs: Vec<Append>, now: Now) -> Result<()> {
        let mut outputs = outputs.into_iter();
        outputs.try_for_each(|output| self.store(output, now).map(drop))
    }
}

impl super::topic::GroupState {
    /// Refuses a key that is none, or one too many.
    fn check_room(&self, membership: &Membership, once: &Once, now: Now) -> Result<()> {
        once.check()?;
        match self.effects.recall(&once.key, now.monotonic) {
            Some(_) => Ok(()),
            None => self.effects.check_room(&membership.topic, now.monotonic),
        }
    }

    /// What appears of the outputs: all of them, unless the same thing happened before.
    fn take_effect(&mut self, outputs: Vec<Append>, once: Option<&Once>, now: Now) -> Vec<Append> {
        let Some(once) = once else {
            return outputs;
        };
        match self.effects.recall(&once.key, now.monotonic) {
            Some(first) => repeated(outputs, first.as_ref()),
            None => {
                let answer = Answer::among(&outputs);
                self.effects.remember(once, answer, now.monotonic);
                outputs
            }
        }
    }
}

/// No such group.
pub(super) fn no_group(topic: &Topic, group: &Name) -> Error {
    Error::new(
        crate::ErrorKind::NotFound,
        "group-not-found",
        format!("topic {topic} has no group {group}; a group begins when its first member joins"),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Fence, Message};

    const HOUR: u64 = 3_600_000;
    const NOON: u64 = 1_763_900_000_000;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn at(monotonic: u64, unix_ms: u64) -> Now {
        Now { monotonic, unix_ms }
    }

    fn to(topic: &Topic, text: &'static str) -> Append {
        Append::new(topic.clone(), Message::new("a", text))
    }

    fn owner(topic: &Topic, epoch: u64) -> Membership {
        Membership {
            fence: Some(Fence {
                lease: name("owner"),
                epoch,
            }),
            ..Membership::new(topic.clone(), name("workers"), name("ada"))
        }
    }

    #[test]
    fn keys_of_what_happens_once_are_bounded_and_one_too_many_changes_nothing() {
        let (topic, out) = (Topic::new("orders").unwrap(), Topic::new("out").unwrap());
        let mut topics = Topics::default();
        let start = at(0, NOON);
        let once = |topic: &Topic, n: u32| {
            to(topic, "a").once(Once::new(n.to_string(), Duration::from_secs(60)))
        };
        let first = topics.append(once(&topic, 0), start).unwrap();
        for n in 1..1000 {
            topics.append(once(&topic, n), start).unwrap();
        }
        let refused = topics.append(once(&topic, 1000), start).unwrap_err();
        assert_eq!(refused.code(), "too-many-once-keys");
        assert_eq!(topics.append(once(&topic, 0), start).unwrap(), first);

        // As an output of a settlement, which is refused as a whole.
        let ada = Membership::new(topic.clone(), name("workers"), name("ada"));
        let state = topics.state(&topic, start);
        state.join(&ada, start).unwrap();
        let mut deliveries = state.deliver(&ada, start, 1001).unwrap();
        assert_eq!(deliveries.len(), 1000);
        let receipt = deliveries.pop().unwrap().receipt;
        let outputs = vec![to(&out, "b"), once(&topic, 1000)];
        let settlement = Settlement::complete_with(receipt, outputs);
        let refused = topics.settle(&ada, settlement, start).unwrap_err();
        assert_eq!(refused.code(), "too-many-once-keys");
        assert_eq!(topics.state(&out, start).stats(start).length, 0);
        assert_eq!(
            topics
                .state(&topic, start)
                .group(&ada)
                .unwrap()
                .deliveries
                .pending(),
            1000
        );

        // When the first ones are over there is room.
        let later = at(60_000, NOON + 60_000);
        assert!(topics.append(once(&topic, 1000), later).unwrap() > first);
    }

    #[test]
    fn a_wall_clock_that_jumps_loses_nothing_and_ends_no_lease() {
        let topic = Topic::new("orders").unwrap();
        let mut topics = Topics::default();
        let start = at(0, NOON);
        let leases = &mut topics.state(&topic, start).leases;
        let epoch = leases.acquire(&name("owner"), &name("ada"), 5000, 0).epoch;
        let ada = owner(&topic, epoch);
        topics.state(&topic, start).join(&ada, start).unwrap();
        let scheduled = to(&topic, "due").due_at(NOON + 1000);
        topics.append(scheduled, start).unwrap();
        let once = || to(&topic, "once").once(Once::new("a", Duration::from_secs(60)));
        let first = topics.append(once(), start).unwrap();

        // Two hours back: what is due comes later, positions go on, keys and leases stay.
        let back = at(1000, NOON - 2 * HOUR);
        assert_eq!(topics.append(once(), back).unwrap(), first);
        assert!(topics.append(to(&topic, "back"), back).unwrap() > first);
        assert_eq!(topics.state(&topic, back).stats(back).scheduled, 1);
        // Two hours forth: it comes, once.
        let forth = at(2000, NOON + 2 * HOUR);
        assert_eq!(topics.append(once(), forth).unwrap(), first);
        let state = topics.state(&topic, forth);
        assert_eq!(state.stats(forth).scheduled, 0);
        let deliveries = state.deliver(&ada, forth, 10).unwrap();
        let texts = deliveries.iter().map(|it| it.message.data.clone());
        assert_eq!(texts.collect::<Vec<_>>(), ["once", "back", "due"]);
        // And back again: what is held stays held, and its lease runs by the other clock.
        let again = at(4999, NOON);
        let state = topics.state(&topic, again);
        assert!(state.check_fence(&ada, again).is_ok());
        assert!(state.deliver(&ada, again, 10).unwrap().is_empty());
        let over = at(5000, NOON);
        assert!(topics.state(&topic, over).check_fence(&ada, over).is_err());
    }
}
