//! What an owner finds: messages that wait for another try, before which nothing of their keys may start.
//!
//! What its predecessor worked on needs no care: the broker gives it to the owner first, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use bytestring::ByteString;
use streamerson_core::{Broker, Membership, Pending, Position, Result, partition};

/// How many are asked for at a time.
const PAGE: usize = 500;

/// A message that was given back, to be delivered again.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) position: Position,
    pub(super) key: ByteString,
    pub(super) due: Duration,
}

/// Everything delivered and not settled.
pub(super) async fn pending(
    broker: &dyn Broker,
    membership: &Membership,
) -> Result<BTreeMap<Position, Pending>> {
    let Membership { topic, group, .. } = membership;
    let mut found = BTreeMap::new();
    let mut after = Position::ZERO;
    loop {
        let page = broker.pending(topic, group, after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = last.position;
        found.extend(page.into_iter().map(|pending| (pending.position, pending)));
    }
}

/// Everything that is due later, with its key. What is no message, or is not there any more, has none, and is left out.
pub(super) async fn parked(broker: &dyn Broker, membership: &Membership) -> Result<Vec<Parked>> {
    let mut parked = Vec::new();
    for (position, pending) in pending(broker, membership).await? {
        let Some(due) = pending.due.filter(|due| !due.is_zero()) else {
            continue;
        };
        let entries = broker.range(&membership.topic, before(position), 1).await?;
        let entry = entries.into_iter().find(|entry| entry.position == position);
        if let Some(Ok(message)) = entry.map(|entry| entry.message) {
            let key = partition::key(&message);
            parked.push(Parked { position, key, due });
        }
    }
    Ok(parked)
}

/// The last position before this one.
pub(super) fn before(position: Position) -> Position {
    match (position.major(), position.minor()) {
        (0, 0) => Position::ZERO,
        (major, 0) => Position::new(major - 1, u64::MAX),
        (major, minor) => Position::new(major, minor - 1),
    }
}
