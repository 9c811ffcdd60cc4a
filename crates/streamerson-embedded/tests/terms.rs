//! What is scheduled, happens once, was taken out or divided, over restarts, crashes and new segments.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::path::Path;
use std::time::Duration;

use store::{append, crashed, name, payloads, segments, take, text, topic, within};
use streamerson_core::lease::Leases;
use streamerson_core::time::unix_ms;
use streamerson_core::upkeep::Upkeep;
use streamerson_core::{
    Append, Broker, Durability, ErrorKind, Membership, Message, Once, Outcome, Position, Result,
    Settlement, Start,
};
use streamerson_embedded::{EmbeddedBroker, Options};

const HOUR: Duration = Duration::from_secs(3600);

fn open_as(dir: &Path, durability: Durability) -> EmbeddedBroker {
    let options = Options {
        segment_bytes: 4 << 10,
        ..store::options(durability)
    };
    EmbeddedBroker::open(dir, options).unwrap()
}

fn open(dir: &Path) -> EmbeddedBroker {
    open_as(dir, Durability::Os)
}

fn message(payload: &str) -> Append {
    Append::new(topic("orders"), Message::new("test", payload.to_owned()))
}

async fn send(broker: &EmbeddedBroker, append: Append) -> Result<Position> {
    within(broker.append(vec![append])).await.remove(0)
}

/// Has the log move on to other segments, and those in which nothing is held go.
async fn roll(broker: &EmbeddedBroker) {
    let large = "x".repeat(1000);
    append(broker, "filler", &[large.as_str(); 12]).await;
    broker.remove_topic(&topic("filler")).await.unwrap();
}

#[tokio::test]
async fn a_scheduled_message_appears_when_it_is_due_and_without_any_worker() {
    let dir = tempfile::tempdir().unwrap();
    for broker in [
        EmbeddedBroker::in_memory(),
        open_as(&dir.path().join("os"), Durability::Os),
        open_as(&dir.path().join("disk"), Durability::Disk),
    ] {
        let due = unix_ms() + 300;
        let later = send(&broker, message("later").due_at(due)).await.unwrap();
        assert_eq!(later, Position::ZERO);
        send(&broker, message("now").due_at(unix_ms() - 1))
            .await
            .unwrap();
        let stats = broker.stats(&topic("orders")).await.unwrap();
        assert_eq!((stats.length, stats.scheduled), (1, 1));
        let mut reader = broker
            .read(&topic("orders"), Start::Earliest)
            .await
            .unwrap();
        let mut entries = within(reader.next(1)).await.unwrap();
        entries.extend(within(reader.next(1)).await.unwrap());
        assert!(unix_ms() >= due);
        let texts = entries.iter().map(|e| text(e.message.as_ref().unwrap()));
        assert_eq!(texts.collect::<Vec<_>>(), ["now", "later"]);
        assert!(entries[1].position.major() >= due);
        let stats = broker.stats(&topic("orders")).await.unwrap();
        assert_eq!((stats.length, stats.scheduled), (2, 0));
    }
}

