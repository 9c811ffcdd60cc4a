//! Scheduled messages: kept aside until they are due.

use std::pin::pin;
use std::time::Duration;

use streamerson_core::time::unix_ms;
use streamerson_core::{Append, Position, Settlement, Topic};

use super::lease::{SLACK, settles_into_waiting};
use super::trial::{LAST, LONG, Trial, assert_fenced, forged, text, texts, to};

/// `text` to `topic`, due after `delay`; and when that is.
fn later(topic: &Topic, text: &str, delay: Duration) -> (Append, u64) {
    let due = unix_ms() + delay.as_millis() as u64;
    (to(topic, text).due_at(due), due)
}

#[track_caller]
fn assert_due(due: u64) {
    let early = due.saturating_sub(unix_ms());
    assert!(
        Duration::from_millis(early) <= SLACK,
        "came {early} ms before it was due"
    );
}

/// What is not due yet is not there; a member that waits already wakes for it, in the order in which it becomes due.
pub async fn a_scheduled_message_comes_when_it_is_due(trial: Trial) {
    let topic = trial.topic();
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let (second, second_due) = later(&topic, "second", trial.lease() * 2);
    let (first, first_due) = later(&topic, "first", trial.lease());
    let delivery = {
        let mut waiting = pin!(worker.one());
        settles_into_waiting(waiting.as_mut()).await;
        // The later one first: a wait until it is due would miss the other.
        let positions = trial.append(vec![second]).await;
        assert_eq!(positions, [Position::ZERO]);
        trial.append(vec![first]).await;
        let stats = trial.broker.stats(&topic).await.expect("stats");
        assert_eq!((stats.length, stats.scheduled), (0, 2));
        waiting.await
    };
    assert_due(first_due);
    assert_eq!(text(&delivery.message), "first");
    assert_eq!(delivery.receipt.attempt(), 1);
    assert!(delivery.receipt.position() > Position::ZERO);
    worker.complete(delivery).await;
    let delivery = worker.one().await;
    assert_due(second_due);
    assert_eq!(text(&delivery.message), "second");
    worker.complete(delivery).await;
    assert_eq!(trial.texts_of(&topic).await, ["first", "second"]);
}

/// What is due later holds nothing up.
pub async fn what_is_due_later_holds_nothing_up(trial: Trial) {
    let topic = trial.topic();
    let (far, _) = later(&topic, "far", LONG);
    let now = to(&topic, "now");
    let past = to(&topic, "past").due_at(unix_ms() - 1000);
    trial.append(vec![far, now]).await;
    trial.append(vec![past]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let mut found = texts(&worker.take(2).await);
    found.sort_unstable();
    assert_eq!(found, ["now", "past"]);
    trial.send(&topic, &[LAST]).await;
    assert_eq!(text(&worker.one().await.message), LAST);
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert_eq!((stats.length, stats.scheduled), (3, 1));
}

/// A settlement may schedule its outputs, in the same step: when it is fenced, it schedules nothing.
pub async fn outputs_may_be_scheduled(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    trial.send(&topic, &["work"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let receipt = worker.one().await.receipt;
    let again = forged(&receipt);
    let (output, due) = later(&next, "output", trial.lease());
    let settlement = Settlement::complete_with(receipt, vec![output.clone()]);
    let settled = worker.settle_one(settlement).await;
    settled.expect("the first settlement wins");
    let fenced = Settlement::complete_with(again, vec![output]);
    assert_fenced(&worker.settle_one(fenced).await);
    let mut bob = trial.join(&next, "workers", "bob").await;
    let delivery = bob.one().await;
    assert_due(due);
    assert_eq!(text(&delivery.message), "output");
    trial.send(&next, &[LAST]).await;
    assert_eq!(text(&bob.one().await.message), LAST);
}
