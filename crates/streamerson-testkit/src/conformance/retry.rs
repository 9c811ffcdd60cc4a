//! Retries: giving a delivery back, for later.

use std::pin::pin;
use std::time::{Duration, Instant};

use streamerson_core::{Receipt, Settlement};

use super::lease::{SLACK, settles_into_waiting};
use super::trial::{LAST, LONG, Trial, assert_fenced, text};

/// A retry is delivered again, to any member, once it is due and not before, though the lease may run out meanwhile; each
/// delivery counts.
pub async fn a_retry_comes_when_it_is_due_and_counts(trial: Trial) {
    let topic = trial.topic();
    let delay = trial.lease() * 5 / 2;
    trial.send(&topic, &["work"]).await;
    let mut ada = trial.join_briefly(&topic, "ada").await;
    let mut bob = trial.join_briefly(&topic, "bob").await;
    let first = ada.one().await;
    let asked = Instant::now();
    let retried = ada
        .settle_one(Settlement::retry(first.receipt, delay))
        .await;
    retried.expect("the holder may ask for a retry");
    let second = bob.one().await;
    assert!(
        asked.elapsed() + SLACK >= delay,
        "came after {:?}, before it was due after {delay:?}",
        asked.elapsed()
    );
    assert_eq!(second.receipt.attempt(), 2);
    assert_eq!(second.message, first.message);
    let retried = bob
        .settle_one(Settlement::retry(second.receipt, Duration::ZERO))
        .await;
    retried.expect("the holder may ask for a retry");
    assert_eq!(bob.one().await.receipt.attempt(), 3);
}

/// Without a delay it is for anyone at once, also for who waits already.
pub async fn a_retry_at_once_goes_to_any_member(trial: Trial) {
    for waits_already in [false, true] {
        let topic = trial.topic();
        trial.send(&topic, &["work"]).await;
        let mut ada = trial.join(&topic, "workers", "ada").await;
        let receipt = ada.one().await.receipt;
        let mut bob = trial.join(&topic, "workers", "bob").await;
        let again = {
            let mut taking = pin!(bob.one());
            if waits_already {
                settles_into_waiting(taking.as_mut()).await;
            }
            let retry = Settlement::retry(receipt, Duration::ZERO);
            let retried = ada.settle_one(retry).await;
            retried.expect("the holder may ask for a retry");
            taking.await
        };
        assert_eq!(text(&again.message), "work");
        assert_eq!(again.receipt.attempt(), 2);
    }
}

/// Who was replaced must not give away what another works on.
pub async fn a_retry_by_a_stale_holder_is_fenced(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["work"]).await;
    let mut ada = trial.join_briefly(&topic, "ada").await;
    let mut bob = trial.join_briefly(&topic, "bob").await;
    let stale = ada.one().await.receipt;
    let taken = bob.one().await;
    assert_fenced(
        &ada.settle_one(Settlement::retry(stale, Duration::ZERO))
            .await,
    );
    bob.complete(taken).await;
}

/// What is settled cannot be asked for again.
pub async fn a_retry_after_the_settlement_is_fenced(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["work"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let delivery = worker.one().await;
    let again = Receipt::new(delivery.receipt.position(), 1);
    worker.complete(delivery).await;
    assert_fenced(
        &worker
            .settle_one(Settlement::retry(again, Duration::ZERO))
            .await,
    );
    trial.send(&topic, &[LAST]).await;
    assert_eq!(text(&worker.one().await.message), LAST);
}

/// The new holder asks for a retry, then the stale one completes: that settlement is the first, and the retry is off.
pub async fn a_retry_that_was_settled_does_not_come(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["settled"]).await;
    let mut ada = trial.join_briefly(&topic, "ada").await;
    let mut bob = trial.join_briefly(&topic, "bob").await;
    let stale = ada.one().await;
    let taken = bob.one().await.receipt;
    trial.send(&topic, &["later"]).await;
    let later = bob.one().await;
    assert_eq!(text(&later.message), "later");
    let retries = bob.settle(vec![
        Settlement::retry(taken, trial.lease()),
        Settlement::retry(later.receipt, trial.lease() * 2),
    ]);
    for retried in retries.await {
        retried.expect("the holder may ask for a retry");
    }
    ada.complete(stale).await;
    // The later one was due last: with it, the other would have come.
    let next = bob.one().await;
    assert_eq!(text(&next.message), "later");
    bob.complete(next).await;
    trial.send(&topic, &[LAST]).await;
    assert_eq!(text(&bob.one().await.message), LAST);
}

/// A retry concerns one group: another may be through with the same message, or have it sooner or later.
pub async fn each_group_retries_for_itself(trial: Trial) {
    for delays in [[LONG, Duration::ZERO], [Duration::ZERO, LONG]] {
        let topic = trial.topic();
        trial.send(&topic, &["work"]).await;
        let mut groups = Vec::new();
        for (group, delay) in ["billing", "shipping"].into_iter().zip(delays) {
            let mut worker = trial.join(&topic, group, "ada").await;
            let receipt = worker.one().await.receipt;
            groups.push((worker, delay, Settlement::retry(receipt, delay)));
        }
        let mut workers = Vec::new();
        for (mut worker, delay, retry) in groups {
            let retried = worker.settle_one(retry).await;
            retried.expect("the holder may ask for a retry");
            workers.push((worker, delay));
        }
        // Who may have it at once first, so that the other sees what is left of its own.
        workers.sort_by_key(|(_, delay)| *delay);
        for (mut worker, delay) in workers {
            if delay == LONG {
                trial.send(&topic, &[LAST]).await;
                assert_eq!(text(&worker.one().await.message), LAST);
                let stats = trial.broker.stats(&topic).await.expect("stats");
                let pending: Vec<u64> = stats.groups.iter().map(|group| group.pending).collect();
                assert_eq!(
                    pending.iter().sum::<u64>(),
                    2,
                    "the retry that is not due, and {LAST}"
                );
            } else {
                let again = worker.one().await;
                assert_eq!(text(&again.message), "work");
                assert_eq!(again.receipt.attempt(), 2);
                worker.complete(again).await;
            }
        }
    }
}
