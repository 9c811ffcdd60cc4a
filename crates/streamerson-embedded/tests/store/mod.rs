//! A data directory to be broken, and a few words for what tests do with a broker.

#![allow(dead_code, reason = "every test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use streamerson_core::{
    Append, Broker, Delivery, Durability, Member, Membership, Message, Name, Outcome, Position,
    Result, Settlement, Start, Topic,
};
use streamerson_embedded::{EmbeddedBroker, Options};
use tempfile::TempDir;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name.to_owned()).unwrap()
}

pub(crate) fn name(name: &str) -> Name {
    Name::new(name.to_owned()).unwrap()
}

pub(crate) fn options(durability: Durability) -> Options {
    Options {
        durability,
        ..Options::default()
    }
}

pub(crate) fn open(dir: &Path) -> Result<EmbeddedBroker> {
    EmbeddedBroker::open(dir, options(Durability::Os))
}

/// Appends one message after the other, each as a commit of its own.
pub(crate) async fn append(broker: &EmbeddedBroker, to: &str, payloads: &[&str]) -> Vec<Position> {
    let mut positions = Vec::new();
    for payload in payloads {
        let message = Message::new("test", payload.to_string());
        let batch = vec![Append::new(topic(to), message)];
        positions.push(within(broker.append(batch)).await.remove(0).unwrap());
    }
    positions
}

/// What a topic holds.
pub(crate) async fn payloads(broker: &EmbeddedBroker, of: &str) -> Result<Vec<String>> {
    let Ok(stats) = broker.stats(&topic(of)).await else {
        return Ok(Vec::new());
    };
    let mut reader = broker.read(&topic(of), Start::Earliest).await?;
    let mut payloads = Vec::new();
    while payloads.len() < stats.length as usize {
        for entry in within(reader.next(100)).await? {
            payloads.push(text(&entry.message.unwrap()));
        }
    }
    Ok(payloads)
}

pub(crate) fn text(message: &Message) -> String {
    String::from_utf8(message.data.to_vec()).unwrap()
}

pub(crate) async fn join(broker: &EmbeddedBroker, to: &str, member: &str) -> Box<dyn Member> {
    let membership = Membership::new(topic(to), name("group"), name(member));
    broker.join(membership).await.unwrap()
}

/// The next so many deliveries.
pub(crate) async fn take(member: &mut Box<dyn Member>, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        deliveries.extend(within(member.next(count - deliveries.len())).await.unwrap());
    }
    deliveries
}

pub(crate) fn seen(deliveries: &[Delivery]) -> Vec<(String, u32)> {
    let seen = deliveries
        .iter()
        .map(|delivery| (text(&delivery.message), delivery.receipt.attempt()));
    seen.collect()
}

pub(crate) async fn settle(
    member: &dyn Member,
    delivery: Delivery,
    outcome: Outcome,
) -> Result<()> {
    let settlement = Settlement {
        receipt: delivery.receipt,
        outcome,
    };
    within(member.settler().settle(vec![settlement]))
        .await
        .remove(0)
}

pub(crate) fn done() -> Outcome {
    Outcome::Complete {
        outputs: Vec::new(),
        once: None,
    }
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}

/// The segments in `dir`, oldest first.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .collect();
    segments.sort();
    segments
}

/// The directory as a crash would leave it now: what was written, without the orderly end.
pub(crate) fn crashed(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        match fs::copy(file.path(), copy.path().join(file.file_name())) {
            // The broker still runs, and deletes what it does not need.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
    copy
}

/// Bytes up to the last that is not zero.
pub(crate) fn written(file: &Path) -> usize {
    let bytes = fs::read(file).unwrap();
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}
