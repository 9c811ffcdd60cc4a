//! A consumer group: who holds which message, since when, and who may take it over.
//!
//! Pure: positions and `now` in, decisions out. The in-memory and the embedded broker drive it; Redis implements the
//! same rules with its pending entries list.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Millis;
use crate::{Name, Position};

/// The state of one consumer group of one topic.
///
/// ```
/// use streamerson_core::group::Group;
/// use streamerson_core::{Name, Position};
///
/// let (ada, bob) = (Name::new("ada")?, Name::new("bob")?);
/// let mut group = Group::new(Position::ZERO);
/// group.deliver(&ada, Position::new(1, 0), 0);
///
/// // Silent for a whole lease of 5000 ms: bob takes it over. The first to settle wins.
/// let taken = group.take_over(&bob, 5000, 5000, 10);
/// assert_eq!(taken[0].attempt, 2);
/// assert!(group.settle(Position::new(1, 0)).is_some());
/// assert!(group.settle(Position::new(1, 0)).is_none());
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    cursor: Position,
    held: BTreeMap<Position, Held>,
    members: BTreeMap<Name, Millis>,
    /// No delivery was touched before this: lets a member skip the search for silent holders.
    oldest_touch: Millis,
    /// No retry is due before this.
    earliest_due: Millis,
    offers: u64,
}

/// A message delivered and not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who holds it.
    pub member: Name,
    /// The holder's last sign of life for it.
    pub touched: Millis,
    /// How often it has been delivered.
    pub attempt: u32,
    /// Who may have it next, when the holder has given it up.
    pub state: Holding,
    /// Whoever had it before, or, where it was given back, last, went without an end of it: died, or was silent for a lease.
    pub lost: bool,
}

/// Whether a held message is being worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Its holder works on it, or died.
    Working,
    /// Given back: for anyone, once this time has come.
    Released {
        /// Not before.
        due: Millis,
    },
}

/// A message given to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Which message.
    pub position: Position,
    /// How often it has been delivered, this time included.
    pub attempt: u32,
}

const NEVER: Millis = Millis::MAX;

/// What is lost again and again may be what its holders die of. From this attempt on, a member is given such a message
/// only when it has none yet, so that not two of them end with one member: whatever is not poison gets to its end.
///
/// The second attempt is free. After an ordinary crash all that was lost is shared out at once.
pub const SUSPECT_FROM: u32 = 3;

impl Group {
    /// A group that has everything after `cursor` before it.
    pub fn new(cursor: Position) -> Group {
        Group {
            cursor,
            held: BTreeMap::new(),
            members: BTreeMap::new(),
            oldest_touch: NEVER,
            earliest_due: NEVER,
            offers: 0,
        }
    }

    /// The newest position delivered.
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// Where the first unprocessed message stands or would stand: everything before it may be trimmed.
    pub fn first_unprocessed(&self) -> Position {
        let next = self.cursor.successor(0);
        // A group that was moved back has messages before it that it does not hold.
        match self.held.first_key_value() {
            Some((first, _)) => next.min(*first),
            None => next,
        }
    }

    /// Notes a sign of life of `member`.
    pub fn seen(&mut self, member: &Name, now: Millis) {
        match self.members.get_mut(member) {
            Some(at) => *at = now,
            None => {
                self.members.insert(member.clone(), now);
            }
        }
    }

    /// Gives `member` the message at `position`, which comes after the cursor.
    pub fn deliver(&mut self, member: &Name, position: Position, now: Millis) -> Grant {
        debug_assert!(position > self.cursor, "{position} was delivered before");
        self.cursor = position;
        self.hold(position, member, now, 1, false)
    }

    /// Puts back a delivery as it was before [`Group::settle`]; also restores one from storage.
    pub fn restore(&mut self, position: Position, held: Held) {
        match held.state {
            Holding::Working => self.oldest_touch = self.oldest_touch.min(held.touched),
            Holding::Released { due } => self.earliest_due = self.earliest_due.min(due),
        }
        self.cursor = self.cursor.max(position);
        self.held.insert(position, held);
    }

