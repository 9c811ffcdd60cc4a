//! The command as its users run it: real processes, real sockets, a real Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod chaos;
mod clock;
mod dev;
mod dlq;
mod errors;
mod group;
mod messages;
mod metrics;
mod program;
mod reply;
mod support;
mod topic;