#[tokio::test]
async fn what_is_scheduled_survives_crashes_and_new_segments_and_appears_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let due = unix_ms() + 1_000;
    send(&broker, message("soon").due_at(due)).await.unwrap();
    let late = message("late").due_at(unix_ms() + 3_600_000);
    send(&broker, late).await.unwrap();
    roll(&broker).await;
    assert!(segments(dir.path())[0].ends_with("00000000000000000001.log"));
    let copy = crashed(dir.path());
    drop(broker);

    let broker = open(copy.path());
    assert_eq!(broker.stats(&topic("orders")).await.unwrap().scheduled, 2);
    let mut reader = broker
        .read(&topic("orders"), Start::Earliest)
        .await
        .unwrap();
    let entries = within(reader.next(10)).await.unwrap();
    assert_eq!(text(entries[0].message.as_ref().unwrap()), "soon");
    assert!(unix_ms() >= due);
    // What says that it has appeared is in another segment than what it says it of.
    roll(&broker).await;
    roll(&broker).await;
    let copy = crashed(copy.path());
    let broker = open(copy.path());
    assert_eq!(payloads(&broker, "orders").await.unwrap(), ["soon"]);
    assert_eq!(broker.stats(&topic("orders")).await.unwrap().scheduled, 1);

    broker.remove_topic(&topic("orders")).await.unwrap();
    drop(broker);
    let broker = open(copy.path());
    let gone = broker.stats(&topic("orders")).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_output_may_be_scheduled_and_appears_only_if_the_settlement_wins() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    append(&broker, "orders", &["one"]).await;
    let membership = Membership::new(topic("orders"), name("group"), name("ada"));
    let mut member = broker.join(membership).await.unwrap();
    let delivery = take(&mut member, 1).await.remove(0);
    let position = delivery.receipt.position();
    let later = || {
        let message = Message::new("test", "reminder");
        vec![Append::new(topic("out"), message).due_at(unix_ms() + 200)]
    };
    let settler = member.settler();
    let won = Settlement::complete_with(delivery.receipt, later());
    within(settler.settle(vec![won])).await.remove(0).unwrap();
    let stale = streamerson_core::Receipt::new(position, 1);
    let stale = Settlement::complete_with(stale, later());
    let lost = within(settler.settle(vec![stale])).await.remove(0);
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::Fenced);
    let copy = crashed(dir.path());
    let broker = open(copy.path());
    assert_eq!(broker.stats(&topic("out")).await.unwrap().scheduled, 1);
    let mut reader = broker.read(&topic("out"), Start::Earliest).await.unwrap();
    assert_eq!(within(reader.next(10)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_is_remembered_over_crashes_and_new_segments_until_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let once = |key: &str, keep| message("once").once(Once::new(key.to_owned(), keep));
    let first = send(&broker, once("a", HOUR)).await.unwrap();
    let brief = Duration::from_millis(500);
    let (begun, short) = (unix_ms(), send(&broker, once("b", brief)).await.unwrap());
    let both = within(broker.append(vec![once("c", HOUR), once("c", HOUR)])).await;
    let both: Vec<Position> = both.into_iter().map(Result::unwrap).collect();
    assert_eq!(both[0], both[1]);
    assert_eq!(send(&broker, once("a", HOUR)).await.unwrap(), first);

    let copy = crashed(dir.path());
    drop(broker);
    let mut dir = copy;
    for _ in 0..2 {
        let broker = open(dir.path());
        assert_eq!(send(&broker, once("a", HOUR)).await.unwrap(), first);
        assert_eq!(send(&broker, once("c", HOUR)).await.unwrap(), both[0]);
        roll(&broker).await;
        dir = crashed(dir.path());
    }
    let broker = open(dir.path());
    while unix_ms() < begun + 600 {
        append(&broker, "elsewhere", &["time passes"]).await;
    }
    assert!(send(&broker, once("b", brief)).await.unwrap() > short);
    assert_eq!(broker.stats(&topic("orders")).await.unwrap().length, 4);
    let too_long = once(&"x".repeat(513), HOUR);
    let refused = send(&broker, too_long).await.unwrap_err();
    assert_eq!(refused.code(), "invalid-once-key");
}

#[tokio::test]
async fn many_remembered_keys_leave_segments_room_for_messages() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for n in 0..200 {
        let once = Once::new(format!("{n}-{}", "k".repeat(100)), HOUR);
        send(&broker, message("once").once(once)).await.unwrap();
    }
    let newest = || {
        let last = segments(dir.path()).pop().unwrap();
        let number = last.file_stem().unwrap().to_str().unwrap();
        number.parse::<u64>().unwrap()
    };
    let before = newest();
    let text = "x".repeat(100);
    append(&broker, "filler", &[text.as_str(); 300]).await;
    // The keys take about as much as these messages.
    let begun = newest() - before;
    assert!(begun <= 4, "{begun} segments for 300 messages");
}

