//! The same workers and consumers on real brokers: embedded and Redis.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use streamerson::core::{Append, Broker, ErrorKind, Name, Position, Start};
use streamerson::{Client, Consumer, Json, Message, Problem, Router, Worker, connect};
use streamerson_embedded::port::Port;
use streamerson_embedded::{EmbeddedBroker, Options};
use streamerson_testkit::redis::RedisServer;
use support::{Gate, Serving, dead_letter, soon, topic, until};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::task::AbortOnDropHandle;

/// A broker that can be connected to, and what keeps it.
struct Place {
    url: String,
    _redis: Option<RedisServer>,
    _folder: Option<TempDir>,
}

async fn redis() -> Place {
    let server = RedisServer::start().await;
    Place {
        url: server.url(),
        _redis: Some(server),
        _folder: None,
    }
}

fn embedded() -> Place {
    let folder = tempfile::tempdir().unwrap();
    Place {
        url: format!("embedded:{}?durability=os", folder.path().display()),
        _redis: None,
        _folder: Some(folder),
    }
}

async fn append(broker: &dyn Broker, kind: &'static str, values: impl IntoIterator<Item = u32>) {
    let message = |n: u32| Append::new(topic("work"), Message::new(kind, n.to_string()));
    let results = broker.append(values.into_iter().map(message).collect());
    for result in soon(results).await {
        result.unwrap();
    }
}

async fn pending(broker: &dyn Broker) -> u64 {
    let stats = soon(broker.stats(&topic("work"))).await.unwrap();
    stats.groups.first().map_or(0, |group| group.pending)
}

/// A runtime of one thread, for a worker of its own.
struct Apart {
    runtime: Option<Runtime>,
}

impl Apart {
    fn new() -> Apart {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Apart {
            runtime: Some(runtime),
        }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A worker whose handlers block all threads of its runtime keeps what it holds, also what it has not begun.
async fn leases_are_kept_while_handlers_block_every_thread(
    mine: Arc<dyn Broker>,
    apart: &Apart,
    other: Arc<dyn Broker>,
) {
    let lease = Duration::from_millis(600);
    let (entered, entering) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let hold = Arc::new((entered, Mutex::new(released)));
    let block = move || {
        let hold = hold.clone();
        async move {
            hold.0.send(()).unwrap();
            hold.1.lock().recv().unwrap();
        }
    };
    append(&*other, "hold", 0..4).await;
    let router = Router::new().on("hold", block);
    let serving = {
        let _within = apart.runtime().enter();
        Serving::with(mine, router, |worker| {
            worker.lease(lease).concurrency(4).prefetch(4)
        })
    };
    // The first blocks the only thread; all four are held.
    entering.recv_timeout(Duration::from_secs(10)).unwrap();
    let gate = Gate::new();
    let rival = Serving::with(other.clone(), gate.router(), |worker| worker.lease(lease));
    tokio::time::sleep(3 * lease).await;
    assert_eq!(gate.begun(), 0, "the rival took what a living worker holds");
    assert_eq!(pending(&*other).await, 4);
    for _ in 0..4 {
        release.send(()).unwrap();
    }
    until(|| serving.stats().handled == 4).await;
    serving.stop().await.unwrap();
    rival.stop().await.unwrap();
    assert_eq!(pending(&*other).await, 0);
}

#[tokio::test]
async fn leases_are_kept_while_handlers_block_every_thread_on_redis() {
    let place = redis().await;
    let apart = Apart::new();
    let url = place.url.clone();
    let mine = apart.runtime().spawn(async move { connect(&url).await });
    let mine = mine.await.unwrap().unwrap();
    let other = connect(&place.url).await.unwrap();
    leases_are_kept_while_handlers_block_every_thread(mine, &apart, other).await;
}

#[tokio::test]
async fn leases_are_kept_while_handlers_block_every_thread_on_embedded() {
    let place = embedded();
    let apart = Apart::new();
    let broker = connect(&place.url).await.unwrap();
    leases_are_kept_while_handlers_block_every_thread(broker.clone(), &apart, broker).await;
}

/// Deploys under load: each new worker starts, then the old one is asked to end.
async fn workers_that_are_replaced_do_everything_once(place: Place) {
    let broker = connect(&place.url).await.unwrap();
    let runs: Arc<Mutex<HashMap<u32, u32>>> = Arc::default();
    let count = runs.clone();
    let router = Router::new().on("n", move |Json(n): Json<u32>| {
        let count = count.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            *count.lock().entry(n).or_default() += 1;
        }
    });
    let start = || {
        Serving::with(broker.clone(), router.clone(), |worker| {
            worker
                .concurrency(8)
                .prefetch(8)
                .lease(Duration::from_secs(60))
        })
    };
    let mut handled = 0;
    let mut serving = start();
    for round in 0..5 {
        append(&*broker, "n", 100 * round..100 * (round + 1)).await;
        let before = serving.stats().handled;
        until(|| serving.stats().handled >= before + 20).await;
        let next = start();
        let counters = serving.counters();
        serving.stop().await.unwrap();
        handled += counters.read().handled;
        serving = next;
    }
    until(|| handled + serving.stats().handled == 500).await;
    serving.stop().await.unwrap();
    let runs = runs.lock().clone();
    assert!(runs.len() == 500 && runs.values().all(|runs| *runs == 1));
    assert_eq!(pending(&*broker).await, 0);
}

#[tokio::test]
async fn workers_that_are_replaced_do_everything_once_on_redis() {
    workers_that_are_replaced_do_everything_once(redis().await).await;
}

#[tokio::test]
async fn workers_that_are_replaced_do_everything_once_on_embedded() {
    workers_that_are_replaced_do_everything_once(embedded()).await;
}

async fn of_two_members_with_one_name_the_second_is_told(place: Place) {
    let broker = connect(&place.url).await.unwrap();
    let gate = Gate::new();
    let ada = || {
        Serving::with(broker.clone(), gate.router(), |worker| {
            worker.member("ada").lease(Duration::from_millis(300))
        })
    };
    let first = ada();
    append(&*broker, "hold", 0..1).await;
    until(|| gate.begun() == 1).await;
    let error = ada().ended().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Conflict, "member-taken")
    );
    gate.release(2);
    first.stop().await.unwrap();
    let third = ada();
    append(&*broker, "hold", 0..1).await;
    until(|| gate.begun() == 2).await;
    third.stop().await.unwrap();
}

