//! The leases of one topic: who holds what, until when, under which epoch.
//!
//! Pure: `now` in, decisions out. The in-memory and the embedded broker drive it; Redis keeps the same rules in scripts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Name;
use crate::lease::{Fence, Lease};
use crate::time::Millis;

/// The leases of one topic. It grows with what is held at one time, not with what was held before.
///
/// ```
/// use streamerson_core::Name;
/// use streamerson_core::lease_table::LeaseTable;
///
/// let (seat, ada, bob) = (Name::new("seat")?, Name::new("ada")?, Name::new("bob")?);
/// let mut leases = LeaseTable::after(0);
/// let hers = leases.acquire(&seat, &ada, 5000, 0);
/// assert_eq!(leases.acquire(&seat, &bob, 5000, 4999), leases.find(&seat, 4999).unwrap());
///
/// // Silent for the whole time: bob has it, and the epoch tells the two apart.
/// let his = leases.acquire(&seat, &bob, 5000, 5000);
/// assert_eq!(his.holder, bob);
/// assert!(his.epoch > hers.epoch);
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseTable {
    /// The newest given. One count for all names, so that names can be forgotten and epochs still never go back.
    epoch: u64,
    holdings: BTreeMap<Name, Holding>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holding {
    holder: Name,
    epoch: u64,
    until: Millis,
}

impl LeaseTable {
    /// No leases; epochs begin after `epoch`: the newest ever given here, or a number that stands for it, such as the
    /// time in milliseconds since 1970.
    pub fn after(epoch: u64) -> LeaseTable {
        LeaseTable {
            epoch,
            holdings: BTreeMap::new(),
        }
    }

    /// The newest epoch given.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Gives the lease to `holder` until `ttl` from now, if it is free or `holder` has it. Answers it as it stands.
    pub fn acquire(&mut self, name: &Name, holder: &Name, ttl: Millis, now: Millis) -> Lease {
        let until = now.saturating_add(ttl);
        let epoch = match self.holdings.get_mut(name) {
            Some(holding) if holding.until > now => {
                if holding.holder == *holder {
                    holding.until = until;
                }
                return holding.lease(name, now);
            }
            _ => self.epoch.saturating_add(1),
        };
        self.holdings.retain(|_, holding| holding.until > now);
        self.epoch = epoch;
        let holder = holder.clone();
        let holding = Holding {
            holder,
            epoch,
            until,
        };
        let lease = holding.lease(name, now);
        self.holdings.insert(name.clone(), holding);
        lease
    }

    /// Frees the lease. `false`: `holder` did not have it.
    pub fn release(&mut self, name: &Name, holder: &Name, now: Millis) -> bool {
        let has_it = self
            .holdings
            .get(name)
            .is_some_and(|holding| holding.holder == *holder && holding.until > now);
        if has_it {
            self.holdings.remove(name);
        }
        has_it
    }

    /// Whether `holder` may act under `fence`: it holds that lease, at that epoch, now.
    pub fn admits(&self, fence: &Fence, holder: &Name, now: Millis) -> bool {
        let holding = self.holding(fence, now);
        holding.is_some_and(|holding| holding.holder == *holder)
    }

    /// Whether that lease is held at that epoch, now: by whom it was given to, because an epoch is given once.
    pub fn is_held(&self, fence: &Fence, now: Millis) -> bool {
        self.holding(fence, now).is_some()
    }

    fn holding(&self, fence: &Fence, now: Millis) -> Option<&Holding> {
        let holding = self.holdings.get(&fence.lease)?;
        (holding.epoch == fence.epoch && holding.until > now).then_some(holding)
    }

    /// The lease `name`, if it is held.
    pub fn find(&self, name: &Name, now: Millis) -> Option<Lease> {
        let holding = self.holdings.get(name)?;
        (holding.until > now).then(|| holding.lease(name, now))
    }

    /// The leases that are held, by name.
    pub fn held(&self, now: Millis) -> impl Iterator<Item = Lease> {
        self.holdings
            .iter()
            .filter(move |(_, holding)| holding.until > now)
            .map(move |(name, holding)| holding.lease(name, now))
    }
}

impl Holding {
    fn lease(&self, name: &Name, now: Millis) -> Lease {
        Lease {
            name: name.clone(),
            holder: self.holder.clone(),
            epoch: self.epoch,
            remaining: Duration::from_millis(self.until.saturating_sub(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn fence(lease: &Lease) -> Fence {
        Fence {
            lease: lease.name.clone(),
            epoch: lease.epoch,
        }
    }

    #[test]
    fn a_renewal_keeps_the_epoch_and_a_loss_does_not() {
        let (seat, ada) = (name("seat"), name("ada"));
        let mut leases = LeaseTable::after(7);
        let first = leases.acquire(&seat, &ada, 100, 0);
        assert_eq!(first.epoch, 8);
        assert_eq!(leases.acquire(&seat, &ada, 100, 99).epoch, 8);
        let again = leases.acquire(&seat, &ada, 100, 199);
        assert_eq!(again.epoch, 9);
        assert!(!leases.admits(&fence(&first), &ada, 200));
        assert!(leases.admits(&fence(&again), &ada, 298));
        assert!(!leases.admits(&fence(&again), &ada, 299));
    }

    #[test]
    fn only_its_holder_releases_a_lease() {
        let (seat, ada, bob) = (name("seat"), name("ada"), name("bob"));
        let mut leases = LeaseTable::default();
        leases.acquire(&seat, &ada, 100, 0);
        assert!(!leases.release(&seat, &bob, 0));
        assert!(leases.release(&seat, &ada, 0));
        assert!(!leases.release(&seat, &ada, 0));
        assert_eq!(leases.acquire(&seat, &bob, 100, 0).epoch, 2);
    }

    #[test]
    fn what_has_run_out_is_forgotten() {
        let ada = name("ada");
        let mut leases = LeaseTable::default();
        for n in 0..100 {
            leases.acquire(&name(&format!("seat-{n}")), &ada, 10, n * 10);
        }
        assert_eq!(leases.holdings.len(), 1);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Acquire(usize, usize, Millis),
        Release(usize, usize),
        Pass(Millis),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..2, 0usize..3, 1u64..100).prop_map(|(l, h, ttl)| Step::Acquire(l, h, ttl)),
            (0usize..2, 0usize..3).prop_map(|(l, h)| Step::Release(l, h)),
            (0u64..60).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// At most one holder may act, only within the time it was given; an epoch is never given twice.
        #[test]
        fn one_holder_acts_at_a_time(steps in proptest::collection::vec(step(), 0..200)) {
            let (names, holders) = ([name("x"), name("y")], [name("a"), name("b"), name("c")]);
            let mut leases = LeaseTable::after(0);
            let mut now = 0;
            let mut given: BTreeMap<u64, (usize, usize, Millis)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Acquire(l, h, ttl) => {
                        let newest = leases.epoch();
                        let lease = leases.acquire(&names[l], &holders[h], ttl, now);
                        if lease.epoch > newest {
                            given.insert(lease.epoch, (l, h, now + ttl));
                        } else if lease.holder == holders[h] {
                            given.get_mut(&lease.epoch).unwrap().2 = now + ttl;
                        }
                        let (of, by, _) = given[&lease.epoch];
                        prop_assert_eq!((&names[of], &holders[by]), (&lease.name, &lease.holder));
                    }
                    Step::Release(l, h) => {
                        if leases.release(&names[l], &holders[h], now) {
                            let released = given.values_mut().filter(|(of, by, _)| (*of, *by) == (l, h));
                            released.for_each(|(_, _, until)| *until = (*until).min(now));
                        }
                    }
                    Step::Pass(ms) => now += ms,
                }
                for (l, of) in names.iter().enumerate() {
                    let mut may_act = 0;
                    for (epoch, (_, by, until)) in given.iter().filter(|(_, (at, _, _))| *at == l) {
                        let fence = Fence { lease: of.clone(), epoch: *epoch };
                        prop_assert_eq!(leases.admits(&fence, &holders[*by], now), *until > now);
                        prop_assert_eq!(leases.is_held(&fence, now), *until > now);
                        may_act += usize::from(*until > now);
                    }
                    prop_assert!(may_act <= 1);
                    prop_assert_eq!(leases.find(of, now).is_some(), may_act == 1);
                }
            }
        }
    }
}
