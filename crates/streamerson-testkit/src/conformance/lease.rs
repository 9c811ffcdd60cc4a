//! Leases: who holds a delivery, and until when.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use streamerson_core::{Settlement, Start};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::trial::{LAST, LONG, Trial, assert_fenced, membership, numbered, text, texts};

/// Clocks count whole milliseconds, and two of them are compared.
pub(super) const SLACK: Duration = Duration::from_millis(10);

/// Lets a wait begin in earnest. That it takes a moment cannot be observed; too short a one makes a rule milder, not wrong.
pub(super) async fn settles_into_waiting<T>(waiting: impl Future<Output = T>) {
    let came = tokio::time::timeout(Duration::from_millis(50), waiting).await;
    assert!(came.is_err(), "there is nothing yet");
}

/// A holder that gives no sign of life keeps its message for one lease; then another member gets it, counted as a
/// further attempt.
pub async fn a_silent_members_message_goes_to_another_after_the_lease(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["work"]).await;
    let mut ada = trial.join_briefly(&topic, "ada").await;
    let mut bob = trial.join_briefly(&topic, "bob").await;
    let asked = Instant::now();
    let held = ada.one().await;
    assert_eq!(held.receipt.attempt(), 1);
    let taken = bob.one().await;
    assert!(
        asked.elapsed() + SLACK >= trial.lease(),
        "taken over after {:?}, before the lease of {:?} had run out",
        asked.elapsed(),
        trial.lease()
    );
    assert_eq!(taken.receipt.attempt(), 2);
    assert_eq!(taken.receipt.position(), held.receipt.position());
    assert_eq!(taken.message, held.message);
    bob.complete(taken).await;
}

/// A holder that gives signs of life within the lease keeps its message for as long as it does.
pub async fn signs_of_life_keep_a_message(trial: Trial) {
    let mut lease = trial.lease();
    // On a busy machine a sign of life may itself come late; then nothing is proved, and more time is allowed.
    for _ in 0..5 {
        if signs_of_life_within(&trial, lease).await {
            return;
        }
        lease *= 2;
    }
    panic!("the machine is too busy to give signs of life within {lease:?}");
}

async fn signs_of_life_within(trial: &Trial, lease: Duration) -> bool {
    let topic = trial.topic();
    trial.send(&topic, &["work"]).await;
    let mut ada = trial
        .join_as(membership(&topic, "workers", "ada", lease))
        .await;
    let mut bob = trial
        .join_as(membership(&topic, "workers", "bob", lease))
        .await;
    let mut sign = Instant::now();
    let held = ada.one().await.receipt;
    let waiting = tokio::spawn(async move {
        let taken = bob.one().await;
        (taken, Instant::now())
    });
    let mut beat = tokio::time::interval(lease / 4);
    for _ in 0..12 {
        beat.tick().await;
        let now = Instant::now();
        ada.extend(&[held.position()]).await;
        if sign.elapsed() + SLACK >= lease {
            waiting.abort();
            return false;
        }
        sign = now;
    }
    let (taken, at) = waiting.await.expect("the other member");
    assert!(
        at + SLACK >= sign + lease,
        "taken over although its holder gave signs of life"
    );
    assert_eq!(taken.receipt.attempt(), 2);
    true
}

/// A sign of life of who was replaced changes nothing: the new holder holds.
pub async fn a_late_sign_of_life_takes_nothing_back(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["work"]).await;
    let mut ada = trial.join_briefly(&topic, "ada").await;
    let mut bob = trial.join_briefly(&topic, "bob").await;
    let stale = ada.one().await.receipt;
    let taken = bob.one().await.receipt;
    ada.extend(&[stale.position()]).await;
    // Only the holder may ask for a retry.
    assert_fenced(
        &ada.settle_one(Settlement::retry(stale, Duration::ZERO))
            .await,
    );
    let retried = bob
        .settle_one(Settlement::retry(taken, Duration::ZERO))
        .await;
    retried.expect("the new holder still holds it");
}

/// Many members may wait for the same silent one: each message goes to one of them.
pub async fn a_message_is_taken_over_by_one_member(trial: Trial) {
    const COUNT: usize = 20;
    let topic = trial.topic();
    let mut silent = trial.join_briefly(&topic, "silent").await;
    let expected = numbered(COUNT);
    let all: Vec<&str> = expected.iter().map(String::as_str).collect();
    trial.send(&topic, &all).await;
    let held = silent.take(COUNT).await;
    assert_eq!(texts(&held), expected);

    let won = watch::Sender::new(0);
    let mut takers = JoinSet::new();
    for member in ["ada", "bob", "cyd"] {
        let mut worker = trial.join_briefly(&topic, member).await;
        let won = won.clone();
        takers.spawn(async move {
            let mut seen = Vec::new();
            loop {
                for delivery in worker.next(3).await {
                    let text = text(&delivery.message);
                    let is_last = text == LAST;
                    seen.push((text, delivery.receipt.attempt()));
                    let settled = worker
                        .settle_one(Settlement::complete(delivery.receipt))
                        .await;
                    if is_last {
                        return seen;
                    }
                    won.send_modify(|won| *won += usize::from(settled.is_ok()));
                }
            }
        });
    }
    let mut all_won = won.subscribe();
    let all_won = all_won.wait_for(|won| *won >= COUNT);
    trial
        .within("takeover", all_won)
        .await
        .expect("the sender is here");
    let mut seen = Vec::new();
    while !takers.is_empty() {
        trial.send(&topic, &[LAST]).await;
        let taker = trial.within("the end", takers.join_next()).await;
        seen.extend(taker.expect("a taker").expect("a taker"));
    }
    assert_eq!(*won.borrow(), COUNT, "each message is settled once");
    seen.retain(|(text, _)| text != LAST);
    assert!(seen.iter().all(|(_, attempt)| *attempt > 1), "{seen:?}");
    let attempts: BTreeSet<_> = seen.iter().collect();
    assert_eq!(
        attempts.len(),
        seen.len(),
        "one attempt was given to two members: {seen:?}"
    );
}

