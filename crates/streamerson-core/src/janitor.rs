//! What a janitor finds: messages that are gone before a group had processed them.
//!
//! Pure: a topic as it stood and as it stands in, findings out. Whoever trims by its own rules says what it removed; this
//! finds what was removed behind everybody's back, by an operator or by the limits of a server.

use crate::Position;
use crate::stats::{GroupStats, TopicStats};

/// Messages that a group will never see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Which group.
    pub group: String,
    /// The oldest message that is gone.
    pub position: Position,
    /// Whether it had been delivered, and was not settled; otherwise the group had not come to it.
    pub delivered: bool,
}

/// What was lost between `before` and `now`; without a `before`, what is known to be lost by now. Every loss is
/// found once.
///
/// ```
/// use streamerson_core::janitor::losses;
/// use streamerson_core::stats::TopicStats;
///
/// assert!(losses(None, &TopicStats::default()).is_empty());
/// ```
pub fn losses(before: Option<&TopicStats>, now: &TopicStats) -> Vec<Loss> {
    let earlier = |group: &GroupStats| {
        let groups = &before?.groups;
        groups.iter().find(|earlier| earlier.name == group.name)
    };
    let mut losses = Vec::new();
    for group in &now.groups {
        let earlier = earlier(group);
        let mut lost = |position, delivered| {
            losses.push(Loss {
                group: group.name.clone(),
                position,
                delivered,
            });
        };
        if let Some(position) = group.oldest_pending.filter(|at| is_gone(*at, now)) {
            let known = earlier.is_some_and(|earlier| earlier.oldest_pending == Some(position))
                && before.is_some_and(|before| is_gone(position, before));
            if !known {
                lost(position, true);
            }
        }
        if let Some(position) = earlier.and_then(|earlier| earlier.next)
            && group.cursor < Some(position)
            && is_gone(position, now)
        {
            lost(position, false);
        }
    }
    losses
}

/// Whether what stood at `position` has been removed, by age: what is newer than the oldest message may have been
/// taken out on purpose.
fn is_gone(position: Position, topic: &TopicStats) -> bool {
    topic.first.is_none_or(|first| position < first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Option<Position> {
        Some(Position::new(n, 0))
    }

    fn topic(first: Option<Position>, group: GroupStats) -> TopicStats {
        TopicStats {
            first,
            last: at(9),
            groups: vec![group],
            ..TopicStats::default()
        }
    }

    fn group(
        cursor: Option<Position>,
        next: Option<Position>,
        oldest: Option<Position>,
    ) -> GroupStats {
        GroupStats {
            name: "billing".into(),
            cursor,
            lag: None,
            next,
            pending: 0,
            retrying: 0,
            oldest_pending: oldest,
            members: Vec::new(),
        }
    }

    #[test]
    fn what_was_processed_may_go() {
        let before = topic(at(1), group(at(3), at(4), at(2)));
        let now = topic(at(5), group(at(4), at(5), None));
        assert_eq!(losses(Some(&before), &now), []);
        assert_eq!(losses(None, &now), []);
    }

    #[test]
    fn a_message_gone_while_it_is_worked_on_is_lost_and_found_once() {
        let now = topic(at(5), group(at(4), at(5), at(2)));
        let found = losses(None, &now);
        assert_eq!(
            (found.len(), found[0].position, found[0].delivered),
            (1, Position::new(2, 0), true)
        );
        assert_eq!(losses(Some(&now), &now), []);
    }

    #[test]
    fn a_message_gone_before_the_group_came_to_it_is_lost_and_found_once() {
        let before = topic(at(1), group(at(3), at(4), None));
        for first in [at(7), None] {
            let now = topic(first, group(at(3), first, None));
            let found = losses(Some(&before), &now);
            assert_eq!(
                (found.len(), found[0].position, found[0].delivered),
                (1, Position::new(4, 0), false)
            );
            assert_eq!(losses(Some(&now), &now), []);
        }
    }

    #[test]
    fn what_was_delivered_meanwhile_is_not_lost() {
        let before = topic(at(1), group(at(3), at(4), None));
        let now = topic(at(7), group(at(6), at(7), None));
        assert_eq!(losses(Some(&before), &now), []);
    }
}
