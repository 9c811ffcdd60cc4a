//! Many callers at once: each is answered, whoever commits for it, and nobody waits for ever.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::collections::BTreeSet;

use store::{join, options, payloads, settle, take, text, topic, within};
use streamerson_core::{Append, Broker, Durability, Message, Outcome};
use streamerson_embedded::{EmbeddedBroker, Options};

const CALLERS: usize = 8;
const EACH: usize = 100;

async fn everyone_is_answered(durability: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        // So small that callers and the committer's thread take turns all the time.
        segment_bytes: 96 << 10,
        ..options(durability)
    };
    let broker = EmbeddedBroker::open(dir.path(), options.clone()).unwrap();
    let callers = (0..CALLERS).map(|caller| {
        let broker = broker.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                let message = Message::new("test", format!("{caller}-{n}"));
                let batch = vec![Append::new(topic("orders"), message)];
                within(broker.append(batch)).await.remove(0).unwrap();
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut member = join(&broker, "orders", "ada").await;
    for _ in 0..CALLERS * EACH {
        let delivery = take(&mut member, 1).await.remove(0);
        let output = Message::new("test", text(&delivery.message));
        let outputs = vec![Append::new(topic("out"), output)];
        settle(
            &*member,
            delivery,
            Outcome::Complete {
                outputs,
                once: None,
            },
        )
        .await
        .unwrap();
    }
    for caller in callers {
        caller.await.unwrap();
    }
    drop((member, broker));
    let broker = EmbeddedBroker::open(dir.path(), options).unwrap();
    let out = payloads(&broker, "out").await.unwrap();
    let distinct: BTreeSet<&String> = out.iter().collect();
    assert_eq!(
        (out.len(), distinct.len()),
        (CALLERS * EACH, CALLERS * EACH)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn class_os_answers_everyone() {
    everyone_is_answered(Durability::Os).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn class_disk_answers_everyone() {
    everyone_is_answered(Durability::Disk).await;
}

#[tokio::test]
async fn what_was_stored_no_longer_counts_as_waiting() {
    let broker = EmbeddedBroker::in_memory();
    let large = |mib: usize| Append::new(topic("orders"), Message::new("test", vec![0; mib << 20]));
    for stored in within(broker.append(vec![large(31), large(31)])).await {
        stored.unwrap();
    }
    within(broker.append(vec![large(3)]))
        .await
        .remove(0)
        .unwrap();
}
