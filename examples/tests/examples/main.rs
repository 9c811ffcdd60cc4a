//! Each example end to end: real HTTP through a gateway, the example as a process of its own, over the embedded broker
//! and over a real Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod crud;
mod hello;
mod pipeline;
mod stack;
