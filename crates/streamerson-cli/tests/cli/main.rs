//! The command as its users run it: real processes, real sockets, a real Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod dev;
mod errors;
mod messages;
mod program;
mod reply;
mod support;
