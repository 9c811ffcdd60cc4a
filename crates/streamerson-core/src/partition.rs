//! Partitions: which of a topic's parts a message belongs to.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use bytestring::ByteString;
use serde::Deserialize;

use crate::meta::{Headers, IDEMPOTENCY_KEY};
use crate::stats::{GroupStats, TopicStats};
use crate::{Error, Message, Once, Result, Topic};

/// The most partitions a topic can be divided into.
pub const MOST: u32 = 1024;

/// The group that forwards what is sent to a divided topic as a whole, and the lease of its only member.
pub const FORWARDER: &str = "streamerson-partitions";

/// The partition of `key` among `partitions`, which is not 0: CRC-32 (IEEE) of its bytes, modulo their number. Every language
/// has it, so that producers in any language agree; `spec/` has vectors.
///
/// ```
/// use streamerson_core::partition;
///
/// assert_eq!(partition::of("123456789", 1000), 0xcbf43926 % 1000);
/// ```
pub fn of(key: &str, partitions: u32) -> u32 {
    crc32fast::hash(key.as_bytes()) % partitions.max(1)
}

/// The topic that is partition `number` of `topic`.
pub fn topic(topic: &Topic, number: u32) -> Result<Topic> {
    Topic::new(format!("{}.{number}", topic.as_str()))
}

/// The topic that `part` would be a partition of, and which one. Whether it is one, the broker knows: it is when the topic is
/// divided into more partitions than that.
///
/// ```
/// use streamerson_core::{Topic, partition};
///
/// let orders = Topic::new("orders")?;
/// assert_eq!(partition::number(&partition::topic(&orders, 3)?), Some((orders.clone(), 3)));
/// assert_eq!(partition::number(&orders), None);
/// # Ok::<(), streamerson_core::Error>(())
/// ```
pub fn number(part: &Topic) -> Option<(Topic, u32)> {
    let (whole, digits) = part.as_str().rsplit_once('.')?;
    let number: u32 = digits.parse().ok()?;
    // `orders.03` is a topic like any other.
    let is_plain = number.to_string() == digits;
    let whole = Topic::new(whole.to_owned()).ok().filter(|_| is_plain)?;
    Some((whole, number))
}

