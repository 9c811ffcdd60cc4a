//! Requests: answered, timed out, refused, given up, and what the broker's faults do to them.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use streamerson::client::{Options, RequestError};
use streamerson::core::{Append, Broker, ErrorKind, Start};
use streamerson::{Client, Deadline, Json, Message, Meta, Problem, Reply, Router, State};
use support::{Fault, Faulty, Serving, away, entries, hasty, soon, topic, unanswered, until};
use tokio::sync::Semaphore;
use tokio::time::Instant;

async fn echo(Json(value): Json<Value>) -> Json<Value> {
    Json(value)
}

fn shared(broker: &Faulty) -> Arc<dyn Broker> {
    Arc::new(broker.clone())
}

async fn client(broker: &Faulty) -> Client {
    Client::open(shared(broker)).await.unwrap()
}

fn in_a_while() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Answers the request that stands first in `work`.
async fn answer_first(broker: &Faulty) {
    let request = entries(broker, &topic("work"), 1).await.remove(0);
    let inbox = request.reply_to().unwrap();
    broker
        .append(vec![Append::new(inbox, request.answer("1"))])
        .await;
}

#[tokio::test]
async fn many_requests_get_their_own_answers() {
    let broker = Faulty::default();
    let serving = Serving::start(shared(&broker), Router::new().on("echo", echo));
    let client = client(&broker).await;
    let calls = (0..1000).map(|n| {
        let client = &client;
        async move {
            let reply = client.request("work", "echo").json(&n).await.unwrap();
            assert_eq!(reply.json::<i32>().unwrap(), n);
        }
    });
    soon(futures::future::join_all(calls)).await;
    let stats = client.stats();
    assert_eq!(
        (stats.answered, stats.sent, stats.in_flight),
        (1000, 1000, 0)
    );
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn failures_arrive_as_they_were() {
    let taken = || Problem::conflict("taken", "it is taken");
    let away = || Problem::unavailable("away", "it is away");
    let minute = Duration::from_secs(60);
    let problems = [
        taken(),
        taken().transient(),
        taken().retry_after(minute),
        away(),
        away().permanent(),
    ];
    let answers = problems.clone();
    let refuse = move |Json(n): Json<usize>| {
        let problem = answers[n].clone();
        async move { Err::<(), Problem>(problem) }
    };
    let broker = Faulty::default();
    let serving = Serving::start(shared(&broker), Router::new().on("refuse", refuse));
    let client = client(&broker).await;
    for (n, expected) in problems.into_iter().enumerate() {
        match client.request("work", "refuse").json(&n).await {
            Err(RequestError::Problem(problem)) => assert_eq!(problem, expected),
            other => panic!("{other:?}"),
        }
    }
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn headers_key_and_content_travel() {
    async fn show(meta: Meta, data: bytes::Bytes) -> Reply {
        let shown = json!([
            meta.key,
            meta.ctype,
            meta.hdr.get("x-a"),
            data.len(),
            meta.exp.is_some()
        ]);
        Reply::new(shown.to_string()).with_header("x-b", "2")
    }
    let broker = Faulty::default();
    let serving = Serving::start(shared(&broker), Router::new().on("show", show));
    let client = client(&broker).await;
    let request = client
        .request("work", "show")
        .bytes("abc")
        .content_type("image/png");
    let reply = request.key("k").header("x-a", "1").await.unwrap();
    assert_eq!(
        reply.json::<Value>().unwrap(),
        json!(["k", "image/png", "1", 3, true])
    );
    assert_eq!(reply.headers().get("x-b"), Some("2"));
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn mistakes_in_a_request_are_answered_without_sending() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let outcome = client.request("no topic", "t").await;
    assert_eq!(outcome.unwrap_err().code(), "invalid-name");
    let outcome = client
        .send("work", "t")
        .json(&std::collections::BTreeMap::from([((1, 2), 3)]))
        .await;
    assert_eq!(outcome.unwrap_err().code(), "unserializable-payload");
    assert_eq!(client.stats().sent, 0);
}

#[tokio::test]
async fn a_deadline_passes_and_the_late_answer_is_counted_not_delivered() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let outcome = client
        .request("work", "t")
        .timeout(Duration::from_millis(20))
        .await;
    let Err(RequestError::Error(error)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Unknown, "no-reply-in-time")
    );
    answer_first(&broker).await;
    until(|| client.stats().late == 1).await;
    let stats = client.stats();
    assert_eq!(
        (stats.timed_out, stats.answered, stats.in_flight),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn deadlines_pass_in_their_own_order() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let (long, short) = (Duration::from_secs(3600), Duration::from_millis(20));
    let mut patient = Box::pin(client.request("work", "t").timeout(long).into_future());
    assert!(futures::poll!(&mut patient).is_pending());
    let outcome = soon(client.request("work", "t").timeout(short).into_future()).await;
    assert_eq!(outcome.unwrap_err().code(), "no-reply-in-time");
    assert_eq!(client.stats().in_flight, 1);
}

#[tokio::test]
async fn a_deadline_in_the_past_sends_nothing() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let outcome = client.request("work", "t").deadline(Deadline::at(1)).await;
    assert_eq!(outcome.unwrap_err().code(), "deadline-passed");
    assert_eq!(client.stats().sent, 0);
}

