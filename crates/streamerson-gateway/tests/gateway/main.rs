//! The gateway behind real sockets, over the in-memory broker.

mod admin;
mod config;
mod connections;
mod exchange;
mod mounted;
mod support;
