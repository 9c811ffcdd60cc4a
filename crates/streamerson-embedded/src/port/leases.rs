//! Leases that clients hold: when a connection closes, those that were acquired or renewed over it last are free at once.

use std::collections::HashMap;

use parking_lot::Mutex;
use streamerson_core::lease::Lease;
use streamerson_core::{Name, Topic};

use crate::engine::Engine;

/// Leases noted before those that have run out are looked for.
const FIRST_REVIEW: usize = 1_000;

/// The leases that clients hold.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    leases: HashMap<(Topic, Name), Holding>,
    /// Looks for those that have run out when there are more than this.
    review_at: usize,
}

#[derive(Debug)]
struct Holding {
    client: u64,
    holder: Name,
}

impl Leases {
    #[cfg(test)]
    fn len(&self) -> usize {
        self.held.lock().leases.len()
    }

    /// Notes that `lease` was acquired or renewed by `client`.
    pub(super) fn note(&self, engine: &Engine, client: u64, topic: &Topic, lease: &Lease) {
        let mut held = self.held.lock();
        let holder = lease.holder.clone();
        let key = (topic.clone(), lease.name.clone());
        held.leases.insert(key, Holding { client, holder });
        if held.leases.len() > held.review_at.max(FIRST_REVIEW) {
            held.leases.retain(|(topic, name), holding| {
                let lease = engine.lease(topic, name);
                lease.is_some_and(|lease| lease.holder == holding.holder)
            });
            // When as many again were added, so that looking costs a constant for each.
            held.review_at = 2 * held.leases.len();
        }
    }

    /// The lease was given up.
    pub(super) fn forget(&self, topic: &Topic, name: &Name) {
        self.held
            .lock()
            .leases
            .remove(&(topic.clone(), name.clone()));
    }

    /// The connection of `client` has closed.
    pub(super) fn release(&self, engine: &Engine, client: u64) {
        self.held.lock().leases.retain(|(topic, name), holding| {
            let gone = holding.client == client;
            if gone {
                engine.release(topic, name, &holding.holder);
            }
            !gone
        });
    }
}

#[cfg(test)]
mod tests {
    use streamerson_core::time::unix_ms;

    use super::*;
    use crate::Options;

    /// It would be all of them, again and again, with just the number at which they are looked at.
    #[tokio::test]
    async fn a_renewal_looks_at_no_other_lease() {
        let engine = Engine::in_memory(&Options::default(), unix_ms);
        let (topic, ada) = (Topic::new("orders").unwrap(), Name::new("ada").unwrap());
        let name = |n: usize| Name::new(format!("seat-{n}")).unwrap();
        let leases = Leases::default();
        let note = async |n: usize| {
            let lease = engine.acquire(&topic, &name(n), &ada, 60_000).await;
            leases.note(&engine, 1, &topic, &lease.unwrap());
        };
        for n in 0..1024 {
            note(n).await;
        }
        // Whoever looks, finds that this one is gone.
        assert!(engine.release(&topic, &name(0), &ada));
        for n in 1..1024 {
            note(n).await;
            assert_eq!(leases.len(), 1024);
        }
        // When there are twice as many, it is found.
        for n in 1024..=2048 {
            note(n).await;
        }
        assert_eq!(leases.len(), 2048);
    }
}
