//! Every broker keeps the rules.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use streamerson_core::memory::MemoryBroker;
use streamerson_core::{Broker, Durability, Name};
use streamerson_embedded::port::Port;
use streamerson_embedded::{EmbeddedBroker, Options};
use streamerson_redis::RedisBroker;
use streamerson_testkit::conformance::{self, Trial, restart};
use streamerson_testkit::conformance_suite;
use streamerson_testkit::redis::RedisServer;
use tempfile::TempDir;
use tokio::task::JoinSet;

async fn memory() -> (Arc<dyn Broker>, ()) {
    (Arc::new(MemoryBroker::new()), ())
}

async fn embedded_in_memory() -> (Arc<dyn Broker>, ()) {
    (Arc::new(EmbeddedBroker::in_memory()), ())
}

async fn embedded(durability: Durability) -> (Arc<dyn Broker>, TempDir) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    (Arc::new(open(folder.path(), durability)), folder)
}

fn open(folder: &Path, durability: Durability) -> EmbeddedBroker {
    let options = Options {
        durability,
        ..Options::default()
    };
    let broker = EmbeddedBroker::open(folder, options).expect("a data directory of its own");
    assert_eq!(broker.capabilities().durability, durability);
    broker
}

fn namespace() -> Name {
    Name::new("conformance").expect("a valid name")
}

async fn connect(url: &str) -> Arc<dyn Broker> {
    let broker = RedisBroker::connect(url, namespace()).await;
    Arc::new(broker.expect("a server that answers"))
}

async fn redis() -> (Arc<dyn Broker>, RedisServer) {
    let server = RedisServer::start().await;
    (connect(&server.url()).await, server)
}

/// The Redis crate, against the Redis-protocol port of the embedded broker.
async fn port() -> (Arc<dyn Broker>, (TempDir, JoinSet<()>)) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let broker = open(folder.path(), Durability::Os);
    let port = Port::bind(loopback, broker, namespace()).expect("a free port");
    let url = format!("redis://{}", port.local_addr());
    let mut serving = JoinSet::new();
    serving.spawn(port.serve(std::future::pending()));
    (connect(&url).await, (folder, serving))
}

conformance_suite!(on_memory, super::memory());
conformance_suite!(on_embedded_memory, super::embedded_in_memory());
conformance_suite!(on_embedded_os, super::embedded(super::Durability::Os));
conformance_suite!(on_embedded_disk, super::embedded(super::Durability::Disk));
conformance_suite!(on_redis, super::redis());
conformance_suite!(on_embedded_port, super::port());

/// Rules do not disturb each other, and neither do callers of one broker.
async fn all_at_once(broker: Arc<dyn Broker>) {
    let broken = conformance::all_at_once(Trial::new(broker)).await;
    assert_eq!(broken, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_all_rules_at_once() {
    let (broker, ()) = memory().await;
    all_at_once(broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_keeps_all_rules_at_once() {
    let (broker, _folder) = embedded(Durability::Disk).await;
    all_at_once(broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_all_rules_at_once() {
    let (broker, _server) = redis().await;
    all_at_once(broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_port_keeps_all_rules_at_once() {
    let (broker, _keep) = port().await;
    all_at_once(broker).await;
}

#[tokio::test]
async fn embedded_keeps_what_it_stored_over_a_restart() {
    for durability in [Durability::Os, Durability::Disk] {
        let (broker, folder) = embedded(durability).await;
        let (kept, member) = restart::before(&Trial::new(broker)).await;
        drop(member);
        let reopened = Arc::new(open(folder.path(), durability));
        restart::after(&Trial::new(reopened), kept).await;
    }
}

#[tokio::test]
async fn redis_keeps_what_it_stored_over_a_crash() {
    let mut server = RedisServer::builder().appendonly("always").start().await;
    let broker = connect(&server.url()).await;
    let (kept, member) = restart::before(&Trial::new(broker)).await;
    server.kill().await;
    drop(member);
    server.start_again().await;
    let broker = connect(&server.url()).await;
    restart::after(&Trial::new(broker), kept).await;
}
