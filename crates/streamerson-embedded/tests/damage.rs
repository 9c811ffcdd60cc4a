//! Damaged data directories: an interrupted write is dropped and reported; damage is never served, and nothing is deleted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::fs;
use std::path::Path;
use std::time::Duration;

use store::{append, crashed, name, payloads, segments, text, topic, within, written};
use streamerson_core::lease::Leases;
use streamerson_core::time::unix_ms;
use streamerson_core::upkeep::Upkeep;
use streamerson_core::{
    Append, Broker, Durability, ErrorKind, Message, Once, Result, Settlement, Start,
};
use streamerson_embedded::{EmbeddedBroker, Options};
use tempfile::TempDir;

/// With small files, because they are copied and read so often.
fn open(dir: &Path) -> Result<EmbeddedBroker> {
    let options = Options {
        segment_bytes: 4 << 10,
        ..store::options(Durability::Os)
    };
    EmbeddedBroker::open(dir, options)
}

/// A directory with three messages, as a crash leaves it, and where the last record begins and ends.
async fn three_messages() -> (TempDir, usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    append(&broker, "orders", &["one", "two"]).await;
    let begin = written(&segments(dir.path())[0]);
    append(&broker, "orders", &["three"]).await;
    let end = written(&segments(dir.path())[0]);
    (crashed(dir.path()), begin, end)
}

fn replace(dir: &Path, bytes: &[u8]) {
    fs::write(&segments(dir)[0], bytes).unwrap();
}

#[tokio::test]
async fn a_write_interrupted_at_any_byte_is_dropped_and_reported() {
    let (dir, begin, end) = three_messages().await;
    let whole = fs::read(&segments(dir.path())[0]).unwrap();
    for cut in begin..end {
        let mut zeros_follow = whole.clone();
        zeros_follow[cut..].fill(0);
        let file_ends = &whole[..cut];
        for torn in [&zeros_follow[..], file_ends] {
            let dir = crashed(dir.path());
            replace(dir.path(), torn);
            let broker = open(dir.path()).unwrap();
            let torn_bytes = torn.iter().rposition(|b| *b != 0).unwrap() + 1 - begin;
            assert_eq!(
                broker.recovery().truncated_bytes,
                torn_bytes as u64,
                "cut at {cut}"
            );
            assert_eq!(payloads(&broker, "orders").await.unwrap(), ["one", "two"]);
            append(&broker, "orders", &["four"]).await;
            drop(broker);
            let broker = open(dir.path()).unwrap();
            assert_eq!(broker.recovery().truncated_bytes, 0);
            assert_eq!(
                payloads(&broker, "orders").await.unwrap(),
                ["one", "two", "four"]
            );
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_before_the_last_record_is_corrupt_and_named() {
    let (dir, begin, _) = three_messages().await;
    let whole = fs::read(&segments(dir.path())[0]).unwrap();
    for at in 0..begin {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        replace(dir.path(), &damaged);
        match open(dir.path()) {
            Ok(broker) => {
                // The rest of the head is not used.
                assert!((36..64).contains(&at), "byte {at} was not noticed");
                assert_eq!(payloads(&broker, "orders").await.unwrap().len(), 3);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
                assert!(
                    error.detail().contains("00000000000000000001.log"),
                    "{error}"
                );
                assert!(error.detail().contains("at byte"), "{error}");
                let kept = fs::read(&segments(dir.path())[0]).unwrap();
                assert_eq!(kept, damaged, "a damaged file must not be touched");
            }
        }
    }
}

/// A directory with every kind of record that is not an entry's, as a crash leaves it, and where the last one begins.
async fn all_kinds() -> (TempDir, usize) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 8 << 10,
        ..store::options(Durability::Os)
    };
    let broker = EmbeddedBroker::open(dir.path(), options).unwrap();
    let orders = topic("orders");
    let positions = append(&broker, "orders", &["one", "two"]).await;
    let hour = Duration::from_secs(3600);
    let once = Append::new(orders.clone(), Message::new("test", "once"));
    let later = Append::new(orders.clone(), Message::new("test", "later"));
    let terms = vec![
        once.once(Once::new("k", hour)),
        later.due_at(unix_ms() + 3_600_000),
    ];
    for stored in broker.append(terms).await {
        stored.unwrap();
    }
    broker.divide(&orders, 8).await.unwrap();
    let (seat, ada) = (name("seat"), name("ada"));
    broker.acquire(&orders, &seat, &ada, hour).await.unwrap();
    let member = store::join(&broker, "orders", "ada").await;
    drop(member);
    for member in ["bob", "cyd"] {
        let mut member = store::join(&broker, "orders", member).await;
        store::take(&mut member, 1).await;
    }
    let mut member = store::join(&broker, "orders", "dan").await;
    let delivery = store::take(&mut member, 1).await.remove(0);
    let effect = Settlement::complete(delivery.receipt).once(Once::new("e", hour));
    let settled = member.settler().settle(vec![effect]).await.remove(0);
    settled.unwrap();
    let moved = vec![Append::new(topic("out"), Message::new("test", "moved"))];
    assert!(broker.take(&orders, positions[1], moved).await.unwrap());
    let begin = written(&segments(dir.path())[0]);
    append(&broker, "orders", &["last"]).await;
    (crashed(dir.path()), begin)
}

#[tokio::test]
async fn a_flipped_bit_in_any_kind_of_record_is_noticed() {
    let (dir, begin) = all_kinds().await;
    let whole = fs::read(&segments(dir.path())[0]).unwrap();
    for at in 64..begin {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        replace(dir.path(), &damaged);
        let error = open(dir.path()).expect_err("damage must be noticed");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
    }
    replace(dir.path(), &whole);
    let broker = open(dir.path()).unwrap();
    assert_eq!(payloads(&broker, "out").await.unwrap(), ["moved"]);
}

#[tokio::test]
async fn damage_to_what_was_noted_of_deliveries_loses_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    append(&broker, "orders", &["one", "two"]).await;
    let mut member = store::join(&broker, "orders", "ada").await;
    store::take(&mut member, 1).await;
    let whole = fs::read(dir.path().join("delivered")).unwrap();
    for at in 0..whole.len() {
        let copy = crashed(dir.path());
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(copy.path().join("delivered"), damaged).unwrap();
        let broker = open(copy.path()).unwrap();
        let mut member = store::join(&broker, "orders", "bob").await;
        let seen = store::seen(&store::take(&mut member, 2).await);
        assert_eq!((seen[0].0.as_str(), seen[1].0.as_str()), ("one", "two"));
        assert!((1..=2).contains(&seen[0].1) && seen[1].1 == 1);
    }
}

