//! The log format, as older versions wrote it: every version there was is kept as a fixture, and still read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use store::{append, crashed, done, join, payloads, seen, segments, settle, take, topic};
use streamerson_core::retention::Retention;
use streamerson_core::{Append, Broker, Durability, Message, Outcome};
use streamerson_embedded::{EmbeddedBroker, Options};

fn fixture(version: u32) -> PathBuf {
    let name = format!("tests/fixtures/format-{version}.segment");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn small() -> Options {
    Options {
        segment_bytes: 4 << 10,
        ..store::options(Durability::Os)
    }
}

#[tokio::test]
async fn format_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let segment = dir.path().join("00000000000000000001.log");
    fs::copy(fixture(1), segment).unwrap();
    let broker = EmbeddedBroker::open(dir.path(), small()).unwrap();
    assert_eq!(broker.recovery().truncated_bytes, 0);
    assert_eq!(
        broker.topics().await.unwrap(),
        [topic("orders"), topic("out")]
    );
    assert_eq!(payloads(&broker, "out").await.unwrap(), ["output"]);
    assert_eq!(
        payloads(&broker, "orders").await.unwrap(),
        ["two", "three", "four", "five"]
    );
    let stats = broker.stats(&topic("orders")).await.unwrap();
    assert_eq!((stats.groups[0].pending, stats.groups[0].lag), (2, Some(1)));
    let mut member = join(&broker, "orders", "bob").await;
    let expected = [("two", 2), ("three", 2), ("five", 1)];
    let expected = expected.map(|(text, attempt)| (text.to_owned(), attempt));
    assert_eq!(seen(&take(&mut member, 3).await), expected);
}

/// Not a test: how the fixture was made. For a new format version, raise the number; never write an old one again.
#[tokio::test]
#[ignore = "writes the fixture of the present format"]
async fn write_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(dir.path(), small()).unwrap();
    append(&broker, "orders", &["one", "two", "three", "four", "five"]).await;
    let mut member = join(&broker, "orders", "ada").await;
    let mut deliveries = take(&mut member, 4).await;
    let output = Append::new(topic("out"), Message::new("test", "output"));
    let outputs = vec![output];
    settle(
        &*member,
        deliveries.remove(0),
        Outcome::Complete {
            outputs,
            once: None,
        },
    )
    .await
    .unwrap();
    settle(&*member, deliveries.remove(2), done())
        .await
        .unwrap();
    let after = Duration::ZERO;
    settle(&*member, deliveries.remove(0), Outcome::Retry { after })
        .await
        .unwrap();
    let processed = Retention {
        max_len: Some(0),
        ..Retention::default()
    };
    broker.trim(&topic("orders"), processed).await.unwrap();
    let copy = crashed(dir.path());
    fs::copy(&segments(copy.path())[0], fixture(1)).unwrap();
}