    /// Gives `member` up to `max` messages, oldest first, that were given back or whose holder was silent for `lease`. Of
    /// those that were lost again and again ([`SUSPECT_FROM`]) it gets one at a time: the next one when this one is settled.
    pub fn take_over(
        &mut self,
        member: &Name,
        now: Millis,
        lease: Millis,
        max: usize,
    ) -> Vec<Grant> {
        self.take(member, now, lease, true, counted(max))
    }

    /// The same for an owner, who keeps an order, and so cannot leave anything for later.
    pub fn take_over_in_order(
        &mut self,
        member: &Name,
        now: Millis,
        lease: Millis,
        max: usize,
    ) -> Vec<Grant> {
        self.take(member, now, lease, false, counted(max))
    }

    /// The same as one of these, `in_order` or not, up to where the next message does not fit.
    pub fn take_over_while(
        &mut self,
        member: &Name,
        now: Millis,
        lease: Millis,
        in_order: bool,
        fits: impl FnMut(Position) -> bool,
    ) -> Vec<Grant> {
        self.take(member, now, lease, !in_order, fits)
    }

    fn take(
        &mut self,
        member: &Name,
        now: Millis,
        lease: Millis,
        cautious: bool,
        mut fits: impl FnMut(Position) -> bool,
    ) -> Vec<Grant> {
        if self.next_claim(lease).is_none_or(|at| at > now) {
            return Vec::new();
        }
        let mut has_suspect = cautious && self.has_suspect(member, now, lease);
        let mut is_given = |held: &Held| {
            let is_suspect = cautious && held.is_next_a_suspect();
            let given = !(is_suspect && has_suspect);
            has_suspect |= is_suspect;
            given
        };
        let free: Vec<Position> = self
            .held
            .iter()
            .filter(|(_, held)| held.claimable(lease) <= now && is_given(held))
            .map(|(position, _)| *position)
            .take_while(|position| fits(*position))
            .collect();
        let grants = free.into_iter().filter_map(|position| {
            let held = self.held.get(&position)?;
            let (attempt, lost) = (held.attempt.saturating_add(1), held.is_lost());
            Some(self.hold(position, member, now, attempt, lost))
        });
        let grants = grants.collect();
        self.measure();
        grants
    }

    /// Whether `member` shows signs of life for something that was lost again and again.
    fn has_suspect(&self, member: &Name, now: Millis, lease: Millis) -> bool {
        self.held.values().any(|held| {
            held.is_suspect() && held.member == *member && held.touched.saturating_add(lease) > now
        })
    }

    /// Gives `member` the message at `position`, if it is held by anyone and was silent for at least `idle`, whatever
    /// its due time. Counts as a delivery only if `count`.
    pub fn claim(
        &mut self,
        member: &Name,
        position: Position,
        now: Millis,
        idle: Millis,
        count: bool,
    ) -> Option<Grant> {
        let held = self.held.get(&position)?;
        if held.touched.saturating_add(idle) > now {
            return None;
        }
        let attempt = held.attempt.saturating_add(count.into());
        let lost = if count { held.is_lost() } else { held.lost };
        Some(self.hold(position, member, now, attempt, lost))
    }

    /// When [`Group::take_over`], which has just given nothing, may have something for `member`. It may have something
    /// earlier when [`offers`](Group::offers) changes.
    pub fn next_claim_of(&self, member: &Name, now: Millis, lease: Millis) -> Option<Millis> {
        let next = self.next_claim(lease).filter(|at| *at <= now);
        if next.is_none() || !self.has_suspect(member, now, lease) {
            return self.next_claim(lease);
        }
        let open = self.held.values().filter(|held| !held.is_next_a_suspect());
        let open = open.map(|held| held.claimable(lease)).min();
        // Its own suspect may be taken from it without a word, for example with the message itself.
        let again = now.saturating_add(lease);
        Some(open.map_or(again, |at| at.min(again))).filter(|at| *at != NEVER)
    }

