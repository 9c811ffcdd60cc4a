//! SIGTERM to workers that are processes of their own, with messages in their handlers.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamerson::core::{Broker, Name, Start};
use streamerson::{
    Client, Message, Meta, NoReply, Publish, Router, Worker, connect, shutdown_signal,
};
use streamerson_embedded::port::Port;
use streamerson_embedded::{EmbeddedBroker, Options};
use streamerson_testkit::process::Process;
use streamerson_testkit::redis::RedisServer;
use support::{entries, soon, topic, until};
use tempfile::TempDir;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Tells the process which broker to work on, and how long its handlers may take to end.
const BROKER: &str = "SIGTERM_TEST_BROKER";
const DRAIN: &str = "SIGTERM_TEST_DRAIN_MS";
/// Longer than any wait, so that nothing is taken over because its worker was slow; a fifth of it, in which it is seen who
/// joins and leaves an ordered topic, is shorter.
const LEASE: Duration = Duration::from_secs(15);
/// What a handler of a message that is not held takes.
const WORK: Duration = Duration::from_millis(10);
const CONCURRENCY: usize = 4;
const PARTITIONS: u32 = 4;
const KEYS: u32 = 7;
/// Messages sent and not done.
const UNDER_WAY: usize = 100;

/// Not a test by itself, but the process that the tests start: a worker, which says on its standard error what it does.
#[tokio::test]
async fn the_process() {
    let Ok(url) = std::env::var(BROKER) else {
        return;
    };
    let drain = std::env::var(DRAIN).unwrap().parse().unwrap();
    let let_go = let_go_by_input();
    let held = move |message: Message| {
        let mut let_go = let_go.clone();
        async move {
            say(&format!("began {}", message.id));
            let_go.wait_for(|go| *go).await.unwrap();
            done(&message)
        }
    };
    let quick = |message: Message| async move {
        say(&format!("began {}", message.id));
        tokio::time::sleep(WORK).await;
        done(&message)
    };
    Worker::new(connect(&url).await.unwrap())
        .topic("work")
        .ordered_topic("keyed", PARTITIONS)
        .group("workers")
        .concurrency(CONCURRENCY)
        .lease(LEASE)
        .drain(Duration::from_millis(drain))
        .serve(Router::new().on("held", held).on("quick", quick))
        .with_graceful_shutdown(async {
            shutdown_signal().await;
            say("asked to stop");
        })
        .await
        .unwrap();
    say("left");
}

/// Becomes true with the first line of the standard input.
fn let_go_by_input() -> watch::Receiver<bool> {
    let (going, let_go) = watch::channel(false);
    std::thread::spawn(move || {
        let read = std::io::stdin().read_line(&mut String::new());
        going.send_replace(read.is_ok_and(|bytes| bytes > 0));
        // What is held without a line is held for ever.
        std::thread::park();
    });
    let_go
}

fn done(message: &Message) -> (Publish, NoReply) {
    say(&format!("ended {}", message.id));
    let number: u32 = str::from_utf8(&message.data).unwrap().parse().unwrap();
    (Publish::to("effects", "done").json(&number), NoReply)
}

/// One line in one write.
fn say(line: &str) {
    std::io::stderr()
        .lock()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

/// A worker in a process of its own.
struct Apart {
    process: Process,
    said: Arc<Mutex<Vec<String>>>,
}

impl Apart {
    fn start(place: &Place, drain: Duration) -> Apart {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "the_process", "--nocapture"])
            .env(BROKER, &place.url)
            .env(DRAIN, drain.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let (heard, lines) = (said.clone(), process.take_stderr().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                heard.lock().push(line);
            }
        });
        Apart { process, said }
    }

    /// How many lines begin with `word`.
    fn count(&self, word: &str) -> usize {
        let said = self.said.lock();
        said.iter().filter(|line| line.starts_with(word)).count()
    }

    async fn says(&self, word: &str, times: usize) {
        until(|| self.count(word) >= times).await;
    }

    /// Waits for its end, which is a good one, and answers which handlers have begun.
    async fn left(mut self) -> Vec<String> {
        let status = self.process.exited(Duration::from_secs(10)).await;
        self.says("left", 1).await;
        assert!(
            status.is_some_and(|status| status.success()),
            "{status:?}: {:?}",
            self.said
        );
        let said = self.said.lock();
        let began = said.iter().filter_map(|line| line.strip_prefix("began "));
        began.map(str::to_owned).collect()
    }
}

