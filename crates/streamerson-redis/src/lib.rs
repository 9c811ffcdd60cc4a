//! Redis and Valkey Streams broker for Streamerson.
//!
//! [`RedisBroker`] keeps the whole contract of [`streamerson_core::Broker`] on Redis 6.2 or later, or Valkey.
//!
//! * `target`, `connection`, `wire`: where Redis is, how we get there and get there again, and the protocol spoken.
//! * `keys`, `entry`, `script`: what is stored under which key, an entry, and what happens in one step.
//! * `output`: messages as arguments of a script.
//! * `append`, `read`, `member`, `topics`, `stats`, `trim`, `upkeep`: the operations, one file (or folder) each.
//! * `boot`: what Redis promises, read once. `error`: what it refuses, and what to do about it.
//! * `broker`: the type that ties them together.

mod append;
mod boot;
mod broker;
mod connection;
mod entry;
mod error;
mod keys;
mod member;
mod output;
mod read;
mod script;
mod stats;
mod target;
mod topics;
mod trim;
mod upkeep;
mod wire;

pub use broker::RedisBroker;
