//! What is delivered and not settled, and not known to the owner: left by its predecessor, or given to it in an answer that
//! got lost. It comes again; until it does, nothing of its keys may start.

use std::collections::BTreeMap;
use std::time::Duration;

use bytestring::ByteString;
use streamerson_core::{Broker, Entry, Membership, Pending, Position, Result, partition};

/// How many are asked for at a time.
const PAGE: usize = 256;

/// A message that will be delivered again.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) position: Position,
    pub(super) key: ByteString,
    /// When it is due, if it was given back.
    pub(super) due: Option<Duration>,
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

/// Of `pending`, what is not `known`, with its key. What is no message, or is not there any more, has none, and is left out.
pub(super) async fn expected(
    broker: &dyn Broker,
    membership: &Membership,
    pending: BTreeMap<Position, Pending>,
    known: impl Fn(Position) -> bool,
) -> Result<Vec<Expected>> {
    let mut expected = Vec::new();
    let mut page: Vec<Entry> = Vec::new();
    for (position, pending) in pending {
        if known(position) {
            continue;
        }
        if page.last().is_none_or(|last| last.position < position) {
            page = broker
                .range(&membership.topic, before(position), PAGE)
                .await?;
        }
        let entry = page.iter().find(|entry| entry.position == position);
        if let Some(Ok(message)) = entry.map(|entry| &entry.message) {
            expected.push(Expected {
                position,
                key: partition::key(message),
                due: pending.due,
            });
        }
    }
    Ok(expected)
}

/// The last position before this one.
pub(super) fn before(position: Position) -> Position {
    match (position.major(), position.minor()) {
        (0, 0) => Position::ZERO,
        (major, 0) => Position::new(major - 1, u64::MAX),
        (major, minor) => Position::new(major, minor - 1),
    }
}
