//! The gateway behind real sockets, over the in-memory broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod config;
mod connections;
mod exchange;
mod figures;
mod mounted;
mod support;
mod worker;
