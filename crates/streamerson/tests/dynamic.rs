//! Topics and handlers that come and go while a worker serves.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::sync::Arc;

use streamerson::core::lease::Leases;
use streamerson::core::retry::RetryPolicy;
use streamerson::core::{Append, Broker, Error, ErrorKind};
use streamerson::handler::Handler;
use streamerson::router::LiveRouter;
use streamerson::worker::WorkerHandle;
use streamerson::{Client, Message, Problem, Router, Worker};
use support::{Fault, Faulty, Gate, Serving, away, dead_letter, soon, topic, until};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

fn shared(broker: &Faulty) -> Arc<dyn Broker> {
    Arc::new(broker.clone())
}

/// A worker on the topic `work`, and its handle.
fn handled(broker: &Faulty, router: Router) -> (Serving, WorkerHandle) {
    let mut handle = None;
    let serving = Serving::with(shared(broker), router, |worker| {
        handle = Some(worker.handle());
        worker
    });
    (serving, handle.unwrap())
}

async fn ask(client: &Client, topic: &'static str) -> i32 {
    let reply = soon(client.request(topic, "echo").json(&7).into_future()).await;
    reply.unwrap().json().unwrap()
}

async fn append(broker: &Faulty, to: &str, kind: &'static str) {
    let message = Append::new(topic(to), Message::new(kind, ""));
    broker.append(vec![message]).await.remove(0).unwrap();
}

