//! Dead letters: what they keep, and the way back.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use streamerson::core::time::unix_ms;
use streamerson::core::{Append, Broker, Position, Start, Upkeep, dead_letter};
use streamerson::{
    Client, Dedupe, Message, Meta, NoReply, Problem, Publish, RetryPolicy, Router, State,
};
use support::{Faulty, Gate, Serving, entries, hasty, soon, topic, until};

/// Whether what the handlers need is there.
#[derive(Clone, Default)]
struct Mended(Arc<AtomicBool>);

impl Mended {
    fn mend(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn work(State(mended): State<Mended>, message: Message) -> Result<Publish, Problem> {
    if !mended.0.load(Ordering::SeqCst) {
        return Err(Problem::internal("as it was told"));
    }
    Ok(Publish::to("done", "done").bytes(message.data))
}

fn serve(broker: &Faulty, mended: &Mended) -> Serving {
    let handler = |state, message| async { work(state, message).await.map(|p| (p, NoReply)) };
    let router = Router::new().on("work", handler).with_state(mended.clone());
    Serving::with(Arc::new(broker.clone()), router, |worker| {
        let day = Duration::from_secs(86_400);
        worker.retry(hasty()).dedupe(Dedupe::by_id(day))
    })
}

async fn append(broker: &Faulty, message: Message) -> Position {
    let append = Append::new(topic("work"), message);
    broker.append(vec![append]).await.remove(0).unwrap()
}

/// The only dead letter, and where it stands.
async fn letter(broker: &Faulty) -> (Position, Message) {
    let letters = topic("work:dlq");
    let mut reader = broker.read(&letters, Start::Earliest).await.unwrap();
    let entry = soon(reader.next(1)).await.unwrap().remove(0);
    assert_eq!(broker.stats(&letters).await.unwrap().length, 1);
    (entry.position, entry.message.unwrap())
}

/// Whether this retried the letter.
async fn retry(broker: &Faulty, position: Position, letter: &Message) -> bool {
    let original = dead_letter::original(letter).unwrap();
    let letters = topic("work:dlq");
    let taken = broker.broker.take(&letters, position, vec![original]);
    taken.await.unwrap()
}

#[tokio::test]
async fn a_letter_says_why_how_often_when_and_by_whom() {
    let broker = Faulty::default();
    let serving = serve(&broker, &Mended::default());
    let before = unix_ms();
    let position = append(&broker, Message::new("work", "1")).await;
    let why = letter(&broker).await.1.parse_meta().unwrap().dlq.unwrap();
    assert_eq!((why.code.as_str(), why.attempts), ("handler-failed", 5));
    assert!(why.reason.contains("failed"), "{}", why.reason);
    assert_eq!(
        (why.topic.as_str(), why.group.as_str()),
        ("work", "workers")
    );
    assert_eq!(why.position, position.to_string());
    assert_eq!(why.first, position.major());
    assert!((before..=unix_ms()).contains(&why.at), "{why:?}");
    let stats = broker.stats(&topic("work")).await.unwrap();
    assert_eq!(why.member, stats.groups[0].members[0].name);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_retried_letter_has_its_effect_once_however_often_it_is_retried() {
    let broker = Faulty::default();
    let mended = Mended::default();
    let serving = serve(&broker, &mended);
    append(&broker, Message::new("work", "1")).await;
    let (position, letter) = letter(&broker).await;
    mended.mend();
    let (first, second) = tokio::join!(
        retry(&broker, position, &letter),
        retry(&broker, position, &letter)
    );
    assert!(first != second, "one of the two took it");
    assert!(!retry(&broker, position, &letter).await);

    // The failure was no effect, so that the same message may have one now.
    assert_eq!(entries(&broker, &topic("done"), 1).await[0].data, "1");
    until(|| serving.stats().handled == 6).await;
    serving.stop().await.unwrap();
    assert_eq!(broker.stats(&topic("done")).await.unwrap().length, 1);
    assert_eq!(broker.stats(&topic("work:dlq")).await.unwrap().length, 0);
}

#[tokio::test]
async fn a_letter_retried_too_early_comes_back() {
    let broker = Faulty::default();
    let serving = serve(&broker, &Mended::default());
    append(&broker, Message::new("work", "1")).await;
    let (position, first) = letter(&broker).await;
    assert!(retry(&broker, position, &first).await);
    until(|| serving.stats().dead == 2).await;
    let (_, second) = letter(&broker).await;
    assert_eq!((second.id, second.data), (first.id, first.data));
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn the_largest_payload_is_kept_and_retried_whole() {
    let broker = Faulty::default();
    let mended = Mended::default();
    let serving = serve(&broker, &mended);
    let payload: Vec<u8> = (0..16 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    let payload = Bytes::from(payload);
    append(&broker, Message::new("work", payload.clone())).await;
    let (position, letter) = letter(&broker).await;
    assert!(letter.data == payload);
    mended.mend();
    assert!(retry(&broker, position, &letter).await);
    assert!(entries(&broker, &topic("done"), 1).await[0].data == payload);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_meta_that_nobody_can_read_is_kept_and_comes_back_as_it_was() {
    let broker = Faulty::default();
    let serving = serve(&broker, &Mended::default());
    let mut sent = Message::new("work", "1");
    sent.meta = Bytes::from_static(b"\xffnonsense");
    append(&broker, sent.clone()).await;
    let (position, letter) = letter(&broker).await;
    let why = letter.parse_meta().unwrap().dlq.unwrap();
    assert_eq!((why.code.as_str(), why.attempts), ("invalid-meta", 1));
    serving.stop().await.unwrap();
    assert!(retry(&broker, position, &letter).await);
    assert_eq!(entries(&broker, &topic("work"), 2).await[1], sent);
}

#[tokio::test]
async fn a_retried_letter_is_handled_although_its_deadline_and_its_caller_are_gone() {
    let broker = Faulty::default();
    let gate = Gate::new();
    let router = Router::new().on("work", {
        let gate = gate.clone();
        move || {
            let gate = gate.clone();
            async move { gate.pass(1).await }
        }
    });
    let once = RetryPolicy {
        max_attempts: 1,
        ..hasty()
    };
    let serve = || {
        Serving::with(Arc::new(broker.clone()), router.clone(), |worker| {
            worker.retry(once)
        })
    };
    let client = Client::open(Arc::new(broker.clone())).await.unwrap();
    let asking = tokio::spawn(async move {
        let request = client.request("work", "work");
        request.timeout(Duration::from_secs(8)).await
    });

    // Its worker dies; so it is poison, which is kept and told to who waits.
    let first = serve();
    until(|| gate.begun() == 1).await;
    first.kill().await;
    let second = serve();
    let outcome = soon(asking).await.unwrap();
    assert_eq!(outcome.unwrap_err().code(), "too-many-attempts");
    let (position, mut letter) = letter(&broker).await;
    assert!(!letter.reply.is_empty());
    let meta = letter.parse_meta().unwrap();
    letter = letter.with_meta(&Meta {
        exp: Some(1),
        ..meta
    });

    gate.release(1);
    assert!(retry(&broker, position, &letter).await);
    until(|| gate.begun() == 2).await;
    second.stop().await.unwrap();
    assert_eq!(broker.stats(&topic("work:dlq")).await.unwrap().length, 0);
}