#[tokio::test]
async fn of_two_members_with_one_name_the_second_is_told_on_redis() {
    of_two_members_with_one_name_the_second_is_told(redis().await).await;
}

#[tokio::test]
async fn of_two_members_with_one_name_the_second_is_told_on_embedded() {
    of_two_members_with_one_name_the_second_is_told(embedded()).await;
}

/// A connection, once what used the place before has left it.
async fn connect_again(url: &str) -> Arc<dyn Broker> {
    soon(async {
        loop {
            match connect(url).await {
                Err(error) if error.code() == "data-directory-locked" => {
                    tokio::task::yield_now().await;
                }
                connected => return connected.unwrap(),
            }
        }
    })
    .await
}

/// A cursor outlives its consumer, and the connection to the broker.
async fn a_cursor_goes_on_where_it_was_committed(place: Place) {
    for round in 0..3 {
        let broker = connect_again(&place.url).await;
        append(&*broker, "n", [2 * round, 2 * round + 1]).await;
        let consumer = Consumer::new(broker.clone())
            .topic("work")
            .start(Start::Earliest)
            .cursor("audit");
        let mut entries = soon(consumer.open()).await.unwrap();
        for expected in [2 * round, 2 * round + 1] {
            let received = soon(entries.next()).await.unwrap().unwrap();
            let message = received.message.unwrap();
            assert_eq!(&message.data[..], expected.to_string().as_bytes());
        }
        entries.commit().await.unwrap();
        entries.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_cursor_goes_on_where_it_was_committed_on_redis() {
    a_cursor_goes_on_where_it_was_committed(redis().await).await;
}

#[tokio::test]
async fn a_cursor_goes_on_where_it_was_committed_on_embedded() {
    a_cursor_goes_on_where_it_was_committed(embedded()).await;
}

/// A lease that was lost is taken again, unless the cursor has gone on meanwhile.
async fn a_cursor_is_not_moved_back(place: Place) {
    let broker = connect(&place.url).await.unwrap();
    append(&*broker, "n", 0..3).await;
    let open = async || {
        let consumer = Consumer::new(broker.clone()).topic("work");
        let consumer = consumer.start(Start::Earliest).cursor("audit");
        soon(consumer.open()).await.unwrap()
    };
    // As if its holder had been silent for that long.
    let lose = async || {
        let work = topic("work");
        let lease = broker.leases(&work).await.unwrap().remove(0);
        let lost = broker.release(&work, &lease.name, &lease.holder);
        assert!(lost.await.unwrap());
    };
    let mut zombie = open().await;
    soon(zombie.next()).await.unwrap().unwrap();
    lose().await;
    zombie.commit().await.unwrap();
    soon(zombie.next()).await.unwrap().unwrap();
    lose().await;
    let mut next = open().await;
    for expected in ["1", "2"] {
        let received = soon(next.next()).await.unwrap().unwrap();
        assert_eq!(received.message.unwrap().data, expected);
    }
    next.commit().await.unwrap();
    next.close().await.unwrap();
    let stats = broker.stats(&topic("work")).await.unwrap();
    assert_eq!(zombie.commit().await.unwrap_err().code(), "cursor-lost");
    let after = broker.stats(&topic("work")).await.unwrap();
    assert_eq!(after.groups[0].cursor, stats.groups[0].cursor);
}

#[tokio::test]
async fn a_cursor_is_not_moved_back_on_redis() {
    a_cursor_is_not_moved_back(redis().await).await;
}

#[tokio::test]
async fn a_cursor_is_not_moved_back_on_embedded() {
    a_cursor_is_not_moved_back(embedded()).await;
}

/// 16 MiB messages come one by one, however many could be prefetched by number.
async fn large_messages_pass_one_by_one(place: Place) {
    let broker = connect(&place.url).await.unwrap();
    let gate = Gate::new();
    for _ in 0..3 {
        let message = Message::new("hold", vec![b'x'; 16 << 20]);
        let stored = broker.append(vec![Append::new(topic("work"), message)]);
        soon(stored).await.remove(0).unwrap();
    }
    let serving = Serving::with(broker.clone(), gate.router(), |worker| {
        worker.concurrency(1).prefetch_bytes(1 << 20)
    });
    for begun in 1..=3 {
        until(|| gate.begun() == begun).await;
        // The one before may not be settled yet; what is held beyond this one would never go.
        soon(async {
            while pending(&*broker).await != 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        gate.release(1);
    }
    until(|| serving.stats().handled == 3).await;
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn large_messages_pass_one_by_one_on_redis() {
    large_messages_pass_one_by_one(redis().await).await;
}

#[tokio::test]
async fn large_messages_pass_one_by_one_on_embedded() {
    large_messages_pass_one_by_one(embedded()).await;
}

/// As large as a message may be on the embedded broker.
const LARGEST: usize = 32 << 20;

/// The dead letter is larger than the message, and is stored all the same; so is what brings it back.
async fn the_largest_message_becomes_a_dead_letter_and_comes_back(place: Place) {
    let broker = connect(&place.url).await.unwrap();
    let mut message = Message::new("large", "");
    message.data = vec![b'x'; LARGEST - message.size()].into();
    let sent = message.data.clone();
    let stored = broker.append(vec![Append::new(topic("work"), message)]);
    soon(stored).await.remove(0).unwrap();

    let runs = Arc::new(Mutex::new(Vec::new()));
    let noted = runs.clone();
    let router = Router::new().on("large", move |body: Bytes| {
        let noted = noted.clone();
        async move {
            noted.lock().push(body);
            match noted.lock().len() {
                1 => Err(Problem::bad_request("broken", "no".repeat(10_000))),
                _ => Ok(()),
            }
        }
    });
    let serving = Serving::start(broker.clone(), router);
    let (letter, meta) = dead_letter(&*broker).await;
    assert_eq!(letter.data, sent);
    assert_eq!(meta.dlq.unwrap().code, "broken");

    let dead = topic("work").dead_letters();
    let entry = soon(broker.range(&dead, Position::ZERO, 1)).await.unwrap();
    let again = streamerson::core::dead_letter::original(&letter).unwrap();
    let taken = broker.take(&dead, entry[0].position, vec![again]);
    assert!(soon(taken).await.unwrap());
    until(|| runs.lock().len() == 2).await;
    assert_eq!(runs.lock()[1], sent);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn the_largest_message_becomes_a_dead_letter_and_comes_back_on_redis() {
    the_largest_message_becomes_a_dead_letter_and_comes_back(redis().await).await;
}

#[tokio::test]
async fn the_largest_message_becomes_a_dead_letter_and_comes_back_on_embedded() {
    the_largest_message_becomes_a_dead_letter_and_comes_back(embedded()).await;
}

#[tokio::test]
async fn the_largest_message_becomes_a_dead_letter_and_comes_back_over_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(folder.path(), Options::default()).unwrap();
    let local = ([127, 0, 0, 1], 0).into();
    let port = Port::bind(local, broker, Name::new("streamerson").unwrap()).unwrap();
    let place = Place {
        url: format!("redis://{}", port.local_addr()),
        _redis: None,
        _folder: Some(folder),
    };
    let _serving = AbortOnDropHandle::new(tokio::spawn(port.serve(std::future::pending())));
    the_largest_message_becomes_a_dead_letter_and_comes_back(place).await;
}

async fn a_cursor_follows_its_topic_into_the_partitions(place: Place) {
    async fn see(broker: &Arc<dyn Broker>, start: Start, mut missing: HashSet<u32>) {
        let consumer = Consumer::new(broker.clone()).topic("work").start(start);
        let mut entries = soon(consumer.cursor("audit").open()).await.unwrap();
        while !missing.is_empty() {
            let received = soon(entries.next()).await.unwrap().unwrap();
            let message = received.message.unwrap();
            missing.remove(&serde_json::from_slice(&message.data).unwrap());
        }
        entries.commit().await.unwrap();
        entries.close().await.unwrap();
    }
    let broker = connect(&place.url).await.unwrap();
    append(&*broker, "n", 0..10).await;
    see(&broker, Start::Earliest, (0..10).collect()).await;
    append(&*broker, "n", 10..20).await;
    let router = Router::new().fallback(|| async {});
    let worker = Worker::new(broker.clone()).ordered_topic("work", 4);
    let worker = tokio::spawn(worker.group("ordered").serve(router).into_future());
    soon(async {
        while broker.partitions(&topic("work")).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    append(&*broker, "n", 20..30).await;
    let client = Client::open(broker.clone()).await.unwrap();
    for n in 30..40 {
        client.send("work", "n").json(&n).await.unwrap();
    }
    see(&broker, Start::Latest, (10..40).collect()).await;
    client.send("work", "n").json(&40).await.unwrap();
    see(&broker, Start::Latest, HashSet::from([40])).await;
    worker.abort();
}

#[tokio::test]
async fn a_cursor_follows_its_topic_into_the_partitions_on_redis() {
    a_cursor_follows_its_topic_into_the_partitions(redis().await).await;
}

#[tokio::test]
async fn a_cursor_follows_its_topic_into_the_partitions_on_embedded() {
    a_cursor_follows_its_topic_into_the_partitions(embedded()).await;
}

async fn who_works_on_a_divided_topic_as_a_whole_is_told(place: Place) {
    let broker = connect(&place.url).await.unwrap();
    let gate = Gate::new();
    let often = |worker: Worker| worker.lease(Duration::from_millis(200));
    let at_work = Serving::with(broker.clone(), gate.router(), often);
    append(&*broker, "hold", [1]).await;
    until(|| gate.begun() == 1).await;
    broker.divide(&topic("work"), 3).await.unwrap();
    gate.release(1);
    let ended = at_work.ended().await.unwrap_err();
    assert_eq!(ended.code(), "topic-divided");
    // What it had begun is done.
    assert_eq!(pending(&*broker).await, 0);

    let joining = Serving::start(broker.clone(), gate.router());
    let refused = joining.ended().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(
        refused.detail().contains("ordered_topic(\"work\", 3)"),
        "{refused}"
    );
    let other = Worker::new(broker.clone()).topic("other").group("workers");
    let handle = other.handle();
    let other = tokio::spawn(other.serve(gate.router()).into_future());
    let refused = soon(handle.add_topic("work")).await.unwrap_err();
    assert_eq!(refused.code(), "topic-divided");
    handle.add_topic("another").await.unwrap();
    other.abort();
}

#[tokio::test]
async fn who_works_on_a_divided_topic_as_a_whole_is_told_on_redis() {
    who_works_on_a_divided_topic_as_a_whole_is_told(redis().await).await;
}

#[tokio::test]
async fn who_works_on_a_divided_topic_as_a_whole_is_told_on_embedded() {
    who_works_on_a_divided_topic_as_a_whole_is_told(embedded()).await;
}
