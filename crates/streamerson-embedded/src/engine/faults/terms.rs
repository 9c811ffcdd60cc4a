//! What the disk may do to what is scheduled, happens once, is taken out, or delivered.

use std::time::Duration;

use streamerson_core::Once;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn message(to: &str, data: &str) -> Append {
    Append::new(topic(to), Message::new("test", data.to_owned()))
}

async fn send(engine: &Engine, append: Append) -> Result<Position> {
    engine.append_messages(vec![append]).await.remove(0)
}

fn scheduled(engine: &Engine, of: &str) -> u64 {
    let view = engine.with_topic(&topic(of), |view| view.scheduled);
    view.unwrap_or(0)
}

#[tokio::test]
async fn what_could_not_be_stored_is_not_remembered_scheduled_or_taken() {
    for durability in [Durability::Os, Durability::Disk] {
        let store = Store::new(durability);
        let engine = store.open();
        let position = append(&engine, "orders", "first").await.unwrap();
        let spare = append(&engine, "orders", "second").await.unwrap();
        take_all(&engine).await;
        let once = || message("mail", "once").once(Once::new("k", HOUR));
        let later = || message("mail", "later").due_at(unix_ms() + 3_600_000);
        let effect = || Settlement {
            receipt: Receipt::new(position, 1),
            outcome: Outcome::Complete {
                outputs: vec![message("out", "effect")],
                once: Some(Box::new(Once::new("e", HOUR))),
            },
        };
        let moved = || vec![message("out", "moved")];

        store.files.write.store(EIO, SeqCst);
        send(&engine, once()).await.unwrap_err();
        send(&engine, later()).await.unwrap_err();
        let settled = engine.settle(&key(), &ada(), vec![effect()]).await;
        assert_eq!(settled[0].as_ref().unwrap_err().code(), "storage-failed");
        let taken = engine.take_out(&topic("orders"), spare, moved()).await;
        taken.unwrap_err();
        engine.divide(&topic("mail"), 4).await.unwrap_err();
        let seat = Name::new("seat").unwrap();
        let acquired = engine.acquire(&topic("mail"), &seat, &ada(), 1000).await;
        acquired.unwrap_err();
        store.files.write.store(0, SeqCst);

        assert_eq!(scheduled(&engine, "mail"), 0);
        assert_eq!(engine.leases(&topic("mail")), []);
        let first = send(&engine, once()).await.unwrap();
        assert_eq!(send(&engine, once()).await.unwrap(), first);
        assert_eq!(send(&engine, later()).await.unwrap(), Position::ZERO);
        let settled = engine.settle(&key(), &ada(), vec![effect()]).await;
        settled.into_iter().for_each(|settled| settled.unwrap());
        let taken = engine.take_out(&topic("orders"), spare, moved()).await;
        assert!(taken.unwrap());
        assert_eq!(held(&engine, "mail").await, ["once"]);
        assert_eq!(held(&engine, "out").await, ["effect", "moved"]);
        assert_eq!(held(&engine, "orders").await, ["first"]);
        assert_eq!(scheduled(&engine, "mail"), 1);
        assert_eq!(engine.divide(&topic("mail"), 4).await.unwrap(), 4);
    }
}

#[tokio::test]
async fn deliveries_go_on_when_they_cannot_be_noted() {
    let store = Store::new(Durability::Os);
    let engine = store.open();
    append(&engine, "orders", "one").await.unwrap();
    engine.create_group(&key(), Start::Earliest).await.unwrap();
    store.files.write.store(ENOSPC, SeqCst);
    let first = engine.take(&key(), &ada(), Want::New, 10).await.unwrap();
    assert_eq!(first[0].grant.attempt, 1);
    let silent = Want::Abandoned { lease: 0 };
    let again = engine.take(&key(), &ada(), silent, 10).await.unwrap();
    assert_eq!(again[0].grant.attempt, 2);
}

#[tokio::test]
async fn what_is_due_while_the_disk_refuses_appears_once_it_does_not() {
    let store = Store::new(Durability::Os);
    let engine = store.open();
    append(&engine, "orders", "now").await.unwrap();
    let due = unix_ms() + 50;
    send(&engine, message("orders", "later").due_at(due))
        .await
        .unwrap();
    store.files.write.store(EIO, SeqCst);
    while unix_ms() < due + 100 {
        append(&engine, "orders", "refused").await.unwrap_err();
    }
    assert_eq!(scheduled(&engine, "orders"), 1);
    let changed = engine.changed(&topic("orders")).notified_owned();
    tokio::pin!(changed);
    changed.as_mut().enable();
    store.files.write.store(0, SeqCst);
    tokio::time::timeout(Duration::from_secs(20), changed)
        .await
        .expect("it appears");
    assert_eq!(held(&engine, "orders").await, ["now", "later"]);
    assert_eq!(scheduled(&engine, "orders"), 0);
}

#[tokio::test]
async fn a_batch_that_grows_while_it_is_decided_is_stored_as_it_was_sent() {
    let store = Store::new(Durability::Disk);
    let engine = store.open();
    for data in ["one", "two", "three"] {
        append(&engine, "orders", data).await.unwrap();
    }
    let answered = |position: &Position, bytes: usize| {
        let answer = Message::new("test", vec![b'a'; bytes]);
        let outputs = vec![Append::new(Topic::inbox("one").unwrap(), answer)];
        let settlement = Settlement::complete_with(Receipt::new(*position, 1), outputs);
        settlement.once(Once::new("key", HOUR))
    };
    let positions = take_all(&engine).await;
    let first = vec![answered(&positions[0], 100_000)];
    let settled = engine.settle(&key(), &ada(), first).await;
    settled.into_iter().for_each(|settled| settled.unwrap());

    let held_up = store.files.hold.lock();
    let syncs = store.files.syncs.load(SeqCst);
    let mut before = std::pin::pin!(append(&engine, "other", "before"));
    assert!(before.as_mut().now_or_never().is_none());
    while store.files.syncs.load(SeqCst) == syncs {
        std::thread::yield_now();
    }
    // Both in the next batch.
    let repeated: Vec<_> = positions[1..].iter().map(|at| answered(at, 1)).collect();
    let (key, ada) = (key(), ada());
    let mut settled = std::pin::pin!(engine.settle(&key, &ada, repeated));
    assert!(settled.as_mut().now_or_never().is_none());
    let insisted = Position::new(u64::MAX / 2, 7);
    let entry = NewEntry {
        topic: topic("other"),
        body: Body::Message(Message::new("test", "insisted")),
        position: Some(insisted),
    };
    let mut between = std::pin::pin!(append(&engine, "other", "between"));
    assert!(between.as_mut().now_or_never().is_none());
    let stored = engine.append(vec![entry]);
    drop(held_up);
    before.await.unwrap();
    between.await.unwrap();
    settled
        .await
        .into_iter()
        .for_each(|settled| settled.unwrap());
    assert_eq!(stored.await.remove(0).unwrap(), insisted);
    assert_eq!(
        held(&engine, "other").await,
        ["before", "between", "insisted"]
    );
    let pending = engine.with_group(&key, |group, _| group.pending());
    assert_eq!(pending.unwrap(), 0);
}
