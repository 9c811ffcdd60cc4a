//! The rules that every broker keeps, on a private Redis.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::Arc;

use streamerson_core::{Broker, Name};
use streamerson_redis::RedisBroker;
use streamerson_testkit::conformance::{self, Trial, restart};
use streamerson_testkit::conformance_suite;
use streamerson_testkit::redis::RedisServer;

async fn connect(server: &RedisServer) -> Arc<dyn Broker> {
    let namespace = Name::new("conformance").unwrap();
    let broker = RedisBroker::connect(&server.url(), namespace).await;
    Arc::new(broker.unwrap())
}

async fn redis() -> (Arc<dyn Broker>, RedisServer) {
    let server = RedisServer::start().await;
    (connect(&server).await, server)
}

conformance_suite!(on_redis, super::redis());

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_all_rules_at_once() {
    let (broker, _server) = redis().await;
    let broken = conformance::all_at_once(Trial::new(broker)).await;
    assert_eq!(broken, [""; 0]);
}

#[tokio::test]
async fn redis_keeps_what_it_stored_over_a_restart() {
    let mut server = RedisServer::builder().appendonly("always").start().await;
    let (kept, member) = restart::before(&Trial::new(connect(&server).await)).await;
    drop(member);
    server.kill().await;
    server.start_again().await;
    restart::after(&Trial::new(connect(&server).await), kept).await;
}