#[tokio::test]
async fn too_many_in_flight_are_refused_at_once() {
    let broker = Faulty::default();
    let options = Options {
        max_in_flight: 2,
        ..Options::default()
    };
    let client = Client::open_with(shared(&broker), options).await.unwrap();
    let mut waiting: Vec<_> = (0..2)
        .map(|_| Box::pin(client.dispatch(topic("work"), Message::new("t", ""), in_a_while())))
        .collect();
    for call in &mut waiting {
        assert!(futures::poll!(call).is_pending());
    }
    let refused = client
        .dispatch(topic("work"), Message::new("t", ""), in_a_while())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.kind(), refused.code()),
        (ErrorKind::Unavailable, "overloaded")
    );
    assert_eq!(client.stats().overloaded, 1);

    // Room again, once one is answered.
    answer_first(&broker).await;
    soon(waiting.remove(0)).await.unwrap();
    let mut another = Box::pin(client.dispatch(topic("work"), Message::new("t", ""), in_a_while()));
    assert!(futures::poll!(&mut another).is_pending());
}

#[tokio::test]
async fn a_repeated_correlation_id_is_refused() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let message = Message::new("t", "");
    let mut first = Box::pin(client.dispatch(topic("work"), message.clone(), in_a_while()));
    assert!(futures::poll!(&mut first).is_pending());
    let refused = client
        .dispatch(topic("work"), message, in_a_while())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "request-repeated");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_no_trace() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let mut call = Box::pin(client.dispatch(topic("work"), Message::new("t", ""), in_a_while()));
    assert!(futures::poll!(&mut call).is_pending());
    until(|| client.stats().sent == 1).await;
    drop(call);
    let stats = client.stats();
    assert_eq!((stats.in_flight, stats.cancelled), (0, 1));
    answer_first(&broker).await;
    until(|| client.stats().late == 1).await;
}

#[tokio::test]
async fn a_request_given_up_or_expired_while_queued_is_not_sent() {
    let broker = Faulty::default();
    let gate = Arc::new(Semaphore::new(0));
    *broker.faults.gate.lock() = Some(gate.clone());
    let client = client(&broker).await;
    // The first is on its way and waits at the gate; the others wait in the queue.
    let mut first =
        Box::pin(client.dispatch(topic("work"), Message::new("first", ""), in_a_while()));
    assert!(futures::poll!(&mut first).is_pending());
    broker.faults.at_gate(1).await;
    let mut gone = Box::pin(client.dispatch(topic("work"), Message::new("gone", ""), in_a_while()));
    assert!(futures::poll!(&mut gone).is_pending());
    drop(gone);
    let soon_over = Instant::now() + Duration::from_millis(20);
    let expired = client
        .dispatch(topic("work"), Message::new("expired", ""), soon_over)
        .await;
    assert_eq!(expired.unwrap_err().code(), "no-reply-in-time");
    let mut last = Box::pin(client.dispatch(topic("work"), Message::new("last", ""), in_a_while()));
    assert!(futures::poll!(&mut last).is_pending());

    gate.add_permits(100);
    let sent = entries(&broker, &topic("work"), 2).await;
    let kinds: Vec<_> = sent.iter().map(|message| &*message.kind).collect();
    assert_eq!(kinds, ["first", "last"]);
}

