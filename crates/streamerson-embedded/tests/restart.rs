//! What is there after a restart: messages, groups, what was not settled, and when retries are due.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::time::{Duration, Instant};

use store::{
    append, crashed, done, join, name, open, payloads, seen, segments, settle, take, text, topic,
    within,
};
use streamerson_core::retention::Retention;
use streamerson_core::{
    Append, Broker, Delivery, Durability, ErrorKind, Membership, Message, Outcome, Start,
};
use streamerson_embedded::{EmbeddedBroker, Options};

#[tokio::test]
async fn messages_and_groups_survive_an_orderly_end_and_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let positions = append(&broker, "orders", &["one", "two", "three"]).await;
    let mut member = join(&broker, "orders", "ada").await;
    let first = take(&mut member, 1).await.remove(0);
    settle(&*member, first, done()).await.unwrap();
    let copy = crashed(dir.path());
    drop((member, broker));
    for dir in [dir.path(), copy.path()] {
        let broker = open(dir).unwrap();
        assert_eq!(broker.recovery().entries, 3);
        assert_eq!(
            payloads(&broker, "orders").await.unwrap(),
            ["one", "two", "three"]
        );
        let stats = broker.stats(&topic("orders")).await.unwrap();
        assert_eq!(stats.last, Some(positions[2]));
        assert_eq!(stats.groups[0].lag, Some(2));
        let mut member = join(&broker, "orders", "bob").await;
        let rest = take(&mut member, 2).await;
        assert_eq!(seen(&rest), [("two".into(), 1), ("three".into(), 1)]);
    }
}

#[tokio::test]
async fn what_was_delivered_and_not_settled_comes_again_first_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    append(&broker, "orders", &["one", "two", "three", "four", "five"]).await;
    let mut member = join(&broker, "orders", "ada").await;
    let mut deliveries = take(&mut member, 4).await;
    settle(&*member, deliveries.remove(2), done())
        .await
        .unwrap();
    let copy = crashed(dir.path());
    let broker = open(copy.path()).unwrap();
    let mut member = join(&broker, "orders", "bob").await;
    let again = take(&mut member, 4).await;
    let expected = [("one", 2), ("two", 2), ("four", 2), ("five", 1)];
    assert_eq!(
        seen(&again),
        expected.map(|(text, attempt)| (text.to_owned(), attempt))
    );
}

#[tokio::test]
async fn a_retry_is_not_due_earlier_because_of_a_restart_and_keeps_its_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    append(&broker, "orders", &["soon", "late"]).await;
    let mut member = join(&broker, "orders", "ada").await;
    let mut deliveries = take(&mut member, 2).await;
    let (late, soon) = (deliveries.remove(1), deliveries.remove(0));
    let again = |after| Outcome::Retry { after };
    let delay = Duration::from_millis(300);
    let begun = Instant::now();
    settle(&*member, soon, again(delay)).await.unwrap();
    settle(&*member, late, again(Duration::from_secs(3600)))
        .await
        .unwrap();
    let copy = crashed(dir.path());
    let broker = open(copy.path()).unwrap();
    let mut member = join(&broker, "orders", "bob").await;
    assert_eq!(seen(&take(&mut member, 1).await), [("soon".into(), 2)]);
    assert!(begun.elapsed() >= delay);
    let stats = broker.stats(&topic("orders")).await.unwrap();
    assert_eq!(stats.groups[0].pending, 2);
}

#[tokio::test]
async fn a_settlement_and_its_outputs_are_there_together() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    append(&broker, "orders", &["one"]).await;
    let inbox = broker.inbox().await.unwrap();
    let mut member = join(&broker, "orders", "ada").await;
    let delivery = take(&mut member, 1).await.remove(0);
    let output = |to, text: &'static str| Append::new(to, Message::new("out", text));
    let outputs = vec![
        output(topic("shipping"), "next"),
        output(inbox.address.clone(), "reply"),
    ];
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
    let copy = crashed(dir.path());
    let broker = open(copy.path()).unwrap();
    assert_eq!(payloads(&broker, "shipping").await.unwrap(), ["next"]);
    assert_eq!(
        broker.stats(&topic("orders")).await.unwrap().groups[0].pending,
        0
    );
    // A caller in another process still waits at its inbox.
    let mut reader = broker.read(&inbox.address, Start::Earliest).await.unwrap();
    let reply = within(reader.next(1)).await.unwrap().remove(0);
    assert_eq!(text(&reply.message.unwrap()), "reply");
}

fn small_segments() -> Options {
    Options {
        segment_bytes: 8 << 10,
        ..store::options(Durability::Os)
    }
}

#[tokio::test]
async fn segments_are_deleted_once_nothing_in_them_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(dir.path(), small_segments()).unwrap();
    append(&broker, "pinned", &["keep me"]).await;
    let large = "x".repeat(1000);
    append(&broker, "orders", &[large.as_str(); 40]).await;
    let before = segments(dir.path()).len();
    assert!(before >= 5, "{before} segments");
    let keep_one = Retention {
        max_len: Some(1),
        force: true,
        ..Retention::default()
    };
    let trimmed = broker.trim(&topic("orders"), keep_one).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.lost), (39, 39));
    drop(broker);
    // The first, because of `pinned`, and the last; or the last two, when there was no room left to note the trim in the one before.
    let after = segments(dir.path()).len();
    assert!((2..=3).contains(&after), "{after} of {before} segments");
    let broker = EmbeddedBroker::open(dir.path(), small_segments()).unwrap();
    assert_eq!(payloads(&broker, "pinned").await.unwrap(), ["keep me"]);
    assert_eq!(payloads(&broker, "orders").await.unwrap(), [large]);
}