#[tokio::test]
async fn a_topic_added_is_served_and_one_removed_is_not() {
    let broker = Faulty::default();
    let (serving, handle) = handled(&broker, Gate::new().router());
    let client = Client::open(shared(&broker)).await.unwrap();
    handle.add_topic("play").await.unwrap();
    handle.add_topic("play").await.unwrap();
    assert_eq!(ask(&client, "play").await, 7);
    assert!(soon(handle.remove_topic("play")).await.unwrap());
    assert!(!soon(handle.remove_topic("play")).await.unwrap());
    let stats = broker.stats(&topic("play")).await.unwrap();
    assert!(stats.groups[0].members.is_empty(), "it left in order");
    append(&broker, "play", "echo").await;
    assert_eq!(ask(&client, "work").await, 7, "the others go on");
    let stats = broker.stats(&topic("play")).await.unwrap();
    assert_eq!(stats.groups[0].lag, Some(1));
    handle.add_topic("play").await.unwrap();
    assert_eq!(ask(&client, "play").await, 7);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn removing_a_topic_drains_it() {
    let broker = Faulty::default();
    let gate = Gate::new();
    let (serving, handle) = handled(&broker, gate.router());
    append(&broker, "work", "hold").await;
    until(|| gate.begun() == 1).await;
    let removal = tokio::spawn({
        let handle = handle.clone();
        async move { handle.remove_topic("work").await }
    });
    let conflict = soon(async {
        loop {
            match handle.add_topic("work").await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(
        (conflict.kind(), conflict.code()),
        (ErrorKind::Conflict, "topic-leaving")
    );
    append(&broker, "work", "hold").await;
    assert!(!removal.is_finished());
    gate.release(1);
    assert!(soon(removal).await.unwrap().unwrap());
    let stats = broker.stats(&topic("work")).await.unwrap();
    assert_eq!((stats.groups[0].pending, stats.groups[0].lag), (0, Some(1)));
    assert_eq!((gate.begun(), serving.stats().handled), (1, 1));
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_topic_that_cannot_be_joined_is_the_askers_failure_and_the_worker_goes_on() {
    let broker = Faulty::default();
    let (serving, handle) = handled(&broker, Gate::new().router());
    let client = Client::open(shared(&broker)).await.unwrap();
    assert_eq!(ask(&client, "work").await, 7);
    let refused = Error::invalid("no-permission", "this user may not read it");
    *broker.faults.join.lock() = vec![Fault::Refused(refused)];
    let error = soon(handle.add_topic("secret")).await.unwrap_err();
    assert_eq!(error.code(), "no-permission");
    for (name, code) in [("work:dlq", "topic-reserved"), ("no topic", "invalid-name")] {
        let error = soon(handle.add_topic(name)).await.unwrap_err();
        assert_eq!(error.code(), code);
    }
    assert_eq!(ask(&client, "work").await, 7);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn an_ordered_topic_that_cannot_be_worked_on_is_the_askers_failure_and_the_worker_goes_on() {
    let broker = Faulty::default();
    let (serving, handle) = handled(&broker, Gate::new().router());
    for (name, partitions, code) in [
        ("orders", 0, "invalid-partitions"),
        ("orders", 2000, "invalid-partitions"),
        ("orders:dlq", 4, "topic-reserved"),
        ("no topic", 4, "invalid-name"),
        ("work", 4, "topic-twice"),
    ] {
        let added = soon(handle.add_ordered_topic(name, partitions)).await;
        assert_eq!(added.unwrap_err().code(), code, "{name} {partitions}");
    }
    soon(handle.add_ordered_topic("orders", 4)).await.unwrap();
    let error = soon(handle.add_topic("orders")).await.unwrap_err();
    assert_eq!(error.code(), "topic-twice");
    let client = Client::open(shared(&broker)).await.unwrap();
    assert_eq!(ask(&client, "work").await, 7);
    assert_eq!(ask(&client, "orders").await, 7);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_group_whose_name_leaves_no_room_for_leases_has_no_ordered_topics() {
    let broker = Faulty::default();
    let worker = Worker::new(shared(&broker)).group("g".repeat(190));
    let handle = worker.handle();
    let serving = tokio::spawn(worker.serve(Gate::new().router()).into_future());
    let error = soon(handle.add_ordered_topic("orders", 4)).await;
    assert_eq!(error.unwrap_err().code(), "invalid-name");
    soon(handle.add_topic("work")).await.unwrap();
    let client = Client::open(shared(&broker)).await.unwrap();
    assert_eq!(ask(&client, "work").await, 7);
    serving.abort();
}

#[tokio::test]
async fn removing_an_ordered_topic_drains_its_partitions() {
    let broker = Faulty::default();
    let gate = Gate::new();
    let (serving, handle) = handled(&broker, gate.router());
    soon(handle.add_ordered_topic("orders", 1)).await.unwrap();
    append(&broker, "orders.0", "hold").await;
    until(|| gate.begun() == 1).await;
    let removal = tokio::spawn({
        let handle = handle.clone();
        async move { handle.remove_topic("orders").await }
    });
    let conflict = soon(async {
        loop {
            match handle.add_ordered_topic("orders", 1).await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(
        (conflict.kind(), conflict.code()),
        (ErrorKind::Conflict, "topic-leaving")
    );
    assert!(!removal.is_finished());
    gate.release(1);
    assert!(soon(removal).await.unwrap().unwrap());
    let stats = broker.stats(&topic("orders.0")).await.unwrap();
    assert_eq!((stats.groups[0].pending, serving.stats().handled), (0, 1));
    for of in ["orders", "orders.0"] {
        let mut leases = soon(broker.leases(&topic(of))).await.unwrap();
        leases.retain(|lease| lease.name.as_str() != "janitor");
        assert_eq!(leases, [], "{of}");
    }
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn who_adds_a_topic_hears_when_it_is_joined_or_removed_before_that() {
    let broker = Faulty::default();
    let (serving, handle) = handled(&broker, Gate::new().router());
    let client = Client::open(shared(&broker)).await.unwrap();
    assert_eq!(ask(&client, "work").await, 7);
    for removed in [true, false] {
        *broker.faults.join.lock() = vec![Fault::Refused(away()); 1000];
        let mut first = Box::pin(handle.add_topic("play"));
        assert!(futures::poll!(&mut first).is_pending());
        until(|| broker.faults.join.lock().len() < 1000).await;
        let mut second = Box::pin(handle.add_topic("play"));
        assert!(futures::poll!(&mut second).is_pending());
        // What is asked later is answered later.
        assert!(!handle.remove_topic("none").await.unwrap());
        assert!(futures::poll!(&mut second).is_pending());
        if removed {
            assert!(soon(handle.remove_topic("play")).await.unwrap());
            for added in [first, second] {
                let error = soon(added).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Closed);
                assert!(error.detail().contains("play"), "{error}");
            }
        } else {
            broker.faults.join.lock().clear();
            soon(first).await.unwrap();
            soon(second).await.unwrap();
        }
    }
    assert_eq!(ask(&client, "play").await, 7);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_worker_may_begin_without_topics_and_its_end_is_told() {
    let broker = Faulty::default();
    let worker = Worker::new(shared(&broker)).group("workers");
    let handle = worker.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = worker
        .serve(Gate::new().router())
        .with_graceful_shutdown(async {
            let _ = stopped.await;
        });
    let serving: JoinHandle<_> = tokio::spawn(serve.into_future());
    soon(handle.add_topic("work")).await.unwrap();
    let client = Client::open(shared(&broker)).await.unwrap();
    assert_eq!(ask(&client, "work").await, 7);
    drop(stop);
    soon(serving).await.unwrap().unwrap();
    let error = soon(handle.add_topic("play")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn handlers_are_replaced_and_what_has_begun_ends_with_the_old_one() {
    let broker = Faulty::default();
    let gate = Gate::new();
    let live = LiveRouter::new(gate.router());
    let worker = Worker::new(shared(&broker)).topic("work").group("workers");
    let counters = worker.counters();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = worker.serve(live.clone()).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving = tokio::spawn(serve.into_future());
    append(&broker, "work", "hold").await;
    until(|| gate.begun() == 1).await;
    let other = Gate::new();
    live.replace(other.router().on("new", || async { "new" }));
    let client = Client::open(shared(&broker)).await.unwrap();
    let reply = soon(client.request("work", "new").into_future()).await;
    assert_eq!(reply.unwrap().text().unwrap(), "new");
    append(&broker, "work", "hold").await;
    until(|| other.begun() == 1).await;
    assert_eq!(gate.begun(), 1);
    gate.release(1);
    other.release(1);
    until(|| counters.read().handled == 3).await;
    drop(stop);
    soon(serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_agreed_for_a_handler_holds_from_when_it_is_there() {
    let broker = Faulty::default();
    let live = LiveRouter::new(Router::new());
    let worker = Worker::new(shared(&broker)).topic("work").group("workers");
    let serving = tokio::spawn(worker.serve(live.clone()).into_future());
    let fails = || async { Problem::unavailable("busy", "later") };
    let once = RetryPolicy {
        max_attempts: 1,
        ..RetryPolicy::default()
    };
    live.replace(Router::new().on("fails", fails.retry(once)));
    append(&broker, "work", "fails").await;
    let why = dead_letter(&broker).await.1.dlq.unwrap();
    assert_eq!((why.code.as_str(), why.attempts), ("busy", 1));
    serving.abort();
}
