//! The log format, as older versions wrote it: every version there was is kept as a fixture, and still read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use store::{
    append, crashed, done, join, name, payloads, seen, segments, settle, take, topic, within,
};
use streamerson_core::lease::Leases;
use streamerson_core::retention::Retention;
use streamerson_core::time::unix_ms;
use streamerson_core::upkeep::Upkeep;
use streamerson_core::{
    Append, Broker, Durability, Message, Once, Outcome, Position, Settlement, Start,
};
use streamerson_embedded::{EmbeddedBroker, Options};

/// So that what is remembered and scheduled in a fixture stays so.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
const YEAR_2200: u64 = 7_258_118_400_000;

fn fixture(version: &str) -> PathBuf {
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
    fs::copy(fixture("1"), segment).unwrap();
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

#[tokio::test]
async fn what_was_added_to_format_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=2 {
        let segment = dir.path().join(format!("{n:020}.log"));
        fs::copy(fixture(&format!("1-terms-{n}")), segment).unwrap();
    }
    let broker = EmbeddedBroker::open(dir.path(), small()).unwrap();
    assert_eq!(broker.recovery().truncated_bytes, 0);
    let orders = topic("orders");
    let held = payloads(&broker, "orders").await.unwrap();
    assert_eq!(held[..5], ["one", "three", "once", "charge", "due"]);
    assert_eq!(payloads(&broker, "out").await.unwrap(), ["moved", "effect"]);
    assert_eq!(broker.stats(&orders).await.unwrap().scheduled, 1);
    assert_eq!(broker.partitions(&orders).await.unwrap(), 8);
    let once = Append::new(orders.clone(), Message::new("test", "once"));
    let once = once.once(Once::new("k", CENTURY));
    let first = broker.append(vec![once]).await.remove(0).unwrap();
    let entries = broker.range(&orders, Position::ZERO, 10).await.unwrap();
    assert_eq!(entries[2].position, first);
    let (seat, bob) = (name("seat"), name("bob"));
    let lease = broker.acquire(&orders, &seat, &bob, CENTURY).await;
    assert_eq!(lease.unwrap().epoch, 3);
    let mut member = join(&broker, "orders", "bob").await;
    // Lost twice, they come one at a time.
    for text in ["one", "three", "once"] {
        let mut deliveries = take(&mut member, 1).await;
        assert_eq!(seen(&deliveries), [(text.to_owned(), 3)]);
        let outputs = vec![Append::new(topic("out"), Message::new("test", "again"))];
        let again = Settlement::complete_with(deliveries.remove(0).receipt, outputs);
        let again = match text {
            "one" => again.once(Once::new("e", CENTURY)),
            _ => Settlement::complete(again.receipt),
        };
        let settled = member.settler().settle(vec![again]).await.remove(0);
        settled.unwrap();
    }
    assert_eq!(payloads(&broker, "out").await.unwrap(), ["moved", "effect"]);
}

/// Not a test: how the fixture of what was added to format 1 was made.
#[tokio::test]
#[ignore = "writes the fixture of the present format"]
async fn write_fixture_of_terms() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(dir.path(), small()).unwrap();
    let orders = topic("orders");
    let message = |data: &str| Append::new(orders.clone(), Message::new("test", data.to_owned()));
    let positions = append(&broker, "orders", &["one", "two", "three"]).await;
    let moved = vec![Append::new(topic("out"), Message::new("test", "moved"))];
    assert!(broker.take(&orders, positions[1], moved).await.unwrap());
    let terms = [
        message("once").once(Once::new("k", CENTURY)),
        message("charge"),
        message("far").due_at(YEAR_2200),
        message("due").due_at(unix_ms() + 200),
    ];
    for append in terms {
        broker.append(vec![append]).await.remove(0).unwrap();
    }
    let mut reader = broker
        .read(&orders, Start::After(positions[2]))
        .await
        .unwrap();
    let mut appeared = 0;
    while appeared < 3 {
        appeared += within(reader.next(10)).await.unwrap().len();
    }
    broker.divide(&orders, 8).await.unwrap();
    for holder in ["ada", "cyd"] {
        let seat = name("seat");
        broker
            .acquire(&orders, &seat, &name(holder), CENTURY)
            .await
            .unwrap();
        assert!(broker.release(&orders, &seat, &name(holder)).await.unwrap());
    }
    let mut member = join(&broker, "orders", "ada").await;
    let charge = take(&mut member, 4).await.remove(3);
    let outputs = vec![Append::new(topic("out"), Message::new("test", "effect"))];
    let charge = Settlement::complete_with(charge.receipt, outputs);
    let charge = charge.once(Once::new("e", CENTURY));
    let settled = member.settler().settle(vec![charge]).await.remove(0);
    settled.unwrap();
    drop(member);
    let mut member = join(&broker, "orders", "eve").await;
    take(&mut member, 3).await;
    while segments(dir.path()).len() < 2 {
        append(&broker, "orders", &[&"x".repeat(500)]).await;
    }
    let copy = crashed(dir.path());
    for (n, segment) in segments(copy.path()).iter().enumerate() {
        fs::copy(segment, fixture(&format!("1-terms-{}", n + 1))).unwrap();
    }
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
    fs::copy(&segments(copy.path())[0], fixture("1")).unwrap();
}
