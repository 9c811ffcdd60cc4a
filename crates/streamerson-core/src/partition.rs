//! Partitions: which of a topic's parts a key belongs to.

use crate::{Result, Topic};

/// The most partitions a topic can be divided into.
pub const MOST: u32 = 1024;

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
    Topic::new(format!("{topic}.{number}"))
}