/// Adds to the partitions of `topic` among `found` the groups of it that have not begun there, with all that stands
/// there as their lag: otherwise what nobody reads would be seen nowhere. A group of the topic is one that it has as a whole or in a
/// partition.
pub fn with_unread(topic: &Topic, partitions: u32, found: &mut [(Topic, TopicStats)]) {
    let is_part = |part: &Topic| number(part).is_some_and(|(of, n)| of == *topic && n < partitions);
    let of_topic = found
        .iter()
        .filter(|(part, _)| part == topic || is_part(part));
    let groups = of_topic.flat_map(|(_, stats)| &stats.groups);
    let names: BTreeSet<String> = groups
        .map(|group| group.name.clone())
        // It reads the topic as a whole, for all groups.
        .filter(|name| name != FORWARDER)
        .collect();
    for (_, stats) in found.iter_mut().filter(|(part, _)| is_part(part)) {
        if stats.length == 0 {
            continue;
        }
        for name in &names {
            if stats.groups.iter().all(|group| group.name != *name) {
                stats.groups.push(GroupStats {
                    name: name.clone(),
                    cursor: None,
                    lag: Some(stats.length),
                    next: stats.first,
                    pending: 0,
                    retrying: 0,
                    oldest_pending: None,
                    members: Vec::new(),
                });
            }
        }
        stats.groups.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

/// The key under which a message is ordered: the `key` of its `meta`; else what its caller means by its idempotency key, so
/// that the same thing asked for twice is seen by the same owner; else its id. What is not readable has no key.
///
/// ```
/// use streamerson_core::{Message, Meta, partition};
///
/// let message = Message::new("order.paid", "{}");
/// assert_eq!(partition::key(&message), message.id);
/// let meta = Meta { key: Some("order-7".into()), ..Meta::default() };
/// assert_eq!(partition::key(&message.with_meta(&meta)), "order-7");
/// # Ok::<(), streamerson_core::Error>(())
/// ```
pub fn key(message: &Message) -> ByteString {
    written_key(message).unwrap_or_else(|| message.id.clone())
}

/// The key that the `meta` of a message says: its ordering key, or else its caller's idempotency key.
pub fn written_key(message: &Message) -> Option<ByteString> {
    #[derive(Deserialize)]
    struct Keyed<'a> {
        #[serde(borrow, default)]
        key: Option<Cow<'a, str>>,
        #[serde(default)]
        hdr: Headers,
    }
    if message.meta.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let keyed: Keyed<'_> = serde_json::from_slice(&message.meta).ok()?;
    if let Some(key) = keyed.key {
        return Some(key.into_owned().into());
    }
    let key = keyed.hdr.get(IDEMPOTENCY_KEY)?;
    let once = Once::of_caller(&message.kind, key, Duration::ZERO);
    once.ok().map(|once| once.key)
}

/// Refuses what a topic cannot be divided into, and topics that are not divided: dead letters and inboxes.
pub fn check(topic: &Topic, partitions: u32) -> Result<()> {
    if !(1..=MOST).contains(&partitions) {
        return Err(Error::invalid(
            "invalid-partitions",
            format!(
                "topic {topic} cannot be divided into {partitions} partitions: use 1 to {MOST}"
            ),
        ));
    }
    if topic.is_inbox() || topic.is_dead_letters() {
        return Err(Error::invalid(
            "invalid-partitions",
            format!("{topic} cannot be divided: inboxes and dead letters are whole"),
        ));
    }
    self::topic(topic, partitions - 1).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Meta, Position};

    #[test]
    fn what_a_caller_asks_for_twice_has_the_same_key() {
        let asked = |kind, key: Option<&str>, idempotency: &str| {
            let mut meta = Meta {
                key: key.map(str::to_owned),
                ..Meta::default()
            };
            meta.hdr.append("Idempotency-Key", idempotency);
            Message::new(kind, "").with_meta(&meta)
        };
        let by = |message: &Message| super::key(message);
        assert_eq!(by(&asked("pay", None, "k")), by(&asked("pay", None, "k")));
        assert_ne!(
            by(&asked("pay", None, "k")),
            by(&asked("refund", None, "k"))
        );
        assert_eq!(by(&asked("pay", Some("7"), "k")), "7");
        let empty = asked("pay", None, "");
        assert_eq!(by(&empty), empty.id);
    }

    #[test]
    fn what_a_group_has_not_begun_to_read_is_its_lag() {
        let at = |ms| Some(Position::new(ms, 0));
        let stats = |length, groups: &[&str]| TopicStats {
            length,
            first: at(length),
            groups: groups.iter().map(|name| group(name)).collect(),
            ..TopicStats::default()
        };
        fn group(name: &str) -> GroupStats {
            GroupStats {
                name: name.to_owned(),
                cursor: None,
                lag: Some(0),
                next: None,
                pending: 0,
                retrying: 0,
                oldest_pending: None,
                members: Vec::new(),
            }
        }
        let topic = |name: &str| Topic::new(name.to_owned()).unwrap();
        let mut found = [
            ("orders", stats(1, &["billing", FORWARDER])),
            ("orders.0", stats(5, &["audit"])),
            ("orders.1", stats(0, &[])),
            ("orders.01", stats(5, &[])),
            ("orders.2", stats(5, &[])),
        ]
        .map(|(name, stats)| (topic(name), stats));
        with_unread(&topic("orders"), 2, &mut found);
        let seen = found.each_ref().map(|(_, stats)| {
            let groups = stats.groups.iter();
            let seen = groups.map(|group| (&*group.name, group.lag, group.next));
            seen.collect::<Vec<_>>()
        });
        assert_eq!(
            seen[1],
            [("audit", Some(0), None), ("billing", Some(5), at(5))]
        );
        let counts = seen.map(|groups| groups.len());
        assert_eq!(counts, [2, 2, 0, 0, 0]);
    }

    #[test]
    fn what_cannot_be_divided_is_refused() {
        let orders = Topic::new("orders").unwrap();
        for (topic, partitions, fits) in [
            (&orders, 0, false),
            (&orders, 1, true),
            (&orders, MOST, true),
            (&orders, MOST + 1, false),
            (&orders.dead_letters(), 4, false),
            (&Topic::inbox("gw").unwrap(), 4, false),
            (&Topic::new("x".repeat(199)).unwrap(), 4, false),
        ] {
            assert_eq!(
                check(topic, partitions).is_ok(),
                fits,
                "{topic} {partitions}"
            );
        }
    }
}
