//! What the tests of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file is a crate of its own and uses some of it"
)]

use std::future::Future;
use std::time::Duration;

use streamerson_core::{
    Append, Broker, Delivery, Entry, Member, Membership, Message, Name, Result, Start, Topic,
};
use streamerson_redis::RedisBroker;
use streamerson_testkit::redis::RedisServer;
use tokio::time::{Instant, timeout};

/// How long what must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn name(text: &str) -> Name {
    Name::new(text.to_owned()).unwrap()
}

pub fn topic(text: &str) -> Topic {
    Topic::new(text.to_owned()).unwrap()
}

pub async fn connect(url: &str) -> RedisBroker {
    RedisBroker::connect(url, name("test")).await.unwrap()
}

/// The code of the error of connecting to `url`.
pub async fn refusal(url: &str) -> streamerson_core::Error {
    let connected = RedisBroker::connect(url, name("test")).await;
    connected.map(|_| ()).unwrap_err()
}

pub async fn start() -> (RedisServer, RedisBroker) {
    let server = RedisServer::start().await;
    let broker = connect(&server.url()).await;
    (server, broker)
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Repeats `attempt` until it answers something.
pub async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "in time");
        tokio::task::yield_now().await;
    }
}

/// Repeats `attempt` until it succeeds.
pub async fn recovered<T>(mut attempt: impl AsyncFnMut() -> Result<T>) -> T {
    let begun = Instant::now();
    let mut failures = 0;
    loop {
        match attempt().await {
            Ok(answer) => return answer,
            Err(error) => {
                failures += 1;
                let waited = begun.elapsed();
                assert!(
                    waited < PATIENCE,
                    "failure {failures} after {waited:?}: {error}"
                );
                tokio::task::yield_now().await;
            }
        }
    }
}

pub fn message(text: &str) -> Message {
    Message::new("test", text.to_owned())
}

pub fn appends(topic: &Topic, texts: &[&str]) -> Vec<Append> {
    let append = |text: &&str| Append::new(topic.clone(), message(text));
    texts.iter().map(append).collect()
}

pub async fn send(broker: &RedisBroker, topic: &Topic, texts: &[&str]) {
    for result in broker.append(appends(topic, texts)).await {
        result.unwrap();
    }
}

pub async fn try_send(broker: &RedisBroker, topic: &Topic) -> Result<()> {
    let mut results = broker.append(appends(topic, &["x"])).await;
    results.remove(0).map(drop)
}

/// Everything in a topic now.
pub async fn all(broker: &RedisBroker, topic: &Topic) -> Vec<Entry> {
    let length = broker.stats(topic).await.unwrap().length as usize;
    let mut reader = broker.read(topic, Start::Earliest).await.unwrap();
    let mut entries = Vec::new();
    while entries.len() < length {
        entries.extend(within(reader.next(1000)).await.unwrap());
    }
    entries
}

pub async fn texts(broker: &RedisBroker, topic: &Topic) -> Vec<String> {
    let entries = all(broker, topic).await.into_iter();
    entries.map(|entry| text(&entry.message.unwrap())).collect()
}

pub fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}

pub async fn join(
    broker: &RedisBroker,
    topic: &Topic,
    member: &str,
    lease: Duration,
) -> Box<dyn Member> {
    let membership = Membership {
        lease,
        ..Membership::new(topic.clone(), name("group"), name(member))
    };
    broker.join(membership).await.unwrap()
}

pub async fn one(member: &mut Box<dyn Member>) -> Delivery {
    let mut deliveries = within(member.next(1)).await.unwrap();
    assert_eq!(deliveries.len(), 1);
    deliveries.remove(0)
}
