//! What happens when file descriptors run out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use store::topic;
use streamerson_core::{Append, Broker, Durability, ErrorKind, Message, Position, Result};
use streamerson_embedded::{EmbeddedBroker, Options};

/// Runs the ignored test `name` in a process of its own, because the limit is the process's.
fn alone(name: &str) {
    let mut test = Command::new(std::env::current_exe().unwrap());
    let test = test.args(["--ignored", "--exact", name, "--nocapture"]);
    let output = test.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}

fn limit_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(128);
    setrlimit(Resource::Nofile, limit).unwrap();
}

fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        ..store::options(Durability::Disk)
    }
}

async fn send(broker: &EmbeddedBroker, bytes: usize) -> Result<Position> {
    let message = Message::new("test", vec![b'x'; bytes]);
    let batch = vec![Append::new(topic("orders"), message)];
    broker.append(batch).await.remove(0)
}

#[test]
fn a_segment_begins_without_a_descriptor_and_the_next_once_there_are_some() {
    alone("in_a_moment_without_descriptors");
}

#[ignore = "in a process of its own"]
#[tokio::test]
async fn in_a_moment_without_descriptors() {
    limit_descriptors();
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(dir.path(), options()).unwrap();
    // More than half of a segment: the next one is made ready. Once its file is there, it is open.
    send(&broker, 10 << 10).await.unwrap();
    let begun = Instant::now();
    while !dir.path().join("next").exists() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    send(&broker, 10 << 10).await.unwrap();
    let error = send(&broker, 10 << 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");

    drop(hoard);
    let begun = Instant::now();
    while let Err(error) = send(&broker, 10 << 10).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
        tokio::task::yield_now().await;
    }
}

#[test]
fn there_may_be_more_segments_than_descriptors() {
    alone("with_more_segments_than_descriptors");
}

#[ignore = "in a process of its own"]
#[tokio::test]
async fn with_more_segments_than_descriptors() {
    limit_descriptors();
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(dir.path(), options()).unwrap();
    for _ in 0..200 {
        send(&broker, 12 << 10).await.unwrap();
    }
    assert!(store::segments(dir.path()).len() >= 200);
    drop(broker);
    // Now no body is in memory.
    let broker = EmbeddedBroker::open(dir.path(), options()).unwrap();
    let held = store::payloads(&broker, "orders").await.unwrap();
    assert_eq!(held.len(), 200);
}