/// A broker that processes can reach, and who looks into it.
struct Place {
    url: String,
    broker: Arc<dyn Broker>,
    client: Client,
    _redis: Option<RedisServer>,
    _embedded: Option<(AbortOnDropHandle<()>, TempDir)>,
}

impl Place {
    async fn redis() -> Place {
        let server = RedisServer::start().await;
        Place::at(server.url(), Some(server), None).await
    }

    /// The Redis-protocol port of an embedded broker.
    async fn embedded() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let broker = EmbeddedBroker::open(folder.path(), Options::default()).unwrap();
        let namespace = Name::new("streamerson").unwrap();
        let port = Port::bind(([127, 0, 0, 1], 0).into(), broker, namespace).unwrap();
        let url = format!("redis://{}", port.local_addr());
        let serving = AbortOnDropHandle::new(tokio::spawn(port.serve(std::future::pending())));
        Place::at(url, None, Some((serving, folder))).await
    }

    async fn at(
        url: String,
        redis: Option<RedisServer>,
        embedded: Option<(AbortOnDropHandle<()>, TempDir)>,
    ) -> Place {
        let broker = connect(&url).await.unwrap();
        broker.divide(&topic("keyed"), PARTITIONS).await.unwrap();
        Place {
            url,
            client: Client::open(broker.clone()).await.unwrap(),
            broker,
            _redis: redis,
            _embedded: embedded,
        }
    }

    async fn send_held(&self, count: u32) {
        for n in 0..count {
            let message = Message::new("held", n.to_string());
            let sent = self.client.append(topic("work"), message);
            soon(sent).await.unwrap();
        }
    }

    /// Sends until `stop`, with so many messages on their way that no worker is ever idle; every fourth has an order to keep.
    /// Answers how many.
    async fn load(&self, stop: CancellationToken) -> u32 {
        let room = Semaphore::new(UNDER_WAY);
        let sending = async {
            let mut sent = 0;
            while !stop.is_cancelled() {
                room.acquire().await.unwrap().forget();
                let message = Message::new("quick", sent.to_string());
                let (topic, message) = match key(sent) {
                    None => (topic("work"), message),
                    Some(key) => {
                        let meta = Meta {
                            key: Some(format!("key-{key}")),
                            ..Meta::default()
                        };
                        (topic("keyed"), message.with_meta(&meta))
                    }
                };
                self.client.append(topic, message).await.unwrap();
                sent += 1;
            }
            sent
        };
        let making_room = async {
            let effects = topic("effects");
            let mut reader = self.broker.read(&effects, Start::Earliest).await.unwrap();
            loop {
                room.add_permits(reader.next(UNDER_WAY).await.unwrap().len());
            }
        };
        tokio::select! {
            sent = sending => sent,
            () = making_room => unreachable!("it goes on"),
        }
    }

    /// The numbers of the first `n` effects; there are no more of them.
    async fn effects(&self, n: usize) -> Vec<u32> {
        let effects = entries(&*self.broker, &topic("effects"), n).await;
        let stored = self.broker.stats(&topic("effects")).await.unwrap();
        assert_eq!(stored.length, n as u64);
        let numbers = effects.iter().map(|effect| str::from_utf8(&effect.data));
        numbers.map(|text| text.unwrap().parse().unwrap()).collect()
    }

    /// Nothing waits, and nobody holds anything.
    async fn is_done(&self) {
        let stats = self.broker.stats(&topic("work")).await.unwrap();
        let group = &stats.groups[0];
        assert_eq!((group.pending, group.lag), (0, Some(0)));
    }
}

