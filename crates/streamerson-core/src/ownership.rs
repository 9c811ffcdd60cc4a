//! Ownership: which partitions of an ordered topic one member of a group takes, keeps and gives up.
//!
//! Pure: what the broker answered and `now` in, [`Step`]s out. Every member decides for itself, from two things only: who
//! else has a seat in the group, and whether the lease of a partition could be had. So nobody leads, and nothing but leases
//! has to be stored:
//!
//! * `n` partitions over `m` members: each serves `n / m`, and the first `n % m` by name one more.
//! * Who has more than its share drains what is too much: takes nothing new, ends what runs, settles; then it releases the
//!   lease. Who has less asks for every partition it does not have, until it has its share.
//! * A member that does not renew, because it died or sleeps, loses its seat and its partitions after one lease. By its own
//!   clock it stops before that, because it counts from when it asked.
//! * A member that left out two signs of life is probably dead, though it has a seat. It has no share, and until it
//!   is heard again or its seat is gone, what matters is that every partition is served, not by whom: nobody drains,
//!   because whoever would get the partition may be dead too; and whoever has its share follows the leases of the others, and
//!   takes what ran out, a moment after those that have less.

use std::collections::BTreeMap;

use crate::Name;
use crate::time::Millis;

/// The longest time between two looks at who has a seat.
const LOOK: Millis = 250;

/// What a member does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Renew the seat, and look who else has one; report with [`Ownership::attended`].
    Attend,
    /// Look who has a seat; report with [`Ownership::attended`].
    Look,
    /// Acquire or renew the lease of this partition; report with [`Ownership::granted`] or [`Ownership::refused`].
    Acquire(u32),
    /// Take nothing new from this partition, end what runs, and report with [`Ownership::drained`].
    Drain(u32),
    /// Give up the lease of this partition, which was drained.
    Release(u32),
    /// The lease of this partition is lost: stop at once, and discard what runs.
    Stop(u32),
    /// Everything is given up: leave the seat. There are no further steps.
    Leave,
}

/// What an answer of the broker means for the work on a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// All is as before.
    None,
    /// Owned from now on, at this epoch: begin.
    Gained {
        /// The epoch of the lease.
        epoch: u64,
    },
    /// Lost, and owned again at this epoch: stop at once, and begin anew.
    Regained {
        /// The epoch of the lease.
        epoch: u64,
    },
    /// Lost: stop at once, and discard what runs.
    Lost,
}

/// The partitions of one topic, as one member sees them.
///
/// ```
/// use streamerson_core::Name;
/// use streamerson_core::ownership::{Change, Ownership, Step};
///
/// let me = Name::new("ada")?;
/// let mut ownership = Ownership::new(me.clone(), 1, 5000);
/// assert_eq!(ownership.next(0), Some(Step::Attend));
/// ownership.attended(0, 0, &[(me, 5000)]);
/// assert_eq!(ownership.next(0), Some(Step::Acquire(0)));
/// assert_eq!(ownership.granted(0, 1, 0, 0), Change::Gained { epoch: 1 });
/// assert_eq!(ownership.next(0), None);
/// assert_eq!(ownership.next(5000), Some(Step::Stop(0)), "nothing was renewed for a whole lease");
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ownership {
    me: Name,
    partitions: u32,
    lease: Millis,
    owned: BTreeMap<u32, Owned>,
    members: Vec<Name>,
    share: usize,
    /// Somebody who has a seat was not heard of for two beats.
    silence: bool,
    leaving: Leaving,
    attend_at: Millis,
    look_at: Millis,
    hunt: Hunt,
    /// When the leases of others end, as far as they were asked for.
    ends: BTreeMap<u32, Millis>,
    /// What failed here is not asked for before.
    shunned: BTreeMap<u32, Millis>,
}

#[derive(Debug, Clone)]
struct Owned {
    epoch: u64,
    until: Millis,
    renew_at: Millis,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    Draining,
    Drained,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Not,
    Draining,
    Left,
}

/// The search for partitions to have: rounds over all of them, with growing pauses.
#[derive(Debug, Clone)]
struct Hunt {
    /// How many partitions were looked at in this round.
    seen: u32,
    /// Where rounds begin; different for each member, so that they do not all ask for the same.
    from: u32,
    pause: Millis,
    /// No round begins before.
    at: Millis,
    /// When the first of the leases seen in this round ends.
    soonest: Millis,
}

