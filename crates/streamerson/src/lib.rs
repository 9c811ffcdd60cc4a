//! Handlers, extractors, workers and clients over durable streams.
//!
//! A handler is an async function, an application is a [`Router`], a [`Worker`] serves it, a [`Client`] calls it:
//!
//! ```
//! use streamerson::{Client, Json, Router, Worker, connect};
//! use serde_json::{Value, json};
//!
//! async fn greet(Json(request): Json<Value>) -> Json<Value> {
//!     Json(json!({ "howdy": format!("there, {}", request["name"].as_str().unwrap_or("stranger")) }))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = connect("memory:").await?;
//! let router = Router::new().on("greet", greet);
//! tokio::spawn(Worker::new(broker.clone()).topic("hello").group("greeters").serve(router).into_future());
//!
//! let client = Client::open(broker).await?;
//! let reply = client.request("hello", "greet").json(&json!({ "name": "Ada" })).await?;
//! assert_eq!(reply.json::<Value>()?, json!({ "howdy": "there, Ada" }));
//! # Ok(())
//! # }
//! ```
//!
//! * [`connect()`]: a broker by URL.
//! * [`client`]: send messages, and request answers within a deadline.
//! * [`handler`], [`extract`], [`reply`]: what a handler takes, and what it answers.
//! * [`router`]: which handler handles which message type, and the tower layers around it.
//! * [`worker`]: reads topics as a member of a consumer group, and settles what the router answered.
//! * [`consumer`]: reads everything in topics, without sharing the work.

mod backoff;
pub mod client;
mod clock;
mod connect;
pub mod consumer;
mod deadline;
mod dedupe;
mod draft;
mod exclusive;
pub mod extract;
pub mod handler;
mod partitions;
pub mod reply;
mod request;
pub mod router;
mod shutdown;
pub mod worker;

pub use client::{Client, RequestError};
pub use connect::{connect, connect_in};
pub use consumer::Consumer;
pub use deadline::Deadline;
pub use dedupe::Dedupe;
pub use extract::{Attempt, Fence, FromRequest, IdempotencyKey, Json, Path, Query, State};
pub use handler::Handler;
/// The crate whose `StatusCode` a [`Problem`] and a [`Reply`] have.
pub use http;
pub use reply::{Forward, IntoReply, NoReply, Problem, Publish, Reply};
pub use request::Request;
pub use router::Router;
pub use shutdown::shutdown_signal;
pub use streamerson_core as core;
pub use streamerson_core::meta::Headers;
pub use streamerson_core::retry::RetryPolicy;
pub use streamerson_core::{Error, Message, Meta, Result};
pub use worker::Worker;

/// The README's worker, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

/// The page about workers, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/workers.md")]
pub struct Workers;

/// The recipes of the guarantees, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guarantees.md")]
pub struct Guarantees;
