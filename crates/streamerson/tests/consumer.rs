//! Consumers: everybody sees everything, from where they stood.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use streamerson::consumer::{Entries, Received};
use streamerson::core::retention::Retention;
use streamerson::core::{
    Append, Broker, Error, ErrorKind, Leases, Name, Position, Start, Upkeep, partition,
};
use streamerson::{Client, Consumer, Message, Router, Worker};
use support::{Faulty, Gate, Serving, soon, topic, until};

fn shared(broker: &Faulty) -> Arc<dyn Broker> {
    Arc::new(broker.clone())
}

async fn append(broker: &Faulty, to: &str, texts: &[&'static str]) -> Vec<Position> {
    let message = |text: &&'static str| Append::new(topic(to), Message::new("t", *text));
    let results = broker.append(texts.iter().map(message).collect()).await;
    results.into_iter().map(Result::unwrap).collect()
}

fn consumer(broker: &Faulty) -> Consumer {
    Consumer::new(shared(broker)).topic("work")
}

async fn open(consumer: Consumer) -> Entries {
    soon(consumer.open()).await.unwrap()
}

fn text(received: &Received) -> String {
    let message = received.message.as_ref().unwrap();
    String::from_utf8(message.data.to_vec()).unwrap()
}

async fn texts(entries: &mut Entries, n: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < n {
        let received = soon(entries.next()).await.unwrap().unwrap();
        texts.push(text(&received));
    }
    texts
}

#[tokio::test]
async fn it_begins_where_it_is_told_and_every_one_sees_everything() {
    let broker = Faulty::default();
    let positions = append(&broker, "work", &["a", "b", "c"]).await;
    let mut earliest = open(consumer(&broker).start(Start::Earliest)).await;
    let mut after = open(consumer(&broker).start(Start::After(positions[0]))).await;
    let mut latest = open(consumer(&broker)).await;
    assert_eq!(texts(&mut after, 2).await, ["b", "c"]);
    append(&broker, "work", &["d"]).await;
    assert_eq!(texts(&mut earliest, 4).await, ["a", "b", "c", "d"]);
    assert_eq!(texts(&mut after, 1).await, ["d"]);
    assert_eq!(texts(&mut latest, 1).await, ["d"]);
}

#[tokio::test]
async fn several_topics_come_together_each_in_order_and_partitions_too() {
    let broker = Faulty::default();
    let orders = topic("orders");
    broker.divide(&orders, 3).await.unwrap();
    for number in 0..3 {
        let part = partition::topic(&orders, number).unwrap();
        append(&broker, part.as_str(), &["1", "2"]).await;
    }
    append(&broker, "work", &["1", "2", "3"]).await;
    let consumer = consumer(&broker).topic("orders").start(Start::Earliest);
    let entries = open(consumer).await;
    let seen: Vec<Received> = soon(entries.take(9).map(Result::unwrap).collect()).await;
    for (name, expected) in [
        ("work", vec!["1", "2", "3"]),
        ("orders.0", vec!["1", "2"]),
        ("orders.1", vec!["1", "2"]),
        ("orders.2", vec!["1", "2"]),
    ] {
        let of = seen.iter().filter(|one| one.topic.as_str() == name);
        assert_eq!(of.map(text).collect::<Vec<_>>(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_busy_topic_does_not_keep_a_quiet_one_waiting() {
    let broker = Faulty::default();
    append(&broker, "work", &["x"; 2000]).await;
    append(&broker, "quiet", &["q"]).await;
    let consumer = consumer(&broker).topic("quiet").start(Start::Earliest);
    let entries = open(consumer).await;
    let seen: Vec<String> = soon(entries.take(600).map(|one| text(&one.unwrap())).collect()).await;
    assert!(seen.contains(&"q".to_owned()));
}

mod cursors {
    use super::*;

    fn named(broker: &Faulty) -> Consumer {
        consumer(broker).start(Start::Earliest).cursor("audit")
    }

    #[tokio::test]
    async fn what_was_committed_does_not_come_again_and_the_rest_does() {
        let broker = Faulty::default();
        append(&broker, "work", &["a", "b", "c", "d"]).await;
        let mut first = open(named(&broker)).await;
        assert_eq!(texts(&mut first, 2).await, ["a", "b"]);
        first.commit().await.unwrap();
        assert_eq!(texts(&mut first, 1).await, ["c"]);
        first.close().await.unwrap();
        let mut second = open(named(&broker)).await;
        assert_eq!(texts(&mut second, 2).await, ["c", "d"]);
        second.commit().await.unwrap();
        let stats = broker.stats(&topic("work")).await.unwrap();
        assert_eq!(
            (stats.groups[0].name.as_str(), stats.groups[0].lag),
            ("audit", Some(0))
        );
    }

    #[tokio::test]
    async fn a_new_cursor_at_the_latest_misses_nothing_from_then_on() {
        let broker = Faulty::default();
        append(&broker, "work", &["old"]).await;
        let entries = open(consumer(&broker).cursor("audit")).await;
        append(&broker, "work", &["new"]).await;
        drop(entries);
        let mut entries = open(consumer(&broker).cursor("audit")).await;
        assert_eq!(texts(&mut entries, 1).await, ["new"]);
    }

    #[tokio::test]
    async fn for_each_commits_what_it_has_handled_and_a_failure_comes_again() {
        let broker = Faulty::default();
        append(&broker, "work", &["a", "b"]).await;
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        for round in 0..2 {
            let entries = open(named(&broker)).await;
            let (seen, broker) = (seen.clone(), broker.clone());
            let running = tokio::spawn(entries.for_each(async move |received: Received| {
                let text = text(&received);
                seen.lock().push(text.clone());
                if text == "b" && round == 0 {
                    append(&broker, "work", &["stop"]).await;
                }
                match text.as_str() {
                    "stop" => Err(Error::closed("told to")),
                    _ => Ok(()),
                }
            }));
            let ended: Result<(), Error> = soon(running).await.unwrap();
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
        }
        assert_eq!(*seen.lock(), ["a", "b", "stop", "stop"]);
    }

    #[tokio::test]
    async fn of_two_consumers_with_one_cursor_the_second_waits_for_the_first() {
        let broker = Faulty::default();
        append(&broker, "work", &["a", "b"]).await;
        let mut first = open(named(&broker)).await;
        let mut second = std::pin::pin!(named(&broker).open());
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(texts(&mut first, 1).await, ["a"]);
        first.commit().await.unwrap();
        first.close().await.unwrap();
        let mut second = soon(second).await.unwrap();
        assert_eq!(texts(&mut second, 1).await, ["b"]);
    }

    #[tokio::test]
    async fn who_lost_the_cursor_is_told_and_cannot_commit() {
        let broker = Faulty::default();
        append(&broker, "work", &["a"]).await;
        let mut entries = open(named(&broker)).await;
        assert_eq!(texts(&mut entries, 1).await, ["a"]);
        lose(&broker, "work").await;
        let (work, lease) = (topic("work"), Name::new("cursor.audit").unwrap());
        let thief = Name::new("thief").unwrap();
        let hour = Duration::from_secs(3600);
        broker.acquire(&work, &lease, &thief, hour).await.unwrap();
        assert_lost(soon(entries.next()).await.unwrap().unwrap_err());
        assert!(entries.next().await.is_none());
        let error = entries.commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
    }

    /// Before it notices by itself, which takes a part of the lease.
    #[tokio::test]
    async fn who_lost_the_cursor_while_it_slept_does_not_move_it_back() {
        let broker = Faulty::default();
        append(&broker, "work", &["a", "b"]).await;
        let mut zombie = open(named(&broker)).await;
        assert_eq!(texts(&mut zombie, 1).await, ["a"]);
        lose(&broker, "work").await;
        let mut next = open(named(&broker)).await;
        assert_eq!(texts(&mut next, 2).await, ["a", "b"]);
        next.commit().await.unwrap();
        let before = cursor(&broker, "work").await;
        assert_lost(zombie.commit().await.unwrap_err());
        assert_eq!(cursor(&broker, "work").await, before);
    }

    #[tokio::test]
    async fn who_sleeps_in_the_middle_of_a_commit_does_not_move_the_cursor_back() {
        let broker = Faulty::default();
        append(&broker, "work", &["a", "b"]).await;
        let mut zombie = open(named(&broker)).await;
        assert_eq!(texts(&mut zombie, 1).await, ["a"]);
        let wake = broker.stall("seek");
        let mut late = std::pin::pin!(zombie.commit());
        assert!(futures::poll!(&mut late).is_pending() && broker.is_stalled());
        lose(&broker, "work").await;
        let mut next = open(named(&broker)).await;
        assert_eq!(texts(&mut next, 2).await, ["a", "b"]);
        next.commit().await.unwrap();
        let before = cursor(&broker, "work").await;
        wake.add_permits(1);
        assert_lost(soon(late).await.unwrap_err());
        assert_eq!(cursor(&broker, "work").await, before);
    }

    #[tokio::test]
    async fn who_wakes_when_its_successor_has_gone_does_not_move_the_cursor_back() {
        let broker = Faulty::default();
        append(&broker, "work", &["a", "b"]).await;
        let mut zombie = open(named(&broker)).await;
        assert_eq!(texts(&mut zombie, 1).await, ["a"]);
        lose(&broker, "work").await;
        let mut next = open(named(&broker)).await;
        assert_eq!(texts(&mut next, 2).await, ["a", "b"]);
        next.commit().await.unwrap();
        next.close().await.unwrap();
        let before = cursor(&broker, "work").await;
        assert_lost(zombie.commit().await.unwrap_err());
        assert_eq!(cursor(&broker, "work").await, before);
        assert_lost(soon(zombie.next()).await.unwrap().unwrap_err());
    }

    #[tokio::test]
    async fn who_sleeps_before_its_cursor_begins_passes_over_nothing() {
        let broker = Faulty::default();
        append(&broker, "work", &["old"]).await;
        let latest = || consumer(&broker).cursor("audit");
        let wake = broker.stall("seek");
        let mut zombie = std::pin::pin!(latest().open());
        assert!(futures::poll!(&mut zombie).is_pending() && broker.is_stalled());
        lose(&broker, "work").await;
        let next = open(latest()).await;
        append(&broker, "work", &["new"]).await;
        wake.add_permits(1);
        assert_lost(soon(zombie).await.unwrap_err());
        next.close().await.unwrap();
        let mut third = open(latest()).await;
        assert_eq!(texts(&mut third, 1).await, ["new"]);
    }

    /// As after a while without the broker, or after the broker began anew.
    #[tokio::test]
    async fn a_lease_that_nobody_else_had_meanwhile_is_taken_again() {
        let broker = Faulty::default();
        let positions = append(&broker, "work", &["a", "b"]).await;
        let mut entries = open(named(&broker)).await;
        for (n, expected) in ["a", "b"].into_iter().enumerate() {
            lose(&broker, "work").await;
            assert_eq!(texts(&mut entries, 1).await, [expected]);
            entries.commit().await.unwrap();
            assert_eq!(cursor(&broker, "work").await, Some(positions[n]));
        }
    }

    #[tokio::test]
    async fn what_a_cursor_has_not_committed_is_not_trimmed() {
        let broker = Faulty::default();
        append(&broker, "work", &["a", "b", "c"]).await;
        let mut entries = open(named(&broker)).await;
        assert_eq!(texts(&mut entries, 1).await, ["a"]);
        entries.commit().await.unwrap();
        let nothing = Retention {
            max_len: Some(0),
            ..Retention::default()
        };
        let trimmed = broker.trim(&topic("work"), nothing).await.unwrap();
        assert_eq!((trimmed.removed, trimmed.lost), (1, 0));
        assert_eq!(texts(&mut entries, 2).await, ["b", "c"]);
    }

    #[tokio::test]
    async fn the_group_of_workers_is_no_cursor() {
        let broker = Faulty::default();
        let gate = Gate::new();
        append(&broker, "work", &["a"]).await;
        let serving = Serving::with(shared(&broker), gate.router(), |worker| {
            worker.group("audit")
        });
        until(|| serving.stats().handled > 0).await;
        let error = soon(named(&broker).open()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Conflict, "cursor-shared")
        );
        serving.stop().await.unwrap();
    }
}

/// The lease of the cursor is free, as if its holder had been asleep for that long.
async fn lose(broker: &Faulty, of: &str) {
    let lease = Name::new("cursor.audit").unwrap();
    let leases = broker.leases(&topic(of)).await.unwrap();
    let held = leases.into_iter().find(|held| held.name == lease);
    let holder = held.unwrap().holder;
    broker.release(&topic(of), &lease, &holder).await.unwrap();
}

async fn cursor(broker: &Faulty, of: &str) -> Option<Position> {
    let groups = broker.stats(&topic(of)).await.unwrap().groups;
    let audit = groups.into_iter().find(|group| group.name == "audit");
    audit.unwrap().cursor
}

#[track_caller]
fn assert_lost(error: Error) {
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Fenced, "cursor-lost")
    );
}

/// Topics that are divided while they are read, or were when they were not.
mod division {
    use super::*;

    /// As when the first ordered worker starts; `at`: where forwarding begins.
    async fn divide(broker: &Faulty, at: Option<Start>) {
        broker.divide(&topic("work"), 2).await.unwrap();
        if let Some(at) = at {
            let forwarder = Name::new("streamerson-partitions").unwrap();
            broker
                .seek(&topic("work"), &forwarder, at, None)
                .await
                .unwrap();
        }
    }

    fn named(broker: &Faulty) -> Consumer {
        consumer(broker).cursor("audit")
    }

    async fn groups(broker: &Faulty) -> Vec<String> {
        let groups = broker.stats(&topic("work")).await.unwrap().groups;
        groups.into_iter().map(|group| group.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_a_topic_that_gets_divided_goes_on_with_its_partitions() {
        let broker = Faulty::default();
        append(&broker, "work", &["old"]).await;
        let mut entries = open(consumer(&broker)).await;
        append(&broker, "work", &["a"]).await;
        divide(&broker, Some(Start::Latest)).await;
        append(&broker, "work.0", &["c"]).await;
        append(&broker, "work", &["b"]).await;
        assert_eq!(texts(&mut entries, 3).await, ["a", "b", "c"]);
        append(&broker, "work", &["to be forwarded"]).await;
        append(&broker, "work.0", &["forwarded"]).await;
        assert_eq!(texts(&mut entries, 1).await, ["forwarded"]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_nobody_forwards_the_topic_as_a_whole_is_read_too() {
        let broker = Faulty::default();
        let mut entries = open(consumer(&broker)).await;
        divide(&broker, None).await;
        append(&broker, "work.1", &["a"]).await;
        assert_eq!(texts(&mut entries, 1).await, ["a"]);
        append(&broker, "work", &["b"]).await;
        assert_eq!(texts(&mut entries, 1).await, ["b"]);
        append(&broker, "work.0", &["c"]).await;
        assert_eq!(texts(&mut entries, 1).await, ["c"]);
    }

    #[tokio::test]
    async fn the_history_of_a_divided_topic_comes_first() {
        let broker = Faulty::default();
        append(&broker, "work", &["a", "b"]).await;
        divide(&broker, Some(Start::Latest)).await;
        append(&broker, "work.0", &["c"]).await;
        let mut entries = open(consumer(&broker).start(Start::Earliest)).await;
        assert_eq!(texts(&mut entries, 3).await, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_cursor_goes_on_though_the_topic_was_divided_meanwhile() {
        let broker = Faulty::default();
        append(&broker, "work", &["a", "b"]).await;
        let mut entries = open(named(&broker).start(Start::Earliest)).await;
        assert_eq!(texts(&mut entries, 1).await, ["a"]);
        entries.commit().await.unwrap();
        entries.close().await.unwrap();
        divide(&broker, Some(Start::Latest)).await;
        append(&broker, "work.0", &["c"]).await;
        append(&broker, "work.1", &["c"]).await;
        let mut entries = open(named(&broker)).await;
        assert_eq!(texts(&mut entries, 1).await, ["b"]);
        entries.commit().await.unwrap();
        entries.close().await.unwrap();
        // Not even now is anything forgotten that was not handled.
        let mut entries = open(named(&broker)).await;
        assert_eq!(texts(&mut entries, 2).await, ["c", "c"]);
        entries.commit().await.unwrap();
        assert_eq!(groups(&broker).await, ["streamerson-partitions"]);
        entries.close().await.unwrap();
        append(&broker, "work.0", &["d"]).await;
        let mut entries = open(named(&broker)).await;
        assert_eq!(texts(&mut entries, 1).await, ["d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cursor_moves_to_the_partitions_while_the_consumer_runs() {
        let broker = Faulty::default();
        let mut entries = open(named(&broker)).await;
        append(&broker, "work", &["a"]).await;
        divide(&broker, Some(Start::Latest)).await;
        append(&broker, "work.1", &["b"]).await;
        assert_eq!(texts(&mut entries, 2).await, ["a", "b"]);
        entries.commit().await.unwrap();
        assert_eq!(groups(&broker).await, ["streamerson-partitions"]);
        let stats = broker.stats(&topic("work.1")).await.unwrap();
        let audit = &stats.groups[0];
        assert_eq!((audit.name.as_str(), audit.lag), ("audit", Some(0)));
        // The whole is the gate: the next one waits there.
        let mut second = std::pin::pin!(named(&broker).open());
        assert!(futures::poll!(&mut second).is_pending());
        entries.close().await.unwrap();
        soon(second).await.unwrap();
    }

    #[tokio::test]
    async fn who_closes_leaves_the_partitions_too_at_once() {
        let broker = Faulty::default();
        append(&broker, "work", &["a"]).await;
        divide(&broker, Some(Start::Latest)).await;
        let entries = open(named(&broker).start(Start::Earliest)).await;
        for of in ["work", "work.0", "work.1"] {
            assert_eq!(broker.leases(&topic(of)).await.unwrap().len(), 1);
        }
        entries.close().await.unwrap();
        for of in ["work", "work.0", "work.1"] {
            assert_eq!(broker.leases(&topic(of)).await.unwrap(), []);
        }
    }

    #[tokio::test]
    async fn who_sleeps_in_the_middle_of_a_commit_moves_no_partition_back() {
        let broker = Faulty::default();
        divide(&broker, None).await;
        append(&broker, "work.0", &["a", "b"]).await;
        let earliest = || named(&broker).start(Start::Earliest);
        let mut zombie = open(earliest()).await;
        assert_eq!(texts(&mut zombie, 1).await, ["a"]);
        let wake = broker.stall("seek");
        let mut late = std::pin::pin!(zombie.commit());
        assert!(futures::poll!(&mut late).is_pending() && broker.is_stalled());
        for of in ["work", "work.0", "work.1"] {
            lose(&broker, of).await;
        }
        let mut next = open(earliest()).await;
        assert_eq!(texts(&mut next, 2).await, ["a", "b"]);
        next.commit().await.unwrap();
        let before = cursor(&broker, "work.0").await;
        wake.add_permits(1);
        assert_lost(soon(late).await.unwrap_err());
        assert_eq!(cursor(&broker, "work.0").await, before);
    }

    #[tokio::test]
    async fn nothing_is_missed_when_the_first_ordered_worker_comes() {
        let broker = Faulty::default();
        let mut entries = open(consumer(&broker)).await;
        let client = Client::open(shared(&broker)).await.unwrap();
        let send = async |n: u32| {
            let sent = client.send("work", "n").key((n % 5).to_string()).json(&n);
            sent.await.unwrap();
        };
        for n in 0..20 {
            send(n).await;
        }
        let router = Router::new().fallback(|| async {});
        let worker = Worker::new(shared(&broker)).ordered_topic("work", 4);
        let worker = worker.group("ordered").serve(router);
        let worker = tokio::spawn(worker.into_future());
        soon(async {
            while broker.partitions(&topic("work")).await.unwrap() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // A producer that does not know of partitions yet, and one that does.
        for n in 20..40 {
            send(n).await;
        }
        let client = Client::open(shared(&broker)).await.unwrap();
        for n in 40..60 {
            client.send("work", "n").key("k").json(&n).await.unwrap();
        }
        let mut missing: HashSet<u32> = (0..60).collect();
        while !missing.is_empty() {
            let received = soon(entries.next()).await.unwrap().unwrap();
            missing.remove(&text(&received).parse().unwrap());
        }
        worker.abort();
    }
}

#[tokio::test]
async fn wrong_settings_are_refused_when_it_is_opened() {
    let broker = Faulty::default();
    for (consumer, code) in [
        (Consumer::new(shared(&broker)), "topic-missing"),
        (consumer(&broker).topic("no topic"), "invalid-name"),
        (consumer(&broker).cursor("no cursor"), "invalid-name"),
    ] {
        assert_eq!(consumer.open().await.unwrap_err().code(), code);
    }
}
