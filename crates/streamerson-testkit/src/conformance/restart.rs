//! What a broker that stores keeps over a restart of itself.
//!
//! [`before`] and [`after`] are two halves of one rule: whoever runs them ends the broker in between and starts it again.

use std::time::Duration;

use streamerson_core::{Member, Position, Settlement, Start, Topic};

use super::trial::{LAST, LONG, Trial, membership, numbered, text};

/// What [`after`] must find again.
#[derive(Debug)]
pub struct Kept {
    topic: Topic,
    output: Topic,
    texts: Vec<String>,
    positions: Vec<Position>,
    /// Which attempt the next delivery of what was held is.
    next_of_held: u32,
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
        Settlement::complete_with(receipt(), vec![super::trial::to(&output, "output")]),
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
}