#[tokio::test]
async fn what_arrives_while_a_batch_is_in_flight_forms_the_next() {
    let broker = Faulty::default();
    let gate = Arc::new(Semaphore::new(0));
    *broker.faults.gate.lock() = Some(gate.clone());
    let client = client(&broker).await;
    let send = |n: u32| {
        let client = client.clone();
        async move { client.send("work", "t").json(&n).await }
    };
    let first = tokio::spawn(send(0));
    broker.faults.at_gate(1).await;
    let mut others: Vec<_> = (1..=100).map(|n| Box::pin(send(n))).collect();
    for other in &mut others {
        assert!(futures::poll!(other).is_pending());
    }
    assert_eq!(client.stats().sent, 0);
    // Two passages of the gate are two batches.
    gate.add_permits(2);
    soon(first).await.unwrap().unwrap();
    for outcome in soon(futures::future::join_all(others)).await {
        outcome.unwrap();
    }
    assert_eq!(client.stats().sent, 101);
}

#[tokio::test]
async fn a_failed_append_fails_exactly_its_requests_with_its_error() {
    let broker = Faulty::default();
    let serving = Serving::start(shared(&broker), Router::new().on("echo", echo));
    let client = client(&broker).await;
    *broker.faults.append.lock() = vec![Fault::Refused(away()), Fault::Lost(unanswered())];
    for (kind, code) in [
        (ErrorKind::Unavailable, "broker-unreachable"),
        (ErrorKind::Unknown, "broker-unanswered"),
    ] {
        let begun = Instant::now();
        let outcome = client
            .request("work", "echo")
            .json(&1)
            .timeout(Duration::from_secs(60))
            .await;
        let Err(RequestError::Error(error)) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!((error.kind(), error.code()), (kind, code));
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "failed only at the deadline"
        );
    }
    let reply = soon(client.request("work", "echo").json(&3).into_future())
        .await
        .unwrap();
    assert_eq!(reply.json::<u8>().unwrap(), 3);
    assert_eq!((client.stats().failed, client.stats().in_flight), (2, 0));
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn requests_in_flight_outlast_an_inbox_that_cannot_be_read() {
    let broker = Faulty::default();
    *broker.faults.inbox.lock() = vec![Fault::Refused(away()), Fault::Refused(unanswered())];
    let serving = Serving::start(shared(&broker), Router::new().on("echo", echo));
    let client = client(&broker).await;
    let reply = soon(client.request("work", "echo").json(&1).into_future())
        .await
        .unwrap();
    assert_eq!(reply.json::<u8>().unwrap(), 1);
    assert!(broker.faults.inbox.lock().is_empty());
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors_or_counted() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let mut call = Box::pin(client.request("work", "t").into_future());
    assert!(futures::poll!(&mut call).is_pending());
    let request = entries(&broker, &topic("work"), 1).await.remove(0);
    let inbox = request.reply_to().unwrap();
    let mut unusable = request.answer("1");
    unusable.meta = r#"{"status":7}"#.into();
    let unknown = Message::new("t", "").answer("2");
    let batch = [unknown, unusable].map(|message| Append::new(inbox.clone(), message));
    broker.append(batch.to_vec()).await;
    let outcome = soon(call).await;
    assert_eq!(outcome.unwrap_err().code(), "reply-unusable");
    assert_eq!(client.stats().late, 1);
}

