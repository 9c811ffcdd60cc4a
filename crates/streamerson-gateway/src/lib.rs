//! The HTTP gateway: requests become messages, replies become responses.
//!
//! * [`Config`], [`Route`]: what is served, and within which bounds; from a TOML file and the environment.
//! * [`Gateway`]: the service. It mounts into an axum app, or is served by [`Server`].
//! * [`Server`]: an accept loop that keeps its bounds and drains.
//! * [`Admin`]: health, metrics, routes and advice on scaling, for an address of its own.

mod admin;
mod answering;
mod body;
mod codes;
pub mod config;
mod envelope;
mod gateway;
mod headers;
mod json;
mod metrics;
mod path;
mod problem;
mod rarely;
mod reply;
mod response;
mod routes;
mod scale;
mod server;

pub use admin::Admin;
pub use answering::Answering;
pub use config::{Config, Environment, Route};
pub use gateway::Gateway;
pub use metrics::ConnectionMetrics;
pub use server::{Drained, Server};
