//! Durable single-node broker for Streamerson: an append log with group commit, and a Redis-protocol port

mod body;
mod broker;
mod engine;
mod log;
mod member;
mod options;
pub mod port;
mod reader;
mod settler;

pub use broker::EmbeddedBroker;
pub use options::{Options, Recovery};
