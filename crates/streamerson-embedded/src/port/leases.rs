//! Leases that clients hold: when a connection closes, those that were acquired or renewed over it last are free at once.

use std::collections::HashMap;

use parking_lot::Mutex;
use streamerson_core::lease::Lease;
use streamerson_core::{Name, Topic};

use crate::engine::Engine;

/// Leases noted before those that have run out are looked for.
const MANY: usize = 1_000;

/// The leases that clients hold.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<(Topic, Name), Holding>>,
}

#[derive(Debug)]
struct Holding {
    client: u64,
    holder: Name,
}

impl Leases {
    /// Notes that `lease` was acquired or renewed by `client`.
    pub(super) fn note(&self, engine: &Engine, client: u64, topic: &Topic, lease: &Lease) {
        let mut held = self.held.lock();
        if held.len() >= MANY && held.len().is_power_of_two() {
            held.retain(|(topic, name), holding| {
                let leases = engine.leases(topic);
                let mut same = leases.iter().filter(|lease| lease.name == *name);
                same.any(|lease| lease.holder == holding.holder)
            });
        }
        let holder = lease.holder.clone();
        let key = (topic.clone(), lease.name.clone());
        held.insert(key, Holding { client, holder });
    }

    /// The lease was given up.
    pub(super) fn forget(&self, topic: &Topic, name: &Name) {
        self.held.lock().remove(&(topic.clone(), name.clone()));
    }

    /// The connection of `client` has closed.
    pub(super) fn release(&self, engine: &Engine, client: u64) {
        self.held.lock().retain(|(topic, name), holding| {
            let gone = holding.client == client;
            if gone {
                engine.release(topic, name, &holding.holder);
            }
            !gone
        });
    }
}