/// How often each is there.
fn times<T: std::hash::Hash + Eq>(all: impl IntoIterator<Item = T>) -> HashMap<T, u32> {
    let mut times = HashMap::new();
    for one in all {
        *times.entry(one).or_default() += 1;
    }
    times
}

/// Makes two tests of each: on Redis, and on the port of the embedded broker.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(super::Place::redis().await).await; })*
        }
        mod on_the_embedded_port {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(super::Place::embedded().await).await; })*
        }
    };
}

on_both! {
    workers_that_are_replaced_under_load_lose_nothing_and_handle_nothing_twice
    what_does_not_end_within_the_drain_goes_to_another_worker_at_once
    a_second_signal_does_not_cut_the_drain_short
}

/// Four deploys under load: the next worker starts, then the one before is asked to end.
async fn workers_that_are_replaced_under_load_lose_nothing_and_handle_nothing_twice(place: Place) {
    let drain = Duration::from_secs(8);
    let stop = CancellationToken::new();
    let deploys = async {
        let mut began = Vec::new();
        let mut worker = Apart::start(&place, drain);
        for _ in 0..4 {
            worker.says("ended", 100).await;
            let next = Apart::start(&place, drain);
            next.says("began", 1).await;
            worker.process.terminate();
            began.extend(worker.left().await);
            worker = next;
        }
        stop.cancel();
        (began, worker)
    };
    let (sent, (mut began, mut last)) = tokio::join!(place.load(stop.clone()), deploys);
    let effects = place.effects(sent as usize).await;
    last.process.terminate();
    began.extend(last.left().await);

    let began = times(began);
    assert_eq!(began.len(), sent as usize);
    assert!(began.values().all(|times| *times == 1), "{began:?}");
    assert_eq!(times(effects.iter()).len(), sent as usize);
    for wanted in 0..KEYS {
        let of_key = effects.iter().filter(|n| key(**n) == Some(wanted));
        let of_key: Vec<&u32> = of_key.collect();
        assert!(of_key.is_sorted(), "key {wanted}: {of_key:?}");
    }
    place.is_done().await;
}

/// The key of the message with this number, if it has one.
fn key(number: u32) -> Option<u32> {
    number.is_multiple_of(4).then_some(number / 4 % KEYS)
}

async fn what_does_not_end_within_the_drain_goes_to_another_worker_at_once(place: Place) {
    place.send_held(20).await;
    let mut worker = Apart::start(&place, Duration::from_millis(100));
    worker.says("began", CONCURRENCY).await;
    worker.process.terminate();
    let released = worker.left().await;
    assert_eq!(released.len(), CONCURRENCY, "it began nothing more");

    // Long before the lease is over.
    let mut other = Apart::start(&place, Duration::from_secs(8));
    other
        .process
        .take_stdin()
        .unwrap()
        .write_all(b"go\n")
        .unwrap();
    let effects = place.effects(20).await;
    assert_eq!(times(effects).len(), 20);
    other.process.terminate();
    let began = times(other.left().await.into_iter().chain(released.clone()));
    let twice = began.iter().filter(|(_, times)| **times > 1);
    let twice: Vec<&String> = twice.map(|(id, _)| id).collect();
    assert_eq!(began.len(), 20);
    assert_eq!(
        twice.len(),
        released.len(),
        "only what it gave back: {twice:?}"
    );
    place.is_done().await;
}

async fn a_second_signal_does_not_cut_the_drain_short(place: Place) {
    place.send_held(8).await;
    let mut worker = Apart::start(&place, Duration::from_secs(8));
    worker.says("began", CONCURRENCY).await;
    worker.process.terminate();
    worker.says("asked to stop", 1).await;
    worker.process.terminate();
    worker
        .process
        .take_stdin()
        .unwrap()
        .write_all(b"go\n")
        .unwrap();
    let began = worker.left().await;
    assert_eq!(began.len(), CONCURRENCY);
    assert_eq!(place.effects(CONCURRENCY).await.len(), CONCURRENCY);
}