#[tokio::test]
async fn after_an_orderly_end_no_record_is_taken_for_an_interrupted_write() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    append(&broker, "orders", &["one", "two"]).await;
    let begin = written(&segments(dir.path())[0]);
    append(&broker, "orders", &["three"]).await;
    let end = written(&segments(dir.path())[0]);
    drop(broker);
    let whole = fs::read(&segments(dir.path())[0]).unwrap();
    for at in begin..end {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        replace(dir.path(), &damaged);
        let error = open(dir.path()).expect_err("damage must be noticed");
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Corrupt, "log-damaged")
        );
        assert!(
            error.detail().contains(&format!("at byte {begin}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_record_that_rots_while_it_is_not_in_memory_is_an_error_and_never_wrong_data() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    append(&broker, "other", &["x"]).await;
    let begin = written(&segments(dir.path())[0]);
    append(&broker, "orders", &["one"]).await;
    let end = written(&segments(dir.path())[0]);
    drop(broker);
    // After a restart, bodies are read from the log.
    let broker = open(dir.path()).unwrap();
    let file = &segments(dir.path())[0];
    let whole = fs::read(file).unwrap();
    for at in begin..end {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        write_in_place(file, &damaged);
        let error = payloads(&broker, "orders").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Corrupt, "log-damaged")
        );
    }
    write_in_place(file, &whole);
    assert_eq!(payloads(&broker, "orders").await.unwrap(), ["one"]);
}

#[tokio::test]
async fn a_scheduled_message_that_rots_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let due = unix_ms() + 1_000;
    let later = |to: &str, payload: &'static str, due| {
        let message = Message::new("test", payload);
        vec![Append::new(topic(to), message).due_at(due)]
    };
    let schedule = |batch| within(broker.append(batch));
    schedule(later("orders", "rotten", due))
        .await
        .remove(0)
        .unwrap();
    let file = segments(dir.path()).remove(0);
    let rotten = written(&file) - 1;
    for (to, payload, due) in [("orders", "next", due + 1), ("other", "last", due + 200)] {
        schedule(later(to, payload, due)).await.remove(0).unwrap();
    }
    let mut bytes = fs::read(&file).unwrap();
    bytes[rotten] ^= 1;
    write_in_place(&file, &bytes);
    for (to, payload) in [("orders", "next"), ("other", "last")] {
        let mut reader = broker.read(&topic(to), Start::Earliest).await.unwrap();
        let entry = within(reader.next(1)).await.unwrap().remove(0);
        assert_eq!(text(&entry.message.unwrap()), payload);
    }
    // It is kept, also by what is written of it now.
    assert_eq!(broker.stats(&topic("orders")).await.unwrap().scheduled, 1);
    let large = "x".repeat(1000);
    append(&broker, "filler", &[large.as_str(); 20]).await;
    drop(broker);
    bytes[rotten] ^= 1;
    write_in_place(&file, &bytes[..=rotten]);
    let broker = open(dir.path()).unwrap();
    let mut reader = broker
        .read(&topic("orders"), Start::Earliest)
        .await
        .unwrap();
    let mut appeared = Vec::new();
    while appeared.len() < 2 {
        let entries = within(reader.next(2)).await.unwrap().into_iter();
        appeared.extend(entries.map(|entry| text(&entry.message.unwrap())));
    }
    assert_eq!(appeared, ["next", "rotten"]);
}

fn write_in_place(file: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

#[tokio::test]
async fn a_missing_segment_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let large = "x".repeat(1000);
    append(&broker, "orders", &[large.as_str(); 20]).await;
    drop(broker);
    let all = segments(dir.path());
    assert!(all.len() >= 3);
    for missing in &all {
        let aside = dir.path().join("aside");
        fs::rename(missing, &aside).unwrap();
        let error = open(dir.path()).expect_err("a segment is missing");
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Corrupt, "log-segment-missing")
        );
        assert!(
            error
                .detail()
                .contains(missing.file_name().unwrap().to_str().unwrap())
        );
        fs::rename(&aside, missing).unwrap();
    }
    assert_eq!(
        payloads(&open(dir.path()).unwrap(), "orders")
            .await
            .unwrap()
            .len(),
        20
    );
}

#[tokio::test]
async fn a_closed_segment_that_was_cut_short_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let large = "x".repeat(1000);
    append(&broker, "orders", &[large.as_str(); 20]).await;
    drop(broker);
    let first = &segments(dir.path())[0];
    let whole = fs::read(first).unwrap();
    for cut in [64, 200, 1500, written(first) - 1] {
        fs::write(first, &whole[..cut]).unwrap();
        let error = open(dir.path()).expect_err("the segment is cut short");
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Corrupt, "log-damaged"),
            "{cut}"
        );
    }
}
