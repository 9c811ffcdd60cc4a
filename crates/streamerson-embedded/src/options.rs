//! How a data directory is opened, and what was found there.

use std::ops::RangeInclusive;

use streamerson_core::{Durability, Error, Result};

/// Offsets in a segment are 32 bits.
const SEGMENT_BYTES: RangeInclusive<u64> = 4 << 10..=2 << 30;

/// How a data directory is opened.
///
/// ```
/// use streamerson_core::Durability;
/// use streamerson_embedded::Options;
///
/// let options = Options { durability: Durability::Os, ..Options::default() };
/// assert_eq!(options.segment_bytes, 64 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What an acknowledgement promises: [`Durability::Disk`] unless told otherwise. [`Durability::Memory`] stores nothing.
    pub durability: Durability,
    /// Size at which a log segment is closed and the next begun. The disk space of trimmed messages is freed by whole segments.
    pub segment_bytes: u64,
    /// Classes `os` and `disk`: memory for bodies of messages; others are read back from the log.
    pub cache_bytes: usize,
    /// Class `memory`: memory for messages; appends beyond are refused. Outputs of settlements may take as much again, so that
    /// what fills it can be worked off.
    pub memory_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::Disk,
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            memory_bytes: 1 << 30,
        }
    }
}

impl Options {
    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        if !SEGMENT_BYTES.contains(&self.segment_bytes) {
            return Err(Error::invalid(
                "invalid-options",
                format!(
                    "segments of {} bytes: choose {} to {}",
                    self.segment_bytes,
                    SEGMENT_BYTES.start(),
                    SEGMENT_BYTES.end()
                ),
            ));
        }
        match self.durability {
            Durability::Memory | Durability::Os | Durability::Disk => Ok(()),
            other => Err(Error::invalid(
                "unknown-durability",
                format!(
                    "the embedded broker has one node, durability {other} needs more: choose memory, os or disk"
                ),
            )),
        }
    }
}

/// What was found when a data directory was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Segments read.
    pub segments: u64,
    /// Entries that are still held.
    pub entries: u64,
    /// Bytes cut from the end of the last segment: the rest of a write that a crash interrupted.
    pub truncated_bytes: u64,
}