/// Who leaves in good order makes nobody wait for the lease: not who joins later, and not who waits already.
pub async fn leaving_gives_back_at_once(trial: Trial) {
    for waits_already in [false, true] {
        let topic = trial.topic();
        trial.send(&topic, &["a", "b", "c"]).await;
        let mut ada = trial.join(&topic, "workers", "ada").await;
        let mut held = ada.take(3).await;
        ada.complete(held.remove(0)).await;
        let mut bob = trial.join(&topic, "workers", "bob").await;
        let given_back = {
            let mut taking = pin!(bob.take(2));
            if waits_already {
                settles_into_waiting(taking.as_mut()).await;
            }
            ada.leave().await;
            taking.await
        };
        assert_eq!(texts(&given_back), ["b", "c"]);
        assert!(
            given_back
                .iter()
                .all(|delivery| delivery.receipt.attempt() == 2)
        );
    }
}

/// A member that is dropped is one that crashed: at the latest after the lease others get what it held.
pub async fn a_dropped_member_gives_back(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["a", "b"]).await;
    let mut ada = trial.join_briefly(&topic, "ada").await;
    let held = ada.take(2).await;
    drop(ada);
    let mut bob = trial.join_briefly(&topic, "bob").await;
    let given_back = bob.take(2).await;
    assert_eq!(texts(&given_back), texts(&held));
    for delivery in given_back {
        assert_eq!(delivery.receipt.attempt(), 2);
        bob.complete(delivery).await;
    }
    assert_eq!(trial.texts_of(&topic).await, ["a", "b"]);
}

/// The old does not starve behind the new.
pub async fn what_was_given_up_comes_before_what_is_new(trial: Trial) {
    let topic = trial.topic();
    let mut ada = trial.join(&topic, "workers", "ada").await;
    trial.send(&topic, &["old"]).await;
    ada.one().await;
    ada.leave().await;
    trial.send(&topic, &["new"]).await;
    let starts_late = streamerson_core::Membership {
        start: Start::Latest,
        ..membership(&topic, "workers", "bob", LONG)
    };
    let mut bob = trial.join_as(starts_late).await;
    assert_eq!(text(&bob.one().await.message), "old");
    assert_eq!(text(&bob.one().await.message), "new");
}

/// What two holders in a row were lost with may be what they died of. So that it takes nothing else of the kind with it, a
/// member has one such message at a time: the next when this one is settled. What is new, and what was asked to be tried
/// again, comes as ever.
pub async fn what_was_lost_twice_comes_one_at_a_time(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["a", "b", "c"]).await;
    for (member, attempt) in [("ada", 1), ("bob", 2)] {
        let mut silent = trial.join_briefly(&topic, member).await;
        let held = silent.take(3).await;
        assert!(held.iter().all(|held| held.receipt.attempt() == attempt));
    }
    let mut cyd = trial.join_briefly(&topic, "cyd").await;
    let first = cyd.next(10).await;
    assert_eq!((texts(&first).len(), first[0].receipt.attempt()), (1, 3));
    cyd.extend(&[first[0].receipt.position()]).await;
    // Others may have another one at once.
    let mut dan = trial.join_briefly(&topic, "dan").await;
    let second = dan.next(10).await;
    assert_eq!((texts(&second).len(), second[0].receipt.attempt()), (1, 3));
    cyd.extend(&[first[0].receipt.position()]).await;

    trial.send(&topic, &["new"]).await;
    for attempt in 1..=4 {
        let mut new = cyd.next(10).await;
        assert_eq!(
            (texts(&new), new[0].receipt.attempt()),
            (vec!["new".to_owned()], attempt)
        );
        cyd.extend(&[first[0].receipt.position()]).await;
        let again = Settlement::retry(new.remove(0).receipt, Duration::ZERO);
        cyd.settle_one(again)
            .await
            .expect("its holder may ask for a retry");
    }
    let new = cyd.next(10).await;
    for delivery in first.into_iter().chain(new) {
        cyd.complete(delivery).await;
    }
    let third = cyd.next(10).await;
    let mut all = texts(&second);
    all.extend(texts(&third));
    assert_eq!((all.len(), third[0].receipt.attempt()), (2, 3));
}
