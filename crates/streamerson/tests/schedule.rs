//! Scheduled messages: from clients, and from handlers.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use streamerson::core::time::unix_ms;
use streamerson::core::{Broker, Position};
use streamerson::{Client, Deadline, Json, Publish, Router};
use support::{Faulty, Serving, entries, soon, topic, until};

const DELAY: Duration = Duration::from_millis(150);

async fn client(broker: &Faulty) -> Client {
    Client::open(Arc::new(broker.clone())).await.unwrap()
}

async fn echo(Json(n): Json<u64>) -> Json<u64> {
    Json(n)
}

fn serve(broker: &Faulty, router: Router) -> Serving {
    Serving::start(Arc::new(broker.clone()), router)
}

#[tokio::test]
async fn a_message_appears_when_it_is_due_and_not_before() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let serving = serve(&broker, Router::new().on("echo", echo));
    let begun = unix_ms();
    let sent = client.send("work", "echo").json(&1).delay(DELAY);
    assert_eq!(sent.await.unwrap(), Position::ZERO);
    let stats = broker.stats(&topic("work")).await.unwrap();
    assert_eq!((stats.length, stats.scheduled), (0, 1));

    until(|| serving.stats().handled == 1).await;
    assert!(unix_ms() - begun >= DELAY.as_millis() as u64);
    let stats = broker.stats(&topic("work")).await.unwrap();
    assert_eq!((stats.length, stats.scheduled), (1, 0));
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_due_already_appears_now() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    for time in [SystemTime::UNIX_EPOCH, SystemTime::now() - DELAY] {
        client.send("work", "echo").json(&1).at(time).await.unwrap();
    }
    assert_eq!(entries(&broker, &topic("work"), 2).await.len(), 2);
}

#[tokio::test]
async fn messages_appear_in_the_order_in_which_they_are_due() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    for (n, times) in [(3, 3), (1, 1), (2, 2)] {
        let later = client.send("work", "echo").json(&n).delay(DELAY * times);
        later.await.unwrap();
    }
    let appeared = entries(&broker, &topic("work"), 3).await;
    let order: Vec<_> = appeared
        .iter()
        .map(|message| message.data.clone())
        .collect();
    assert_eq!(order, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_handler_schedules_what_follows_with_its_answer() {
    async fn place(Json(n): Json<u64>) -> (Publish, Json<u64>) {
        let remind = Publish::to("work", "remind").json(&n).delay(DELAY);
        (remind, Json(n))
    }
    let broker = Faulty::default();
    let client = client(&broker).await;
    let router = Router::new().on("place", place).on("remind", echo);
    let serving = serve(&broker, router.clone());
    let reply = soon(client.request("work", "place").json(&7).into_future()).await;
    assert_eq!(reply.unwrap().json::<u64>().unwrap(), 7);
    let scheduled = broker.stats(&topic("work")).await.unwrap().scheduled;
    assert_eq!((scheduled, serving.stats().handled), (1, 1));

    // It outlives the worker that scheduled it.
    serving.stop().await.unwrap();
    let next = serve(&broker, router);
    until(|| next.stats().handled == 1).await;
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_repeated_schedule_with_the_same_key_appears_once() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let remind = || {
        let send = client.send("work", "echo").json(&1).delay(DELAY);
        send.idempotency_key("reminder-7")
    };
    for _ in 0..3 {
        remind().await.unwrap();
    }
    assert_eq!(broker.stats(&topic("work")).await.unwrap().scheduled, 1);
    entries(&broker, &topic("work"), 1).await;
    remind().await.unwrap();
    let stats = broker.stats(&topic("work")).await.unwrap();
    assert_eq!((stats.length, stats.scheduled), (1, 0));
}

#[tokio::test]
async fn a_schedule_that_makes_no_sense_is_refused() {
    let broker = Faulty::default();
    let client = client(&broker).await;
    let send = || client.send("work", "echo").json(&1);
    let expired = send().delay(DELAY).deadline(Deadline::after(DELAY / 2));
    assert_eq!(expired.await.unwrap_err().code(), "invalid-due-time");
    let never = send().delay(Duration::MAX).await;
    assert_eq!(never.unwrap_err().code(), "invalid-due-time");
    assert!(
        broker.stats(&topic("work")).await.is_err(),
        "nothing was stored"
    );
}
