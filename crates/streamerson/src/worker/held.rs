//! What a member holds, and the signs of life for all of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamerson_core::{Delivery, Position, Settler};

/// The positions a member holds: delivered, and not settled yet.
#[derive(Debug, Default)]
pub(super) struct Held {
    positions: Mutex<HashSet<Position, ahash::RandomState>>,
}

impl Held {
    /// Adds `deliveries`, and drops those held already: while signs of life get lost, a member may take over from
    /// itself what its handlers still work on.
    pub(super) fn add(&self, deliveries: &mut Vec<Delivery>) {
        let mut held = self.positions.lock();
        deliveries.retain(|delivery| held.insert(delivery.receipt.position()));
    }

    pub(super) fn remove(&self, positions: impl Iterator<Item = Position>) {
        let mut held = self.positions.lock();
        for position in positions {
            held.remove(&position);
        }
    }

    fn snapshot(&self) -> Vec<Position> {
        self.positions.lock().iter().copied().collect()
    }
}

/// Extends the leases of everything held, three times within a lease, so that one sign of life may get lost.
pub(super) async fn keep(held: Arc<Held>, settler: Arc<dyn Settler>, lease: Duration) {
    loop {
        tokio::time::sleep(lease / 3).await;
        let positions = held.snapshot();
        if positions.is_empty() {
            continue;
        }
        if let Err(error) = settler.extend(&positions).await {
            tracing::warn!(%error, held = positions.len(), "leases cannot be extended at the moment");
        }
    }
}