#[tokio::test]
async fn groups_and_pending_deliveries_outlive_the_segments_that_tell_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(dir.path(), small_segments()).unwrap();
    let large = "x".repeat(1000);
    append(&broker, "orders", &[large.as_str(); 10]).await;
    append(&broker, "orders", &["held", "waiting"]).await;
    let mut member = join(&broker, "orders", "ada").await;
    let mut deliveries = take(&mut member, 11).await;
    let held = deliveries.pop().unwrap();
    for delivery in deliveries {
        settle(&*member, delivery, done()).await.unwrap();
    }
    append(&broker, "other", &[large.as_str(); 40]).await;
    let processed = Retention {
        max_len: Some(0),
        ..Retention::default()
    };
    let trimmed = broker.trim(&topic("orders"), processed).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.lost), (10, 0));
    let copy = crashed(dir.path());
    let broker = EmbeddedBroker::open(copy.path(), small_segments()).unwrap();
    let mut member = join(&broker, "orders", "bob").await;
    let rest = take(&mut member, 2).await;
    assert_eq!(seen(&rest), [("held".into(), 2), ("waiting".into(), 1)]);
    assert_eq!(rest[0].receipt.position(), held.receipt.position());
}

#[tokio::test]
async fn positions_grow_over_restarts_and_trims() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = None;
    for _ in 0..5 {
        let broker = open(dir.path()).unwrap();
        let position = append(&broker, "orders", &["x"]).await[0];
        assert!(Some(position) > last);
        last = Some(position);
        let everything = Retention {
            max_len: Some(0),
            force: true,
            ..Retention::default()
        };
        assert_eq!(
            broker
                .trim(&topic("orders"), everything)
                .await
                .unwrap()
                .removed,
            1
        );
    }
}

#[tokio::test]
async fn bodies_that_do_not_fit_into_memory_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        cache_bytes: 16 << 10,
        segment_bytes: 64 << 10,
        ..store::options(Durability::Os)
    };
    let broker = EmbeddedBroker::open(dir.path(), options).unwrap();
    let texts: Vec<String> = (0..500).map(|n| format!("{n:0500}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    append(&broker, "orders", &texts).await;
    assert_eq!(payloads(&broker, "orders").await.unwrap(), texts);
    let mut member = join(&broker, "orders", "ada").await;
    let deliveries = take(&mut member, texts.len()).await;
    let read: Vec<String> = deliveries.iter().map(|d| text(&d.message)).collect();
    assert_eq!(read, texts);
    let positions: Vec<_> = deliveries.iter().map(|d| d.receipt.position()).collect();
    assert!(positions.is_sorted());
}

#[test]
fn a_read_from_the_log_that_is_cancelled_loses_nothing() {
    // One thread that reads, and it is kept busy: so the reads are under way when they are cancelled.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(dir.path()).unwrap();
        append(&broker, "orders", &["one", "two"]).await;
        drop(broker);
        let broker = open(dir.path()).unwrap();
        let mut member = join(&broker, "orders", "ada").await;
        let mut reader = broker
            .read(&topic("orders"), Start::Earliest)
            .await
            .unwrap();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gone.recv());
        assert!(futures::poll!(member.next(2)).is_pending());
        assert!(futures::poll!(reader.next(2)).is_pending());
        drop(go);
        assert!(within(busy).await.unwrap().is_err());
        let expected = [("one".to_owned(), 1), ("two".to_owned(), 1)];
        assert_eq!(seen(&take(&mut member, 2).await), expected);
        assert_eq!(within(reader.next(2)).await.unwrap().len(), 2);
    });
}

#[tokio::test]
async fn a_member_that_is_dropped_gives_back_what_it_holds_at_once() {
    let broker = EmbeddedBroker::in_memory();
    append(&broker, "orders", &["one"]).await;
    let mut ada = join(&broker, "orders", "ada").await;
    let mut bob = join(&broker, "orders", "bob").await;
    let held = take(&mut ada, 1).await;
    let waiting = tokio::spawn(async move { seen(&take(&mut bob, 1).await) });
    drop(ada);
    assert_eq!(within(waiting).await.unwrap(), [("one".into(), 2)]);
    drop(held);
}

#[tokio::test]
async fn of_two_holders_the_first_to_settle_wins_and_one_output_appears() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    append(&broker, "orders", &["one"]).await;
    let short = |member: &str| Membership {
        lease: Duration::from_millis(50),
        ..Membership::new(topic("orders"), name("group"), name(member))
    };
    let mut ada = broker.join(short("ada")).await.unwrap();
    let mut bob = broker.join(short("bob")).await.unwrap();
    let first = take(&mut ada, 1).await.remove(0);
    let second = take(&mut bob, 1).await.remove(0);
    assert_eq!(second.receipt.attempt(), 2);
    let output = |delivery: Delivery| {
        let message = delivery.message.forward("out", "x");
        let outputs = vec![Append::new(topic("out"), message)];
        (
            delivery,
            Outcome::Complete {
                outputs,
                once: None,
            },
        )
    };
    let (second, outcome) = output(second);
    settle(&*bob, second, outcome).await.unwrap();
    let (first, outcome) = output(first);
    let error = settle(&*ada, first, outcome).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(payloads(&broker, "out").await.unwrap().len(), 1);
}
