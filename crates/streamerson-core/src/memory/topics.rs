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
        append.check()?;
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
        let won = match settlement.outcome {
            Outcome::Complete { outputs, once } => {
                outputs.iter().try_for_each(Append::check)?;
                once.as_deref().map_or(Ok(()), Once::check)?;
                let won = group.deliveries.settle(position).is_some();
                if won {
                    let outputs = group.take_effect(outputs, once.as_deref(), now);
                    self.append_all(outputs, now)?;
                }
                won
            }
            Outcome::Retry { after } => {
                let due = now.monotonic.saturating_add(millis(after));
                let won = group.deliveries.retry(&membership.member, position, due);
                state.changed.notify_waiters();
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
        outputs.iter().try_for_each(Append::check)?;
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
        outputs.try_for_each(|output| self.append(output, now).map(drop))
    }
}

impl super::topic::GroupState {
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