impl Ownership {
    /// A member named `me` of a group that serves `partitions`; `me` must not be anybody else's name. Leases last `lease` ms.
    pub fn new(me: Name, partitions: u32, lease: Millis) -> Ownership {
        Ownership {
            members: vec![me.clone()],
            me,
            partitions,
            lease,
            owned: BTreeMap::new(),
            share: 0,
            silence: false,
            leaving: Leaving::Not,
            attend_at: 0,
            look_at: 0,
            hunt: Hunt {
                seen: 0,
                from: 0,
                pause: 0,
                at: 0,
                soonest: Millis::MAX,
            },
            ends: BTreeMap::new(),
            shunned: BTreeMap::new(),
        }
    }

    /// What to do next, if there is anything to do before [`Ownership::wake`].
    pub fn next(&mut self, now: Millis) -> Option<Step> {
        if let Some(partition) = self.first(|owned| owned.until <= now) {
            self.owned.remove(&partition);
            return Some(Step::Stop(partition));
        }
        if self.leaving == Leaving::Not && self.attend_at <= now {
            self.attend_at = now + self.beat();
            self.look_at = now + self.look();
            return Some(Step::Attend);
        }
        if self.leaving == Leaving::Not && self.look_at <= now {
            self.look_at = now + self.look();
            return Some(Step::Look);
        }
        // With many partitions there is always one that is due: so only those that cannot wait come before the rest.
        let beat = self.beat();
        if let Some(step) = self.renew(now, now + 2 * beat) {
            return Some(step);
        }
        if let Some(partition) = self.first(|owned| owned.state == State::Drained) {
            self.owned.remove(&partition);
            // It is for somebody else.
            self.ends.insert(partition, now + beat);
            return Some(Step::Release(partition));
        }
        if self.serving() > self.share && (!self.silence || self.leaving != Leaving::Not) {
            return self.drain_last();
        }
        if self.leaving == Leaving::Draining && self.owned.is_empty() {
            self.leaving = Leaving::Left;
            return Some(Step::Leave);
        }
        let step = self.hunt(now).or_else(|| self.follow(now));
        step.or_else(|| self.renew(now, Millis::MAX))
    }

    /// Renews the partition that is due longest, if its lease ends by `end`.
    fn renew(&mut self, now: Millis, end: Millis) -> Option<Step> {
        let pause = self.beat() / 4;
        let next = self.owned.iter_mut().min_by_key(|(_, it)| it.renew_at);
        let (partition, owned) = next.filter(|(_, it)| it.renew_at <= now && it.until <= end)?;
        // Asked again sooner than that only if this fails.
        owned.renew_at = now + pause;
        Some(Step::Acquire(*partition))
    }

    /// When [`Ownership::next`] has something to do again, if nothing is reported before; `None`: never.
    pub fn wake(&self) -> Option<Millis> {
        if self.leaving == Leaving::Left {
            return None;
        }
        let renewals = self
            .owned
            .values()
            .map(|owned| owned.renew_at.min(owned.until));
        let attend = (self.leaving == Leaving::Not).then_some(self.attend_at.min(self.look_at));
        let hunt = self.wants_more().then_some(self.hunt.at);
        let follow = self.followed().map(|(at, _)| at);
        renewals.chain(attend).chain(hunt).chain(follow).min()
    }

    /// These are all seats that are taken, with what remains of their time, as the answer to a request made at `asked`.
    pub fn attended(&mut self, asked: Millis, now: Millis, seats: &[(Name, Millis)]) {
        let others = || seats.iter().filter(|(member, _)| *member != self.me);
        let heard = |remaining: Millis| remaining + 2 * self.beat() >= self.lease;
        let heard_of = others().filter(|(_, remaining)| heard(*remaining));
        let mut members: Vec<Name> = heard_of.map(|(member, _)| member.clone()).collect();
        self.silence = members.len() < others().count();
        members.push(self.me.clone());
        members.sort();
        members.dedup();
        if self.leaving == Leaving::Not {
            let rank = members.binary_search(&self.me).unwrap_or(0);
            let (n, m) = (self.partitions as usize, members.len());
            self.share = n / m + usize::from(rank < n % m);
            self.hunt.from = (rank * n / m) as u32;
        }
        if members != self.members {
            self.members = members;
            self.hunt_anew(now);
        }
        // Whoever dies is missed at once when its time ends, not with the next look.
        let others = seats.iter().filter(|(member, _)| *member != self.me);
        let soonest = others.map(|(_, remaining)| now + remaining + 1).min();
        self.look_at = soonest.unwrap_or(Millis::MAX).min(asked + self.look());
    }