#[tokio::test]
async fn an_effect_happens_once_over_crashes_and_new_segments_and_the_second_answers_as_the_first()
{
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open(dir.path());
    let mut copies = Vec::new();
    let inbox = streamerson_core::Topic::inbox("caller").unwrap();
    for round in 0..3 {
        append(&broker, "orders", &["charge"]).await;
        let membership = Membership::new(topic("orders"), name("group"), name("ada"));
        let mut member = broker.join(membership).await.unwrap();
        let delivery = take(&mut member, 1).await.remove(0);
        let answer = Message::new("test", format!("answer {round}"));
        let outputs = vec![
            Append::new(topic("out"), Message::new("test", "effect")),
            Append::new(inbox.clone(), answer),
        ];
        let settlement = Settlement {
            receipt: delivery.receipt,
            outcome: Outcome::Complete {
                outputs,
                once: None,
            },
        };
        let settlement = settlement.once(Once::new("order-7", HOUR));
        within(member.settler().settle(vec![settlement]))
            .await
            .remove(0)
            .unwrap();
        assert_eq!(payloads(&broker, "out").await.unwrap(), ["effect"]);
        let answers = broker.range(&inbox, Position::ZERO, 10).await.unwrap();
        let last = answers.last().unwrap().message.as_ref().unwrap();
        assert_eq!(text(last), "answer 0");
        roll(&broker).await;
        let copy = crashed(copies.last().map_or(dir.path(), tempfile::TempDir::path));
        broker = open(copy.path());
        copies.push(copy);
    }
    // Another group has effects of its own, and so has one that begins anew.
    assert!(
        broker
            .remove_group(&topic("orders"), &name("group"))
            .await
            .unwrap()
    );
    roll(&broker).await;
    let copy = crashed(copies.last().unwrap().path());
    let broker = open(copy.path());
    let membership = Membership::new(topic("orders"), name("group"), name("ada"));
    let mut member = broker.join(membership).await.unwrap();
    let delivery = take(&mut member, 1).await.remove(0);
    let effect = vec![Append::new(topic("out"), Message::new("test", "again"))];
    let settlement = Settlement::complete_with(delivery.receipt, effect);
    let settlement = settlement.once(Once::new("order-7", HOUR));
    within(member.settler().settle(vec![settlement]))
        .await
        .remove(0)
        .unwrap();
    assert_eq!(payloads(&broker, "out").await.unwrap(), ["effect", "again"]);
}

#[tokio::test]
async fn what_was_taken_out_stays_out_and_what_came_with_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let positions = append(&broker, "orders", &["one", "two", "three", "four"]).await;
    let moved = || vec![Append::new(topic("out"), Message::new("test", "moved"))];
    let orders = topic("orders");
    let take_out = |broker: EmbeddedBroker, at: usize| {
        let (orders, position) = (orders.clone(), positions[at]);
        async move { broker.take(&orders, position, moved()).await.unwrap() }
    };
    // At the same time: one of them has it.
    let (a, b) = tokio::join!(take_out(broker.clone(), 1), take_out(broker.clone(), 1));
    assert!(a != b);
    assert!(!take_out(broker.clone(), 1).await);
    assert_eq!(payloads(&broker, "out").await.unwrap(), ["moved"]);

    let mut copy = crashed(dir.path());
    for _ in 0..2 {
        let broker = open(copy.path());
        assert!(!take_out(broker.clone(), 1).await);
        assert_eq!(
            payloads(&broker, "orders").await.unwrap(),
            ["one", "three", "four"]
        );
        assert_eq!(payloads(&broker, "out").await.unwrap(), ["moved"]);
        // The first segment stays, because of the others in it; the record of the removal goes.
        roll(&broker).await;
        roll(&broker).await;
        copy = crashed(copy.path());
    }
    let broker = open(copy.path());
    assert!(take_out(broker.clone(), 2).await);
    let mut member = store::join(&broker, "orders", "ada").await;
    let left = take(&mut member, 2).await;
    let left: Vec<String> = left.iter().map(|d| text(&d.message)).collect();
    assert_eq!(left, ["one", "four"]);
    // What somebody holds can be taken out too: then it cannot be settled.
    assert!(take_out(broker.clone(), 3).await);
    let receipt = streamerson_core::Receipt::new(positions[3], 1);
    let settler = member.settler();
    let settled = settler.settle(vec![Settlement::complete(receipt)]);
    let settled = within(settled).await.remove(0);
    assert_eq!(settled.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_division_and_the_epochs_of_leases_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (orders, seat) = (topic("orders"), name("seat"));
    let broker = open(dir.path());
    assert_eq!(broker.divide(&orders, 8).await.unwrap(), 8);
    assert_eq!(broker.divide(&orders, 4).await.unwrap(), 8);
    let mut newest = 0;
    let (mut broker, mut copy) = (broker, crashed(dir.path()));
    for holder in ["ada", "bob", "cyd"] {
        let acquired = broker.acquire(&orders, &seat, &name(holder), HOUR).await;
        let lease = acquired.unwrap();
        // Whoever held it is gone with the process.
        assert_eq!(lease.holder, name(holder));
        assert!(lease.epoch > newest, "{} after {newest}", lease.epoch);
        newest = lease.epoch;
        let other = broker.acquire(&orders, &seat, &name("other"), HOUR).await;
        assert_eq!(other.unwrap().holder, name(holder));
        roll(&broker).await;
        let from = match holder {
            "ada" => crashed(dir.path()),
            _ => crashed(copy.path()),
        };
        copy = from;
        broker = open(copy.path());
        assert_eq!(broker.partitions(&orders).await.unwrap(), 8);
    }
    assert!(broker.remove_topic(&orders).await.unwrap());
    assert_eq!(broker.partitions(&orders).await.unwrap(), 0);
    let lease = broker.acquire(&orders, &seat, &name("dan"), HOUR).await;
    assert!(lease.unwrap().epoch > newest);
}