#[tokio::test]
async fn closing_sends_what_is_queued_and_waits_for_answers() {
    let broker = Faulty::default();
    let gate = Arc::new(Semaphore::new(0));
    *broker.faults.gate.lock() = Some(gate.clone());
    let client = client(&broker).await;
    let request = tokio::spawn({
        let client = client.clone();
        async move { client.request("work", "t").await }
    });
    let send = tokio::spawn({
        let client = client.clone();
        async move { client.send("work", "u").await }
    });
    until(|| client.stats().in_flight == 1).await;
    tokio::task::yield_now().await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    gate.add_permits(100);
    soon(send).await.unwrap().unwrap();
    assert!(!closing.is_finished());
    answer_first(&broker).await;
    soon(request).await.unwrap().unwrap();
    soon(closing).await.unwrap();
    let refused = client.send("work", "t").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    let refused = client
        .dispatch(topic("work"), Message::new("t", ""), in_a_while())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test]
async fn a_dropped_client_still_sends_what_was_queued() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let mut send = Box::pin(client.append(topic("work"), Message::new("t", "")));
    assert!(futures::poll!(&mut send).is_pending());
    drop(send);
    drop(client);
    assert_eq!(entries(&broker, &topic("work"), 1).await.len(), 1);
}

#[tokio::test]
async fn nested_requests_inherit_the_deadline() {
    async fn outer(State(client): State<Client>) -> Result<Json<Value>, Problem> {
        let reply = client
            .request("work", "inner")
            .timeout(Duration::from_secs(3600))
            .await?;
        Ok(Json(reply.json()?))
    }
    async fn inner(deadline: Deadline) -> Json<Option<u64>> {
        Json(deadline.unix_ms())
    }
    let broker = Faulty::default();
    let client = client(&broker).await;
    let router = Router::new()
        .on("outer", outer)
        .on("inner", inner)
        .with_state(client.clone());
    let serving = Serving::start(shared(&broker), router);
    let deadline = Deadline::after(Duration::from_secs(30));
    let reply = client
        .request("work", "outer")
        .timeout(Duration::from_secs(60))
        .deadline(deadline)
        .await;
    assert_eq!(
        reply.unwrap().json::<Option<u64>>().unwrap(),
        deadline.unix_ms()
    );
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn the_failure_of_a_nested_request_is_passed_on() {
    async fn outer(State(client): State<Client>) -> Result<(), Problem> {
        client.request("work", "missing").await?;
        Ok(())
    }
    let broker = Faulty::default();
    let client = client(&broker).await;
    let router = Router::new().on("outer", outer).with_state(client.clone());
    let serving = Serving::start(shared(&broker), router);
    let outcome = client.request("work", "outer").await;
    assert_eq!(outcome.unwrap_err().code(), "unknown-type");
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn what_nobody_waits_for_is_tried_again_when_its_nested_request_says_so() {
    async fn outer(State(client): State<Client>) -> Result<(), Problem> {
        client.request("work", "inner").await?;
        Ok(())
    }
    let broker = Faulty::default();
    let client = client(&broker).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let inner = move || {
        let tries = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match tries {
                0 => Err(Problem::conflict("locked", "in use").transient()),
                _ => Ok(()),
            }
        }
    };
    let router = Router::new().on("outer", outer).on("inner", inner);
    let serving = Serving::with(
        shared(&broker),
        router.with_state(client.clone()),
        |worker| worker.retry(hasty()),
    );
    client.send("work", "outer").await.unwrap();
    until(|| tries.load(Ordering::SeqCst) == 2).await;
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn sent_messages_stand_where_they_say() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let position = client.send("work", "t").text("hi").await.unwrap();
    let mut reader = broker.read(&topic("work"), Start::Earliest).await.unwrap();
    let entry = soon(reader.next(1)).await.unwrap().remove(0);
    assert_eq!(entry.position, position);
    assert!(entry.message.unwrap().reply.is_empty());
}