    /// When `member`, which was just given nothing, looks again at the latest: when there may be something for it, which for an
    /// owner, who is `alone`, is whatever may be taken over; and once per lease, because looking is its sign of life.
    pub fn next_look(&self, member: &Name, now: Millis, lease: Millis, alone: bool) -> Millis {
        let next = match alone {
            true => self.next_claim(lease),
            false => self.next_claim_of(member, now, lease),
        };
        let sign = now.saturating_add(lease);
        next.map_or(sign, |at| at.min(sign))
    }

    /// Grows whenever something held may go to somebody else, or somebody may have what was withheld.
    pub fn offers(&self) -> u64 {
        self.offers
    }

    /// When [`Group::take_over`] may next have something to give to anybody; never late, at times early.
    pub fn next_claim(&self, lease: Millis) -> Option<Millis> {
        let next = self
            .oldest_touch
            .saturating_add(lease)
            .min(self.earliest_due);
        (next != NEVER && !self.held.is_empty()).then_some(next)
    }

    /// Ends the delivery of the message at `position`, whoever holds it: the first to settle wins. `None`: it was
    /// settled before, or never delivered.
    pub fn settle(&mut self, position: Position) -> Option<Held> {
        let held = self.held.remove(&position)?;
        self.offers += u64::from(held.is_suspect());
        Some(held)
    }

    /// Gives the message back, for anyone, once `due`. Only for its holder: who was replaced must not disturb the new one.
    pub fn retry(&mut self, member: &Name, position: Position, due: Millis) -> bool {
        self.release(member, position, due, false)
    }

    /// Frees the message, for anyone, at once: its holder is gone without an end of it.
    pub fn lose(&mut self, member: &Name, position: Position, now: Millis) -> bool {
        self.release(member, position, now, true)
    }

    fn release(&mut self, member: &Name, position: Position, due: Millis, lost: bool) -> bool {
        match self.held.get_mut(&position) {
            Some(held) if held.member == *member && held.state == Holding::Working => {
                held.state = Holding::Released { due };
                held.lost = lost;
                self.earliest_due = self.earliest_due.min(due);
                self.offers += 1;
                true
            }
            _ => false,
        }
    }

    /// A sign of life of `member` for what it still holds of `positions`.
    pub fn extend(&mut self, member: &Name, positions: &[Position], now: Millis) {
        self.seen(member, now);
        for position in positions {
            if let Some(held) = self.held.get_mut(position)
                && held.member == *member
                && held.state == Holding::Working
            {
                held.touched = now;
            }
        }
        self.measure();
    }

    /// How many of the messages delivered and not settled were given back.
    pub fn retrying(&self) -> usize {
        let released = |held: &&Held| held.state != Holding::Working;
        self.held.values().filter(released).count()
    }

    /// Removes `member`, which is gone without a word: all it holds is lost, and for anyone at once.
    pub fn drop_member(&mut self, member: &Name, now: Millis) -> bool {
        for held in self.held.values_mut() {
            held.lost |= held.member == *member && held.state == Holding::Working;
        }
        self.leave(member, now)
    }

    /// Removes `member`: all it holds is for anyone, at once. Answers whether it held anything.
    pub fn leave(&mut self, member: &Name, now: Millis) -> bool {
        self.members.remove(member);
        let mut released = false;
        for held in self.held.values_mut() {
            if held.member == *member && held.state == Holding::Working {
                held.state = Holding::Released { due: now };
                released = true;
            }
        }
        self.offers += u64::from(released);
        self.measure();
        released
    }

    /// Frees what anybody holds, at once: for an owner, who is alone and begins.
    pub fn release_all(&mut self, now: Millis) {
        for held in self.held.values_mut() {
            if held.state == Holding::Working {
                held.state = Holding::Released { due: now };
                held.lost = true;
            }
        }
        self.offers += 1;
        self.measure();
    }

