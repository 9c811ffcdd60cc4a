//! A message that stops its workers is kept as a dead letter in the end, and takes none of its neighbours with it.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use streamerson::core::{Append, Broker};
use streamerson::{Json, Message, NoReply, Publish, Router, Worker, connect};
use streamerson_testkit::redis::RedisServer;
use support::{entries, soon, topic};

const URL: &str = "STREAMERSON_TEST_URL";

/// Not a test: the worker that dies of poison. It ends when all is done.
#[tokio::test]
#[ignore = "run by the other tests, in a process of its own"]
async fn victim() {
    let Ok(url) = std::env::var(URL) else { return };
    let broker = connect(&url).await.unwrap();
    let router = Router::new().on("innocent", innocent).on("poison", poison);
    let done = {
        let broker = broker.clone();
        async move {
            let all_done = async || {
                let stats = broker.stats(&topic("work")).await.unwrap();
                let group = stats.groups.first();
                group.is_some_and(|group| group.pending == 0 && group.lag == Some(0))
            };
            while !all_done().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let worker = Worker::new(broker).topic("work").group("workers");
    let worker = worker.lease(Duration::from_millis(300));
    let served = worker.serve(router).with_graceful_shutdown(done).await;
    served.unwrap();
}

async fn innocent(Json(n): Json<u32>) -> (Publish, NoReply) {
    // So long that whatever came with it is in hand when the poison is.
    tokio::time::sleep(Duration::from_millis(20)).await;
    (Publish::to("done", "done").json(&n), NoReply)
}

async fn poison() {
    std::process::abort();
}

/// `poisons` among 50 others: only these die, however often they take their worker with them.
async fn only_poison_dies(url: &str, poisons: usize) {
    let broker = connect(url).await.unwrap();
    let message = |n: usize| match (25..25 + poisons).contains(&n) {
        true => Message::new("poison", "0"),
        false => Message::new("innocent", n.to_string()),
    };
    let batch = (0..50).map(|n| Append::new(topic("work"), message(n)));
    for stored in soon(broker.append(batch.collect())).await {
        stored.unwrap();
    }
    drop(broker);
    let mut deaths = 0;
    loop {
        let worker = Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact", "--ignored"])
            .env(URL, url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut worker = worker.unwrap();
        let ended = tokio::task::spawn_blocking(move || worker.wait());
        if soon(ended).await.unwrap().unwrap().success() {
            break;
        }
        deaths += 1;
        assert!(deaths <= 5 * poisons, "poison is to be handled five times");
    }

    let broker = connect(url).await.unwrap();
    let dead = topic("work").dead_letters();
    assert_eq!(length(&*broker, "work:dlq").await, poisons as u64);
    for letter in entries(&*broker, &dead, poisons).await {
        assert_eq!(letter.kind, "poison");
        let why = letter.parse_meta().unwrap().dlq.unwrap();
        assert_eq!(why.code, "too-many-attempts");
    }
    let innocents = 50 - poisons;
    let done = entries(&*broker, &topic("done"), innocents).await;
    let done: BTreeSet<_> = done.into_iter().map(|message| message.data).collect();
    assert_eq!(done.len(), innocents);
    assert_eq!(length(&*broker, "done").await, innocents as u64);
}

async fn length(broker: &dyn Broker, name: &str) -> u64 {
    broker.stats(&topic(name)).await.unwrap().length
}

#[tokio::test]
async fn only_poison_dies_on_redis() {
    let server = RedisServer::start().await;
    only_poison_dies(&server.url(), 1).await;
}

#[tokio::test]
async fn only_poison_dies_on_embedded() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}?durability=os", folder.path().display());
    only_poison_dies(&url, 1).await;
}

#[tokio::test]
async fn of_several_poisons_only_these_die_on_redis() {
    let server = RedisServer::start().await;
    only_poison_dies(&server.url(), 3).await;
}

#[tokio::test]
async fn of_several_poisons_only_these_die_on_embedded() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}?durability=os", folder.path().display());
    only_poison_dies(&url, 3).await;
}