    /// The seat could not be renewed, or the others not be seen.
    pub fn not_attended(&mut self, now: Millis) {
        self.attend_at = now + self.beat() / 4;
    }

    /// The lease of `partition` is this member's, at `epoch`; it was asked for at `asked`.
    pub fn granted(&mut self, partition: u32, epoch: u64, asked: Millis, now: Millis) -> Change {
        let (until, renew_at) = (asked + self.lease, asked + self.beat());
        let wanted = self.wants_more() || self.follows();
        let fits = wanted && until > now;
        self.ends.remove(&partition);
        self.shunned.remove(&partition);
        let Some(owned) = self.owned.get_mut(&partition) else {
            // Not wanted any more by the time it came: it is given back.
            let state = if fits { State::Serving } else { State::Drained };
            let owned = Owned {
                epoch,
                until,
                renew_at,
                state,
            };
            self.owned.insert(partition, owned);
            if fits {
                self.hunt_anew(now);
                return Change::Gained { epoch };
            }
            return Change::None;
        };
        let same = owned.epoch == epoch;
        (owned.epoch, owned.until, owned.renew_at) = (epoch, until, renew_at);
        match owned.state {
            _ if same => Change::None,
            State::Serving => Change::Regained { epoch },
            State::Draining | State::Drained => {
                owned.state = State::Drained;
                Change::Lost
            }
        }
    }

    /// The lease of `partition` is somebody else's, for `remaining` more ms.
    pub fn refused(&mut self, partition: u32, remaining: Millis, now: Millis) -> Change {
        let end = now + remaining + 1;
        self.ends.insert(partition, end);
        if self.owned.remove(&partition).is_some() {
            self.hunt_anew(now);
            return Change::Lost;
        }
        // Whoever dies is followed at once when its time ends.
        self.hunt.soonest = self.hunt.soonest.min(end);
        if self.hunt.seen == 0 {
            self.hunt.at = self.hunt.at.min(self.hunt.soonest);
        }
        Change::None
    }