#[tokio::test]
async fn a_group_removed_under_its_member_begins_again_where_all_was_settled() {
    let dir = tempfile::tempdir().unwrap();
    for broker in [EmbeddedBroker::in_memory(), open(dir.path())] {
        append(&broker, "orders", &["one", "two", "three"]).await;
        let mut member = store::join(&broker, "orders", "ada").await;
        let mut held = take(&mut member, 2).await;
        store::settle(&*member, held.remove(0), store::done())
            .await
            .unwrap();
        let (orders, group) = (topic("orders"), name("group"));
        assert!(broker.remove_group(&orders, &group).await.unwrap());
        let lost = store::settle(&*member, held.remove(0), store::done()).await;
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::NotFound);
        let again = take(&mut member, 2).await;
        let again: Vec<String> = again.iter().map(|d| text(&d.message)).collect();
        assert_eq!(again, ["two", "three"]);
        // Who waits is told, and goes on too.
        drop(member);
        let mut member = store::join(&broker, "orders", "bob").await;
        take(&mut member, 2).await;
        let mut next = member.next(1);
        assert!(futures::poll!(&mut next).is_pending());
        assert!(broker.remove_topic(&orders).await.unwrap());
        append(&broker, "orders", &["four"]).await;
        let delivery = within(next).await.unwrap().remove(0);
        assert_eq!(text(&delivery.message), "four");
    }
}

#[tokio::test]
async fn a_group_removed_under_its_member_does_not_repeat_its_effects() {
    let dir = tempfile::tempdir().unwrap();
    for broker in [EmbeddedBroker::in_memory(), open(dir.path())] {
        append(&broker, "orders", &["one", "two"]).await;
        let mut member = store::join(&broker, "orders", "ada").await;
        let effect = || {
            let message = Message::new("test", "effect");
            Outcome::Complete {
                outputs: vec![Append::new(topic("effects"), message)],
                once: Some(Box::new(Once::new("two", HOUR))),
            }
        };
        // What was settled is not all before what was not.
        let mut held = take(&mut member, 2).await;
        let settled = store::settle(&*member, held.remove(1), effect()).await;
        settled.unwrap();
        let removed = broker.remove_group(&topic("orders"), &name("group")).await;
        assert!(removed.unwrap());
        let mut again = take(&mut member, 2).await;
        let settled = store::settle(&*member, again.remove(1), effect()).await;
        settled.unwrap();
        assert_eq!(payloads(&broker, "effects").await.unwrap(), ["effect"]);
    }
}
