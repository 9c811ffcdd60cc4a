//! What a broker that stores keeps over a restart of itself.
//!
//! [`before`] and [`after`] are two halves of one rule: whoever runs them ends the broker in between and starts it again.

use std::time::Duration;

use streamerson_core::time::unix_ms;
use streamerson_core::{Append, Member, Once, Position, Settlement, Start, Topic};

use super::trial::{LAST, LONG, Trial, Worker, membership, name, numbered, text, to};

/// What [`after`] must find again.
#[derive(Debug)]
pub struct Kept {
    topic: Topic,
    output: Topic,
    texts: Vec<String>,
    positions: Vec<Position>,
    /// Which attempt the next delivery of what was held is.
    next_of_held: u32,
    promises: Promises,
}

/// What was promised beside that.
#[derive(Debug)]
struct Promises {
    topic: Topic,
    effects: Topic,
    stored_once: Position,
    epoch: u64,
}

/// Leaves behind messages, a group that is halfway, and of what it was given: one settled with an output, one given back
/// for now, one for much later, and one held by the member answered: drop it before the end, or crash under it.
pub async fn before(trial: &Trial) -> (Kept, Box<dyn Member>) {
    let (topic, output) = (trial.topic(), trial.topic());
    let texts = numbered(10);
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let positions = trial.send(&topic, &all).await;
    let mut worker = trial.join_briefly(&topic, "before").await;
    let mut held = worker.take(4).await;
    let mut receipt = || held.remove(0).receipt;
    let batch = vec![
        Settlement::complete_with(receipt(), vec![to(&output, "output")]),
        Settlement::retry(receipt(), Duration::ZERO),
        Settlement::retry(receipt(), LONG),
    ];
    for settled in worker.settle(batch).await {
        settled.expect("settle");
    }
    let kept = Kept {
        topic,
        output,
        texts,
        positions,
        next_of_held: 2,
        promises: promise(trial).await,
    };
    (kept, worker.member)
}

/// Finds it all again: nothing lost, nothing settled twice, what is due delivered with its attempts counted, what is not
/// due still held back.
pub async fn after(trial: &Trial, kept: Kept) {
    let mut reading = trial.read(&kept.topic, Start::Earliest).await;
    let entries = reading.take(10).await;
    let positions: Vec<Position> = entries.iter().map(|entry| entry.position).collect();
    assert_eq!(positions, kept.positions);
    assert_eq!(trial.texts_of(&kept.output).await, ["output"]);

    let next = trial.send(&kept.topic, &[LAST]).await;
    assert!(
        next.first() > kept.positions.last(),
        "positions go on growing"
    );
    let mut worker = trial
        .join_as(membership(&kept.topic, "workers", "after", trial.lease()))
        .await;
    let mut found = Vec::new();
    // Given back, held until the lease ran out, and everything that was not delivered before.
    for _ in 0..9 {
        let delivery = worker.one().await;
        found.push((text(&delivery.message), delivery.receipt.attempt()));
        worker.complete(delivery).await;
    }
    found.sort_unstable();
    let mut expected = vec![
        (kept.texts[1].clone(), 2),
        (kept.texts[3].clone(), kept.next_of_held),
    ];
    expected.extend(kept.texts[4..].iter().map(|text| (text.clone(), 1)));
    expected.push((LAST.to_owned(), 1));
    expected.sort_unstable();
    assert_eq!(found, expected);
    let stats = trial.broker.stats(&kept.topic).await.expect("stats");
    let group = &stats.groups[0];
    assert_eq!(group.pending, 1, "the retry that is not due");
    assert_eq!(group.oldest_pending, Some(kept.positions[2]));
    find_kept(trial, kept.promises).await;
}

fn stored_once(topic: &Topic) -> Append {
    to(topic, "once").once(Once::new("a", LONG))
}

async fn effect(trial: &Trial, worker: &mut Worker, topic: &Topic, effects: &Topic) {
    trial.send(topic, &["effect"]).await;
    let receipt = worker.one().await.receipt;
    let settlement = Settlement::complete_with(receipt, vec![to(effects, "effect")]);
    let settled = worker.settle_one(settlement.once(Once::new("order", LONG)));
    settled.await.expect("settled");
}

/// A topic that is divided, with a message stored once, an effect that has happened, a lease, and two scheduled messages: one
/// due soon, the other much later.
async fn promise(trial: &Trial) -> Promises {
    let (topic, effects) = (trial.topic(), trial.topic());
    let mut worker = trial.join(&topic, "workers", "before").await;
    effect(trial, &mut worker, &topic, &effects).await;
    let stored_once = trial.append(vec![stored_once(&topic)]).await[0];
    let delivery = worker.one().await;
    worker.complete(delivery).await;
    let due = |delay: Duration| unix_ms() + delay.as_millis() as u64;
    let soon = to(&topic, "soon").due_at(due(trial.lease()));
    let late = to(&topic, "late").due_at(due(LONG));
    trial.append(vec![soon, late]).await;
    trial.broker.divide(&topic, 4).await.expect("divide");
    let (seat, ada) = (name("seat"), name("ada"));
    let lease = trial.broker.acquire(&topic, &seat, &ada, LONG).await;
    let epoch = lease.expect("acquire").epoch;
    Promises {
        topic,
        effects,
        stored_once,
        epoch,
    }
}

/// Nothing is stored, and nothing has an effect, a second time; what is due comes once; no epoch comes again.
async fn find_kept(trial: &Trial, promises: Promises) {
    let Promises {
        topic,
        effects,
        epoch,
        ..
    } = promises;
    let again = trial.append(vec![stored_once(&topic)]).await[0];
    assert_eq!(again, promises.stored_once);
    let mut worker = trial.join(&topic, "workers", "after").await;
    let soon = worker.one().await;
    assert_eq!(
        (text(&soon.message), soon.receipt.attempt()),
        ("soon".into(), 1)
    );
    worker.complete(soon).await;
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert_eq!(stats.scheduled, 1, "what is due later");
    effect(trial, &mut worker, &topic, &effects).await;
    assert_eq!(trial.texts_of(&effects).await, ["effect"]);
    let expected = ["effect", "once", "soon", "effect"];
    assert_eq!(trial.texts_of(&topic).await, expected);

    let partitions = trial.broker.partitions(&topic).await;
    assert_eq!(partitions.expect("partitions"), 4);
    let (seat, broker) = (name("seat"), &trial.broker);
    // It may have outlived the broker, or not.
    let released = broker.release(&topic, &seat, &name("ada")).await;
    released.expect("release");
    let lease = broker.acquire(&topic, &seat, &name("bob"), LONG).await;
    let lease = lease.expect("acquire");
    assert_eq!(lease.holder, name("bob"));
    assert!(lease.epoch > epoch, "{} after {epoch}", lease.epoch);
}
