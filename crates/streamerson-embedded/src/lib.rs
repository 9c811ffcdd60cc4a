//! A durable broker inside your process: an append log with group commit, and a Redis-protocol port to it.
//!
//! Everything written goes to one log per data directory, in checksummed frames, one per commit. A commit is what came
//! in while the one before was written: appends and settlements of all callers share one write, and, for class `disk`,
//! one sync, before anything is acknowledged or seen. There are no timers.
//!
//! | class | an acknowledged append survives |
//! |---|---|
//! | [`Memory`](streamerson_core::Durability::Memory) | nothing: no files |
//! | [`Os`](streamerson_core::Durability::Os) | the death of the process |
//! | [`Disk`](streamerson_core::Durability::Disk), the default | power loss |
//!
//! What is promised beside that:
//!
//! * A settlement and its outputs are one step: both are there after a crash, or neither.
//! * Opening verifies every byte that was acknowledged. The rest of an interrupted write at the very end is cut off and
//!   reported in [`Recovery`]; any other damage, and a missing file, is an error that names it, and nothing is changed.
//!   After an orderly end even the last record is known to be whole. After a crash of class `os` with a power loss,
//!   holes may look like damage: that class does not promise to survive it.
//! * A full disk refuses appends, while settlements, trims and reads go on; appends resume by themselves.
//! * A sync that fails stops everything until the directory is opened again: nobody knows what is stored.
//! * After a restart, retries are due when they were, and what was delivered and not settled comes again, in order, with
//!   its deliveries counted: also those that killed the process. Only a power loss may take the last of these counts.
//! * Scheduled messages appear when they are due, by the wall clock, and keys of what happens once are forgotten when their
//!   time is over; restarts in between change nothing. Nobody holds a lease after a restart: whoever did must acquire it
//!   again, under a greater epoch.
//!
//! What it costs: memory for the bodies of recent messages ([`Options::cache_bytes`]), 16 bytes for every message
//! held, and some 150 and the key for each that happens once: up to a million keys of a topic, and of a group, which also begin
//! every segment. Disk space is freed by whole segments, when nothing in them is held any more: **a topic that is never trimmed
//! keeps every segment it has a message in**. However many segments there are, no more than some 70 files are open, and those being read.
//!
//! A data directory holds `LOCK`, `delivered` (how far each group has been delivered), segments (`00000000000000000001.log`, …, growing from 1 MiB to
//! [`Options::segment_bytes`]) and `next`, the segment made ready for when the present one is full.

mod body;
mod broker;
mod engine;
mod log;
mod member;
mod options;
pub mod port;
mod reader;
mod settler;
mod upkeep;

pub use broker::EmbeddedBroker;
pub use options::{Options, Recovery};