    /// Nothing runs in `partition` any more, and everything is settled.
    pub fn drained(&mut self, partition: u32) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.state = State::Drained;
        }
    }

    /// The work on `partition` failed, and nothing runs in it: it is given up, so that others may have it, and not asked for
    /// again before `again`.
    pub fn failed(&mut self, partition: u32, again: Millis) {
        self.drained(partition);
        self.shunned.insert(partition, again);
    }

    /// Give up everything, in order: drain, release, leave.
    pub fn leave(&mut self) {
        if self.leaving == Leaving::Not {
            self.leaving = Leaving::Draining;
            self.share = 0;
        }
    }

    /// The partitions that are served, with their epochs.
    pub fn served(&self) -> impl Iterator<Item = (u32, u64)> {
        let serving = self
            .owned
            .iter()
            .filter(|(_, owned)| owned.state == State::Serving);
        serving.map(|(partition, owned)| (*partition, owned.epoch))
    }

    /// How many partitions are this member's to serve, among all that were heard of lately.
    pub fn share(&self) -> usize {
        self.share
    }

    /// The members that have a seat and were heard of lately, by name.
    pub fn members(&self) -> &[Name] {
        &self.members
    }

    /// Five signs of life within a lease: some may get lost, and others are told soon who came and went.
    fn beat(&self) -> Millis {
        (self.lease / 5).max(1)
    }

    /// How often to look who has a seat. More often than signs of life are due where leases are long, because a broker that sees
    /// connections close frees what the dead had, and tells nobody.
    fn look(&self) -> Millis {
        self.beat().min(LOOK)
    }

    /// How long who has its share leaves what ran out to those that have less.
    fn courtesy(&self) -> Millis {
        self.beat() / 4
    }

    fn serving(&self) -> usize {
        self.served().count()
    }

    fn wants_more(&self) -> bool {
        self.leaving == Leaving::Not && self.serving() < self.share
    }

    /// Whether it takes, beyond its share, what may be nobody's.
    fn follows(&self) -> bool {
        self.leaving == Leaving::Not && self.silence && !self.wants_more()
    }

    fn first(&self, is: impl Fn(&Owned) -> bool) -> Option<u32> {
        let found = self.owned.iter().find(|(_, owned)| is(owned));
        found.map(|(partition, _)| *partition)
    }

    fn drain_last(&mut self) -> Option<Step> {
        let mut owned = self.owned.iter_mut().rev();
        let (partition, owned) = owned.find(|(_, owned)| owned.state == State::Serving)?;
        owned.state = State::Draining;
        Some(Step::Drain(*partition))
    }

    fn hunt(&mut self, now: Millis) -> Option<Step> {
        if !self.wants_more() || self.hunt.at > now {
            return None;
        }
        if self.hunt.seen == 0 {
            self.hunt.soonest = Millis::MAX;
        }
        while self.hunt.seen < self.partitions {
            let partition = (self.hunt.from + self.hunt.seen) % self.partitions;
            self.hunt.seen += 1;
            if self.owned.contains_key(&partition) {
                continue;
            }
            if let Some(again) = self.shunned.get(&partition).filter(|again| **again > now) {
                self.hunt.soonest = self.hunt.soonest.min(*again);
                continue;
            }
            if self.hunt.seen == self.partitions {
                self.rest(now);
            }
            return Some(Step::Acquire(partition));
        }
        self.rest(now);
        None
    }

    /// Asks for the partition of another when its lease has run out.
    fn follow(&mut self, now: Millis) -> Option<Step> {
        let (_, partition) = self.followed().filter(|(at, _)| *at <= now)?;
        // Asked again sooner than that only if this is answered.
        self.ends.insert(partition, now + self.beat());
        Some(Step::Acquire(partition))
    }

    /// When to ask for which partition next.
    fn followed(&self) -> Option<(Millis, u32)> {
        let others = (0..self.partitions).filter(|partition| !self.owned.contains_key(partition));
        let at = |partition| {
            let end = self.ends.get(&partition);
            let free = end.map_or(0, |end| end + self.courtesy());
            let again = self.shunned.get(&partition).copied();
            (free.max(again.unwrap_or(0)), partition)
        };
        self.follows().then(|| others.map(at).min())?
    }

    /// Pauses between two rounds: what others drain is free soon, so the first pauses are short.
    fn rest(&mut self, now: Millis) {
        self.hunt.seen = 0;
        self.hunt.pause = (2 * self.hunt.pause).clamp((self.lease / 50).max(1), self.beat());
        self.hunt.at = self.hunt.soonest.clamp(now + 1, now + self.hunt.pause);
    }

    fn hunt_anew(&mut self, now: Millis) {
        self.hunt.pause = 0;
        self.hunt.at = self.hunt.at.min(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEASE: Millis = 5000;

    fn name(n: usize) -> Name {
        Name::new(format!("m{n:02}")).unwrap()
    }

    #[test]
    fn partitions_are_kept_also_when_renewing_them_all_takes_longer_than_they_are_due() {
        let mut ownership = Ownership::new(name(0), 100, LEASE);
        let mut now = 0;
        while now < 20 * LEASE {
            match ownership.next(now) {
                Some(Step::Attend | Step::Look) => ownership.attended(now, now, &[]),
                Some(Step::Acquire(partition)) => {
                    let asked = now;
                    now += LEASE / 200;
                    ownership.granted(partition, 1, asked, now);
                }
                Some(step) => panic!("{step:?} after {now} ms"),
                None => now = ownership.wake().unwrap().max(now + 1),
            }
        }
        assert_eq!(ownership.served().count(), 100);
    }

    #[test]
    fn what_failed_is_given_up_and_asked_for_again_when_its_pause_is_over() {
        let asks = |ownership: &mut Ownership, now| {
            let mut asked = Vec::new();
            while let Some(step) = ownership.next(now) {
                match step {
                    Step::Attend | Step::Look => ownership.attended(now, now, &[]),
                    Step::Acquire(partition) => {
                        ownership.granted(partition, 1, now, now);
                        asked.push(partition);
                    }
                    step => assert_eq!(step, Step::Release(1)),
                }
            }
            asked
        };
        let mut ownership = Ownership::new(name(0), 2, LEASE);
        assert_eq!(asks(&mut ownership, 0), [0, 1]);
        let again = 321;
        ownership.failed(1, again);
        let mut now = 0;
        while now < again {
            assert_eq!(asks(&mut ownership, now), [0; 0], "after {now} ms");
            now = ownership.wake().unwrap();
        }
        assert_eq!(now, again);
        assert_eq!(asks(&mut ownership, now), [1]);
    }

    /// Leases as a broker keeps them: holder, epoch, end.
    struct Table {
        partitions: Vec<(Option<usize>, u64, Millis)>,
        seats: BTreeMap<usize, Millis>,
    }

    impl Table {
        fn new(partitions: u32) -> Table {
            Table {
                partitions: vec![(None, 0, 0); partitions as usize],
                seats: BTreeMap::new(),
            }
        }

        fn acquire(&mut self, partition: u32, who: usize, now: Millis) -> Result<u64, Millis> {
            let (holder, epoch, until) = &mut self.partitions[partition as usize];
            let held = holder.filter(|_| *until > now);
            if held.is_some_and(|holder| holder != who) {
                return Err(*until - now);
            }
            *epoch += u64::from(held.is_none());
            (*holder, *until) = (Some(who), now + LEASE);
            Ok(*epoch)
        }
    }

    struct Member {
        who: usize,
        ownership: Ownership,
        stopped: u32,
    }

    impl Member {
        fn new(who: usize, partitions: u32) -> Member {
            let ownership = Ownership::new(name(who), partitions, LEASE);
            Member {
                who,
                ownership,
                stopped: 0,
            }
        }

        /// Does all there is to do at `now`; drains at once.
        fn step(&mut self, table: &mut Table, now: Millis) {
            while let Some(step) = self.ownership.next(now) {
                match step {
                    Step::Attend | Step::Look => {
                        if step == Step::Attend {
                            table.seats.insert(self.who, now + LEASE);
                        }
                        table.seats.retain(|_, until| *until > now);
                        let seats: Vec<(Name, Millis)> = table
                            .seats
                            .iter()
                            .map(|(who, until)| (name(*who), until - now))
                            .collect();
                        self.ownership.attended(now, now, &seats);
                    }
                    Step::Acquire(partition) => match table.acquire(partition, self.who, now) {
                        Ok(epoch) => drop(self.ownership.granted(partition, epoch, now, now)),
                        Err(remaining) => drop(self.ownership.refused(partition, remaining, now)),
                    },
                    Step::Drain(partition) => self.ownership.drained(partition),
                    Step::Release(partition) => table.partitions[partition as usize].0 = None,
                    Step::Stop(_) => self.stopped += 1,
                    Step::Leave => drop(table.seats.remove(&self.who)),
                }
            }
        }
    }

    /// Lets all members act when they want to, until `end`.
    fn run(members: &mut [Member], table: &mut Table, from: Millis, end: Millis) -> Millis {
        let mut now = from;
        while now < end {
            members
                .iter_mut()
                .for_each(|member| member.step(table, now));
            let wakes = members.iter().filter_map(|member| member.ownership.wake());
            let next = wakes.min().unwrap_or(end);
            assert!(next > now, "a member that has nothing to do waits");
            now = next.min(end);
        }
        now
    }

    fn shares(members: &[Member]) -> Vec<usize> {
        members
            .iter()
            .map(|member| member.ownership.served().count())
            .collect()
    }

    #[test]
    fn members_that_join_and_leave_share_evenly_and_move_little() {
        let mut table = Table::new(16);
        let mut members = vec![Member::new(0, 16)];
        let now = run(&mut members, &mut table, 0, 100);
        assert_eq!(shares(&members), [16]);

        members.extend([Member::new(1, 16), Member::new(2, 16)]);
        let before: Vec<u32> = members[0].ownership.served().map(|(p, _)| p).collect();
        let now = run(&mut members, &mut table, now, now + 3 * LEASE);
        assert_eq!(shares(&members), [6, 5, 5]);
        assert!(
            members[0]
                .ownership
                .served()
                .all(|(p, _)| before.contains(&p))
        );

        members[1].ownership.leave();
        let now = run(&mut members, &mut table, now, now + 2 * LEASE);
        assert_eq!(shares(&members), [8, 0, 8]);
        let epochs: Vec<u64> = table
            .partitions
            .iter()
            .map(|(_, epoch, _)| *epoch)
            .collect();
        run(&mut members, &mut table, now, now + 10 * LEASE);
        let later: Vec<u64> = table
            .partitions
            .iter()
            .map(|(_, epoch, _)| *epoch)
            .collect();
        assert_eq!(epochs, later, "nothing moves while nothing changes");
    }

    #[test]
    fn what_a_dead_member_had_is_taken_when_its_leases_end() {
        let mut table = Table::new(5);
        let mut members = vec![Member::new(0, 5), Member::new(1, 5)];
        let now = run(&mut members, &mut table, 0, 2 * LEASE);
        members.remove(0);
        run(&mut members, &mut table, now, now + LEASE + 20);
        assert_eq!(shares(&members), [5]);
    }

    #[test]
    fn the_seats_of_the_dead_do_not_keep_a_partition_from_the_living() {
        let mut table = Table::new(1);
        let mut members: Vec<Member> = (0..4).map(|who| Member::new(who, 1)).collect();
        let mut now = run(&mut members, &mut table, 0, LEASE);
        assert_eq!(shares(&members), [1, 0, 0, 0]);
        // Those who would be next die shortly before the lease of the first ends.
        members.remove(0);
        let end = table.partitions[0].2;
        for ago in [LEASE / 5, 50] {
            now = run(&mut members, &mut table, now, end - ago);
            members.remove(0);
        }
        run(&mut members, &mut table, now, end + LEASE / 20 + 10);
        assert_eq!(shares(&members), [1]);
    }

    #[test]
    fn nobody_gives_a_partition_up_while_a_member_is_silent() {
        let mut ownership = Ownership::new(name(0), 2, LEASE);
        ownership.next(0);
        ownership.attended(0, 0, &[]);
        for partition in 0..2 {
            assert_eq!(ownership.next(0), Some(Step::Acquire(partition)));
            ownership.granted(partition, 1, 0, 0);
        }
        let seats = |silent| [(name(1), LEASE), (name(2), LEASE - silent)];
        ownership.attended(0, 0, &seats(2 * LEASE / 5 + 1));
        assert_eq!(ownership.next(0), None);
        ownership.attended(0, 0, &seats(2 * LEASE / 5));
        assert_eq!(ownership.next(0), Some(Step::Drain(1)));
    }

    #[test]
    fn who_cannot_renew_stops_before_the_broker_gives_the_lease_away() {
        let mut ownership = Ownership::new(name(0), 1, LEASE);
        ownership.next(0);
        ownership.attended(0, 0, &[]);
        assert_eq!(ownership.next(0), Some(Step::Acquire(0)));
        ownership.granted(0, 1, 0, 700);
        assert_eq!(ownership.next(LEASE), Some(Step::Stop(0)));
    }

    #[test]
    fn an_answer_that_took_a_whole_lease_is_worth_nothing() {
        let mut ownership = Ownership::new(name(0), 1, LEASE);
        ownership.next(0);
        ownership.attended(0, 0, &[]);
        ownership.next(0);
        assert_eq!(ownership.granted(0, 1, 0, LEASE), Change::None);
    }

    proptest! {
        /// Members come, leave, die and sleep: never do two serve a partition at a time by their clocks, and when peace
        /// returns, every partition is served and the shares differ by one at most.
        #[test]
        fn any_crowd_comes_to_rest(
            partitions in 1u32..20,
            acts in proptest::collection::vec((0usize..5, 0u8..4, 1u64..8000), 0..25),
        ) {
            let mut table = Table::new(partitions);
            let mut members: Vec<Member> = Vec::new();
            let mut asleep: Vec<Member> = Vec::new();
            let mut now = 0;
            for (fresh, (who, act, pause)) in acts.into_iter().enumerate() {
                match act {
                    0 => members.push(Member::new(fresh, partitions)),
                    1 if who < members.len() => members[who].ownership.leave(),
                    2 if who < members.len() => drop(members.remove(who)),
                    3 if who < members.len() => {
                        asleep.push(members.remove(who));
                        members.extend(asleep.pop().filter(|_| asleep.len() > 2));
                    }
                    _ => members.append(&mut asleep),
                }
                now = run(&mut members, &mut table, now, now + pause);
                for partition in 0..partitions {
                    let owner = |member: &&Member| {
                        let owned = member.ownership.owned.get(&partition);
                        owned.is_some_and(|owned| owned.until > now && owned.state == State::Serving)
                    };
                    prop_assert!(members.iter().filter(owner).count() <= 1);
                }
            }
            members.append(&mut asleep);
            members.retain(|member| member.ownership.leaving == Leaving::Not);
            run(&mut members, &mut table, now, now + 6 * LEASE);
            let shares = shares(&members);
            if !members.is_empty() {
                prop_assert_eq!(shares.iter().sum::<usize>(), partitions as usize);
                prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }
}