    /// Removes the members that gave no sign of life for `silent` and hold nothing, and answers who they were.
    pub fn remove_silent(&mut self, silent: Millis, now: Millis) -> Vec<Name> {
        let holders: BTreeSet<&Name> = self.held.values().map(|held| &held.member).collect();
        let gone = self
            .members
            .iter()
            .filter(|(name, seen)| seen.saturating_add(silent) <= now && !holders.contains(name));
        let gone: Vec<Name> = gone.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.members.remove(name);
        }
        gone
    }

    /// Forgets deliveries before `boundary`, whose messages are gone. Answers how many there were.
    pub fn forget_before(&mut self, boundary: Position) -> u64 {
        let kept = self.held.split_off(&boundary);
        std::mem::replace(&mut self.held, kept).len() as u64
    }

    /// Moves on to `cursor`, backwards too. What is held up to there stays held; nobody holds what comes after.
    pub fn seek(&mut self, cursor: Position) {
        self.cursor = cursor;
        self.held.retain(|position, _| *position <= cursor);
    }

    /// Everything delivered and not settled, oldest first.
    pub fn held(&self) -> impl DoubleEndedIterator<Item = (Position, &Held)> {
        self.held.iter().map(|(position, held)| (*position, held))
    }

    /// The delivery of the message at `position`.
    pub fn holding(&self, position: Position) -> Option<&Held> {
        self.held.get(&position)
    }

    /// How many messages are delivered and not settled.
    pub fn pending(&self) -> usize {
        self.held.len()
    }

    /// The members and their last signs of life, by name.
    pub fn members(&self) -> impl Iterator<Item = (&Name, Millis)> {
        self.members.iter().map(|(name, seen)| (name, *seen))
    }

    fn hold(
        &mut self,
        position: Position,
        member: &Name,
        now: Millis,
        attempt: u32,
        lost: bool,
    ) -> Grant {
        let held = Held {
            member: member.clone(),
            touched: now,
            attempt,
            state: Holding::Working,
            lost,
        };
        self.oldest_touch = self.oldest_touch.min(now);
        self.held.insert(position, held);
        self.seen(member, now);
        Grant { position, attempt }
    }

    /// Sets the two lower bounds to what they are.
    fn measure(&mut self) {
        self.oldest_touch = NEVER;
        self.earliest_due = NEVER;
        for held in self.held.values() {
            match held.state {
                Holding::Working => self.oldest_touch = self.oldest_touch.min(held.touched),
                Holding::Released { due } => self.earliest_due = self.earliest_due.min(due),
            }
        }
    }
}

/// So many fit.
fn counted(max: usize) -> impl FnMut(Position) -> bool {
    let mut left = max;
    move |_| {
        let fits = left > 0;
        left = left.saturating_sub(1);
        fits
    }
}

impl Held {
    /// Whether whoever takes it over takes it from a holder that was lost.
    fn is_lost(&self) -> bool {
        self.lost || self.state == Holding::Working
    }

    /// Whether it is worked on after it was lost again and again: when it is settled, its holder may have the next one.
    pub fn is_suspect(&self) -> bool {
        self.state == Holding::Working && self.lost && self.attempt >= SUSPECT_FROM
    }

    /// Whether it is one for who takes it over.
    fn is_next_a_suspect(&self) -> bool {
        self.is_lost() && self.attempt.saturating_add(1) >= SUSPECT_FROM
    }

