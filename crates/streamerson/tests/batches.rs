//! Batch handlers: many messages at once, an outcome for each.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamerson::core::{Append, Broker};
use streamerson::{
    Client, FromRequest, IntoReply, Json, Message, Problem, Reply, Request, Router, State,
};
use support::{Faulty, Serving, dead_letter, entries, hasty, soon, topic, until};
use tokio::sync::Semaphore;
use tower::Service;

fn shared(broker: &Faulty) -> Arc<dyn Broker> {
    Arc::new(broker.clone())
}

async fn append(broker: &Faulty, values: impl IntoIterator<Item = i64>) {
    let batch = values
        .into_iter()
        .map(|n| Append::new(topic("work"), Message::new("n", n.to_string())))
        .collect();
    for result in broker.append(batch).await {
        result.unwrap();
    }
}

async fn pending(broker: &Faulty) -> u64 {
    broker.stats(&topic("work")).await.unwrap().groups[0].pending
}

/// The batches seen so far.
type Seen = Arc<Mutex<Vec<Vec<i64>>>>;

fn numbers(items: Vec<Json<i64>>) -> Vec<i64> {
    items.into_iter().map(|Json(n)| n).collect()
}

#[tokio::test]
async fn what_comes_during_a_batch_forms_the_next_one_up_to_the_limit() {
    let broker = Faulty::default();
    let gate = Arc::new(Semaphore::new(0));
    let seen = Seen::default();
    let handler = {
        let (gate, seen) = (gate.clone(), seen.clone());
        move |items: Vec<Json<i64>>| {
            let (gate, seen) = (gate.clone(), seen.clone());
            async move {
                seen.lock().push(numbers(items));
                gate.acquire().await.unwrap().forget();
            }
        }
    };
    let router = Router::new().on_batch("n", 10, handler);
    let serving = Serving::with(shared(&broker), router, |worker| worker.concurrency(100));
    append(&broker, 0..1).await;
    until(|| seen.lock().len() == 1).await;
    append(&broker, 1..8).await;
    soon(async {
        while pending(&broker).await < 8 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(seen.lock().len(), 1, "seven wait for the batch before");
    append(&broker, 8..14).await;
    until(|| seen.lock().len() == 2).await;
    assert_eq!(seen.lock()[1].len(), 10, "a full batch begins at once");
    gate.add_permits(2);
    until(|| seen.lock().len() == 3).await;
    gate.add_permits(1);
    until(|| serving.stats().handled == 14).await;
    let mut all: Vec<i64> = seen.lock().concat();
    all.sort_unstable();
    assert_eq!(all, (0..14).collect::<Vec<_>>());
    serving.stop().await.unwrap();
    assert_eq!(pending(&broker).await, 0);
}

#[tokio::test]
async fn each_message_has_its_own_outcome() {
    async fn check(State(least): State<i64>, items: Vec<Json<i64>>) -> Vec<Reply> {
        let check = |n| {
            if n < least {
                return Problem::bad_request("too-small", "use a greater one").into_reply();
            }
            Json(2 * n).into_reply()
        };
        numbers(items).into_iter().map(check).collect()
    }
    let broker = Faulty::default();
    let router = Router::new().on_batch("n", 100, check).with_state(3);
    let serving = Serving::start(shared(&broker), router);
    let client = Client::open(shared(&broker)).await.unwrap();
    let calls = (0..20).map(|n| {
        let client = client.clone();
        async move {
            let text = if n == 9 {
                "not a number".into()
            } else {
                n.to_string()
            };
            client.request("work", "n").text(text).await
        }
    });
    let replies = soon(futures::future::join_all(calls)).await;
    for (n, reply) in replies.into_iter().enumerate() {
        match n {
            0..3 => assert_eq!(reply.unwrap_err().code(), "too-small"),
            9 => assert_eq!(reply.unwrap_err().code(), "invalid-payload"),
            _ => assert_eq!(reply.unwrap().json::<usize>().unwrap(), 2 * n),
        }
    }
    serving.stop().await.unwrap();
}

/// Fails as a whole as long as 13 is among the items.
fn superstitious(seen: &Seen, how: fn() -> Result<(), Problem>) -> Router {
    let seen = seen.clone();
    Router::new().on_batch("n", 100, move |items: Vec<Json<i64>>| {
        let seen = seen.clone();
        async move {
            let items = numbers(items);
            seen.lock().push(items.clone());
            if items.contains(&13) {
                how()?;
            }
            Ok::<_, Problem>(vec![(); items.len()])
        }
    })
}

#[tokio::test]
async fn a_poisonous_message_does_not_take_its_batch_to_the_dead_letters() {
    for how in [
        || -> Result<(), Problem> { panic!("as it was told") },
        || Err(Problem::unavailable("unlucky", "not today")),
    ] {
        let broker = Faulty::default();
        let seen = Seen::default();
        append(&broker, 0..60).await;
        let serving = Serving::with(shared(&broker), superstitious(&seen, how), |worker| {
            worker.retry(hasty())
        });
        let (letter, meta) = dead_letter(&broker).await;
        assert_eq!(
            (&letter.data[..], meta.dlq.unwrap().attempts),
            (&b"13"[..], 5)
        );
        until(|| serving.stats().handled == 64).await;
        assert_eq!(serving.stats().dead, 1);
        let seen = seen.lock().clone();
        assert!(seen.len() < 30, "it is halved: {} calls", seen.len());
        let alone = seen.iter().filter(|batch| **batch == [13]).count();
        assert_eq!(alone, 5, "delivered again, it is handled alone");
        serving.stop().await.unwrap();
        assert_eq!(pending(&broker).await, 0);
    }
}

#[tokio::test]
async fn callers_of_a_failed_batch_are_told_apart() {
    let broker = Faulty::default();
    let router = superstitious(&Seen::default(), || {
        Err(Problem::unavailable("unlucky", "no"))
    });
    let serving = Serving::start(shared(&broker), router);
    let client = Client::open(shared(&broker)).await.unwrap();
    let calls = (0..40).map(|n| client.request("work", "n").json(&n).into_future());
    let replies = soon(futures::future::join_all(calls)).await;
    for (n, reply) in replies.into_iter().enumerate() {
        match n {
            13 => assert_eq!(reply.unwrap_err().code(), "unlucky"),
            _ => assert_eq!(reply.unwrap().status(), 204),
        }
    }
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_batch_answered_with_too_few_replies_is_a_failure_of_each() {
    let broker = Faulty::default();
    let router = Router::new().on_batch("n", 10, |_: Vec<Json<i64>>| async { Vec::<()>::new() });
    let serving = Serving::start(shared(&broker), router);
    let client = Client::open(shared(&broker)).await.unwrap();
    let error = soon(client.request("work", "n").json(&1).into_future()).await;
    assert_eq!(error.unwrap_err().code(), "batch-mismatch");
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_hangs_is_stopped_at_the_limit_with_all_its_messages() {
    let broker = Faulty::default();
    let dropped = Arc::new(());
    let handler = {
        let dropped = dropped.clone();
        move |_: Vec<Json<i64>>| {
            let dropped = dropped.clone();
            async move {
                std::future::pending::<()>().await;
                drop(dropped);
            }
        }
    };
    let handles = Arc::strong_count(&dropped);
    let router = Router::new().on_batch("n", 10, handler);
    let serving = Serving::with(shared(&broker), router, |worker| {
        worker
            .handler_timeout(Duration::from_millis(30))
            .retry(hasty())
    });
    append(&broker, 0..3).await;
    entries(&broker, &topic("work").dead_letters(), 3).await;
    until(|| Arc::strong_count(&dropped) <= handles).await;
    serving.stop().await.unwrap();
    assert_eq!(pending(&broker).await, 0);
}

/// A number, unless its text makes it panic.
struct Moody(i64);

impl<S: Sync> FromRequest<S> for Moody {
    type Rejection = Problem;

    async fn from_request(request: &Request, _: &S) -> Result<Moody, Problem> {
        let text = std::str::from_utf8(&request.message().data).unwrap();
        Ok(Moody(text.parse().unwrap()))
    }
}

#[tokio::test]
async fn an_extractor_that_panics_is_the_failure_of_one_message_and_batches_go_on() {
    async fn double(items: Vec<Moody>) -> Vec<Json<i64>> {
        items.into_iter().map(|Moody(n)| Json(2 * n)).collect()
    }
    let broker = Faulty::default();
    let router = Router::new().on_batch("n", 500, double);
    let serving = Serving::start(shared(&broker), router);
    let client = Client::open(shared(&broker)).await.unwrap();
    let ask = |text: &'static str| client.request("work", "n").text(text).into_future();
    let (seven, wrong, eight) = soon(async { tokio::join!(ask("7"), ask("x"), ask("8")) }).await;
    assert_eq!(wrong.unwrap_err().code(), "handler-panicked");
    for (reply, expected) in [(seven, 14), (eight, 16)] {
        assert_eq!(reply.unwrap().json::<i64>().unwrap(), expected);
    }
    assert_eq!(soon(ask("9")).await.unwrap().json::<i64>().unwrap(), 18);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_whose_time_was_over_before_its_batch_began_is_not_handled_in_it() {
    let gate = Arc::new(Semaphore::new(0));
    let seen = Seen::default();
    let handler = {
        let (gate, seen) = (gate.clone(), seen.clone());
        move |items: Vec<Json<i64>>| {
            let (gate, seen) = (gate.clone(), seen.clone());
            async move {
                seen.lock().push(numbers(items));
                gate.acquire().await.unwrap().forget();
            }
        }
    };
    let mut router = Router::new().on_batch("n", 10, handler);
    let request = |n: i64| {
        let message = Message::new("n", n.to_string());
        Request::new(topic("work"), message).unwrap()
    };
    let first = tokio::spawn(router.call(request(1)));
    until(|| seen.lock().len() == 1).await;
    let mut gone = Box::pin(router.call(request(2)));
    let mut waits = Box::pin(router.call(request(3)));
    for waiting in [&mut gone, &mut waits] {
        assert!(futures::poll!(waiting).is_pending());
    }
    drop(gone);
    gate.add_permits(2);
    soon(waits).await.unwrap();
    soon(first).await.unwrap().unwrap();
    assert_eq!(*seen.lock(), [vec![1], vec![3]]);
}