    fn claimable(&self, lease: Millis) -> Millis {
        match self.state {
            Holding::Working => self.touched.saturating_add(lease),
            Holding::Released { due } => due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEASE: Millis = 5000;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn at(n: u64) -> Position {
        Position::new(n, 0)
    }

    #[test]
    fn a_living_holder_keeps_its_messages() {
        let (ada, bob) = (name("ada"), name("bob"));
        let mut group = Group::new(Position::ZERO);
        group.deliver(&ada, at(1), 0);
        group.extend(&ada, &[at(1)], 4000);
        assert_eq!(group.take_over(&bob, 8999, LEASE, 10), []);
        assert_eq!(group.take_over(&bob, 9000, LEASE, 10).len(), 1);
    }

    #[test]
    fn a_stale_sign_of_life_does_not_take_a_message_back() {
        let (ada, bob) = (name("ada"), name("bob"));
        let mut group = Group::new(Position::ZERO);
        group.deliver(&ada, at(1), 0);
        group.take_over(&bob, LEASE, LEASE, 10);
        group.extend(&ada, &[at(1)], LEASE + 4000);
        assert_eq!(group.take_over(&ada, 2 * LEASE, LEASE, 10).len(), 1);
    }

    #[test]
    fn only_the_holder_may_ask_for_a_retry() {
        let (ada, bob) = (name("ada"), name("bob"));
        let mut group = Group::new(Position::ZERO);
        group.deliver(&ada, at(1), 0);
        group.take_over(&bob, LEASE, LEASE, 10);
        assert!(!group.retry(&ada, at(1), 0));
        assert!(group.retry(&bob, at(1), LEASE + 100));
        assert_eq!(group.take_over(&ada, LEASE + 99, LEASE, 10), []);
        assert_eq!(group.take_over(&ada, LEASE + 100, LEASE, 10)[0].attempt, 3);
    }

    #[test]
    fn leaving_gives_everything_back_at_once() {
        let (ada, bob) = (name("ada"), name("bob"));
        let mut group = Group::new(Position::ZERO);
        group.deliver(&ada, at(1), 0);
        group.deliver(&ada, at(2), 0);
        assert!(group.leave(&ada, 10));
        assert_eq!(group.take_over(&bob, 10, LEASE, 1).len(), 1);
        assert_eq!(group.take_over(&bob, 10, LEASE, 1).len(), 1);
        assert_eq!(group.members().count(), 1);
    }

    #[test]
    fn the_first_unprocessed_message_is_the_oldest_held() {
        let ada = name("ada");
        let mut group = Group::new(Position::ZERO);
        group.deliver(&ada, at(1), 0);
        group.deliver(&ada, at(2), 0);
        group.settle(at(2));
        assert_eq!(group.first_unprocessed(), at(1));
        group.settle(at(1));
        assert_eq!(group.first_unprocessed(), Position::new(2, 1));
    }

    #[test]
    fn moved_back_a_group_keeps_what_it_has_to_process_again() {
        let ada = name("ada");
        let mut group = Group::new(Position::ZERO);
        for n in 1..=5 {
            group.deliver(&ada, at(n), 0);
            if n < 5 {
                group.settle(at(n));
            }
        }
        group.seek(at(2));
        assert_eq!(group.first_unprocessed(), Position::new(2, 1));
    }

    #[test]
    fn an_owner_has_at_once_what_was_held_before_it() {
        let (ada, bob) = (name("ada"), name("bob"));
        let mut group = Group::new(Position::ZERO);
        group.deliver(&ada, at(1), 0);
        group.deliver(&ada, at(2), 0);
        group.retry(&ada, at(2), 500);
        group.release_all(10);
        let taken = group.take_over(&bob, 10, LEASE, 10);
        assert_eq!(
            taken,
            [Grant {
                position: at(1),
                attempt: 2
            }]
        );
        assert_eq!(group.take_over(&bob, 500, LEASE, 10)[0].position, at(2));
    }

    #[test]
    fn what_was_lost_twice_is_given_one_at_a_time() {
        let (ada, bob) = (name("ada"), name("bob"));
        let mut group = Group::new(Position::ZERO);
        for n in 1..=4 {
            group.deliver(&ada, at(n), 0);
        }
        // Asked to be tried again, it came to an end.
        group.retry(&ada, at(4), 0);
        assert_eq!(group.take_over(&ada, LEASE, LEASE, 10).len(), 4);
        group.retry(&ada, at(4), LEASE);
        group.drop_member(&ada, LEASE);
        let positions = |grants: Vec<Grant>| -> Vec<Position> {
            grants.iter().map(|grant| grant.position).collect()
        };
        assert_eq!(
            positions(group.take_over(&bob, LEASE, LEASE, 10)),
            [at(1), at(4)]
        );
        assert_eq!(positions(group.take_over(&ada, LEASE, LEASE, 10)), [at(2)]);
        assert_eq!(group.take_over(&bob, LEASE, LEASE, 10), []);
        assert_eq!(group.next_claim_of(&bob, LEASE, LEASE), Some(2 * LEASE));

        // With its end there is room for the next.
        let offers = group.offers();
        group.settle(at(1));
        assert!(group.offers() > offers);
        assert_eq!(positions(group.take_over(&bob, LEASE, LEASE, 10)), [at(3)]);
        // An owner has them all.
        group.drop_member(&ada, LEASE);
        group.drop_member(&bob, LEASE);
        let all = group.take_over_in_order(&ada, LEASE, LEASE, 10);
        assert_eq!(positions(all), [at(2), at(3), at(4)]);
    }

    #[test]
    fn only_the_silent_who_hold_nothing_are_removed() {
        let (ada, bob, cyd) = (name("ada"), name("bob"), name("cyd"));
        let mut group = Group::new(Position::ZERO);
        group.deliver(&ada, at(1), 0);
        group.retry(&ada, at(1), 10_000);
        group.seen(&bob, 0);
        group.seen(&cyd, 600);
        assert_eq!(group.remove_silent(1000, 1000), [bob]);
        group.settle(at(1));
        assert_eq!(group.remove_silent(1000, 1000), [ada]);
        assert_eq!(group.members().count(), 1);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Deliver(usize),
        TakeOver(usize),
        Settle(u64),
        Retry(usize, u64, u64),
        Extend(usize, u64),
        Leave(usize),
        Die(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..3).prop_map(Step::Deliver),
            (0usize..3).prop_map(Step::TakeOver),
            (1u64..30).prop_map(Step::Settle),
            (0usize..3, 1u64..30, 0u64..10_000).prop_map(|(m, p, d)| Step::Retry(m, p, d)),
            (0usize..3, 1u64..30).prop_map(|(m, p)| Step::Extend(m, p)),
            (0usize..3).prop_map(Step::Leave),
            (0usize..3).prop_map(Step::Die),
            (0u64..6000).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever happens: a message is settled at most once, its attempts only grow, no one gets a message whose
        /// holder showed life within the lease, nor two suspects, and `next_claim` is never late.
        #[test]
        fn rules_hold_over_any_schedule(steps in proptest::collection::vec(step(), 0..300)) {
            let members = [name("a"), name("b"), name("c")];
            let mut group = Group::new(Position::ZERO);
            let mut now = 0;
            let mut delivered = 0;
            let mut settled = std::collections::BTreeSet::new();
            for step in steps {
                match step {
                    Step::Deliver(m) => {
                        delivered += 1;
                        group.deliver(&members[m], at(delivered), now);
                    }
                    Step::TakeOver(m) => {
                        let before = group.clone();
                        let due: Vec<Position> = before
                            .held()
                            .filter(|(_, held)| held.claimable(LEASE) <= now)
                            .map(|(position, _)| position)
                            .collect();
                        if !due.is_empty() {
                            prop_assert!(before.next_claim(LEASE).unwrap() <= now);
                        }
                        let grants = group.take_over(&members[m], now, LEASE, usize::MAX);
                        let mut suspects = usize::from(before.has_suspect(&members[m], now, LEASE));
                        let mut given = due;
                        given.retain(|at| {
                            let is_suspect = before.holding(*at).unwrap().is_next_a_suspect();
                            suspects += usize::from(is_suspect);
                            !is_suspect || suspects == 1
                        });
                        prop_assert_eq!(grants.iter().map(|g| g.position).collect::<Vec<_>>(), given);
                        let next = group.next_claim_of(&members[m], now, LEASE);
                        prop_assert!(next.is_none_or(|at| at > now));
                        for grant in grants {
                            prop_assert_eq!(grant.attempt, before.holding(grant.position).unwrap().attempt + 1);
                        }
                    }
                    Step::Settle(p) => {
                        let won = group.settle(at(p)).is_some();
                        prop_assert!(!won || settled.insert(p), "{} settled twice", p);
                    }
                    Step::Retry(m, p, delay) => {
                        group.retry(&members[m], at(p), now + delay);
                    }
                    Step::Extend(m, p) => group.extend(&members[m], &[at(p)], now),
                    Step::Leave(m) => {
                        group.leave(&members[m], now);
                    }
                    Step::Die(m) => {
                        group.drop_member(&members[m], now);
                    }
                    Step::Pass(ms) => now += ms,
                }
                prop_assert_eq!(group.pending() as u64 + settled.len() as u64, delivered);
            }
        }
    }
}
