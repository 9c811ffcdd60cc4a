//! Consumer groups: work sharing.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use streamerson_core::{Membership, Start};
use tokio::sync::Barrier;

use super::trial::{LAST, LONG, Trial, membership, numbered, text, texts};

/// Within a group every message is delivered once, to one of the members.
pub async fn each_message_goes_to_one_member(trial: Trial) {
    let topic = trial.topic();
    let (ada, bob) = (
        trial.join(&topic, "workers", "ada").await,
        trial.join(&topic, "workers", "bob").await,
    );
    let mut expected = numbered(100);
    let mut found = Vec::new();
    let mut members = [ada, bob];
    // One each in turn: a member that saw what the other has would repeat it.
    for (n, text) in expected.iter().enumerate() {
        trial.send(&topic, &[text]).await;
        let worker = &mut members[n % 2];
        let delivery = worker.one().await;
        assert_eq!(delivery.receipt.attempt(), 1);
        found.push(self::text(&delivery.message));
        worker.complete(delivery).await;
    }
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// Groups do not take anything from each other.
pub async fn every_group_gets_everything(trial: Trial) {
    let topic = trial.topic();
    let expected = numbered(20);
    let all: Vec<&str> = expected.iter().map(String::as_str).collect();
    trial.send(&topic, &all).await;
    for group in ["billing", "shipping"] {
        let mut worker = trial.join(&topic, group, "ada").await;
        let deliveries = worker.take(20).await;
        assert_eq!(texts(&deliveries), expected);
        for delivery in deliveries {
            assert_eq!(delivery.receipt.attempt(), 1);
            worker.complete(delivery).await;
        }
    }
}

/// A single member gets messages in the order of the topic, each at its position.
pub async fn deliveries_come_in_order(trial: Trial) {
    let topic = trial.topic();
    let expected = numbered(60);
    let mut positions = Vec::new();
    for text in &expected {
        positions.extend(trial.send(&topic, &[text]).await);
    }
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let deliveries = worker.take(60).await;
    assert_eq!(texts(&deliveries), expected);
    let found: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.receipt.position())
        .collect();
    assert_eq!(found, positions);
}

/// A member that waits on an empty topic is woken by a message.
pub async fn a_waiting_member_wakes(trial: Trial) {
    let topic = trial.topic();
    let mut worker = trial.join(&topic, "workers", "ada").await;
    for expected in ["first", "second"] {
        let delivery = {
            let mut waiting = pin!(worker.one());
            assert!(
                waiting.as_mut().now_or_never().is_none(),
                "there is nothing yet"
            );
            let batch = [expected];
            let send = trial.send(&topic, &batch);
            tokio::join!(waiting, send).0
        };
        assert_eq!(text(&delivery.message), expected);
        worker.complete(delivery).await;
    }
}

/// Any number of members may wait while others work and settle.
pub async fn waiting_members_do_not_hold_each_other_up(trial: Trial) {
    let idle: Vec<_> = (0..20).map(|_| trial.topic()).collect();
    let all_wait = Arc::new(Barrier::new(idle.len() + 1));
    let waiting: Vec<_> = idle
        .iter()
        .map(|topic| {
            let (trial, topic, all_wait) = (trial.clone(), topic.clone(), all_wait.clone());
            tokio::spawn(async move {
                let mut worker = trial.join(&topic, "workers", "ada").await;
                let delivery = {
                    let mut waiting = pin!(worker.one());
                    assert!(waiting.as_mut().now_or_never().is_none());
                    all_wait.wait().await;
                    waiting.await
                };
                let text = text(&delivery.message);
                worker.complete(delivery).await;
                text
            })
        })
        .collect();
    trial.within("waiting", all_wait.wait()).await;
    let busy = trial.topic();
    let mut worker = trial.join(&busy, "workers", "ada").await;
    for expected in numbered(10) {
        trial.send(&busy, &[&expected]).await;
        let delivery = worker.one().await;
        assert_eq!(text(&delivery.message), expected);
        worker.complete(delivery).await;
    }
    for topic in idle.iter().rev() {
        trial.send(topic, &[topic.as_str()]).await;
    }
    for (topic, text) in idle.iter().zip(join_all(waiting).await) {
        assert_eq!(text.expect("a member"), topic.as_str());
    }
}

/// `max` is a bound: what it cut off is for others, or for the next call.
pub async fn a_take_answers_no_more_than_asked(trial: Trial) {
    let topic = trial.topic();
    let expected = numbered(20);
    let all: Vec<&str> = expected.iter().map(String::as_str).collect();
    trial.send(&topic, &all).await;
    let mut ada = trial.join(&topic, "workers", "ada").await;
    // Asserts the bound.
    let first = ada.next(3).await;
    let mut bob = trial.join(&topic, "workers", "bob").await;
    let rest = bob.take(20 - first.len()).await;
    assert_eq!([texts(&first), texts(&rest)].concat(), expected);
}

/// A new group begins at the earliest message, with the next one, or after a position.
pub async fn a_new_group_starts_where_it_is_told(trial: Trial) {
    let topic = trial.topic();
    let positions = trial.send(&topic, &["a", "b"]).await;
    let starts = [
        ("earliest", Start::Earliest, vec!["a", "b", LAST]),
        ("latest", Start::Latest, vec![LAST]),
        ("after", Start::After(positions[0]), vec!["b", LAST]),
    ];
    let mut members = Vec::new();
    for (group, start, expected) in starts {
        let membership = Membership {
            start,
            ..membership(&topic, group, "ada", LONG)
        };
        members.push((trial.join_as(membership).await, expected));
    }
    trial.send(&topic, &[LAST]).await;
    for (mut worker, expected) in members {
        let deliveries = worker.take(expected.len()).await;
        assert_eq!(texts(&deliveries), expected);
    }
}

/// Joining a group that exists moves it neither back nor forth, whatever start it is given.
pub async fn an_existing_group_keeps_its_place(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["a", "b"]).await;
    let mut ada = trial.join(&topic, "workers", "ada").await;
    let delivery = ada.one().await;
    ada.complete(delivery).await;
    ada.leave().await;
    for (member, start, expected) in [("bob", Start::Latest, "b"), ("cyd", Start::Earliest, "c")] {
        let membership = Membership {
            start,
            ..membership(&topic, "workers", member, LONG)
        };
        let mut worker = trial.join_as(membership).await;
        if member == "cyd" {
            trial.send(&topic, &["c"]).await;
        }
        let delivery = worker.one().await;
        assert_eq!(text(&delivery.message), expected);
        assert_eq!(delivery.receipt.attempt(), 1);
        worker.complete(delivery).await;
    }
}

/// A wait that is given up, at any moment, loses no delivery and repeats none.
pub async fn a_cancelled_take_loses_nothing(trial: Trial) {
    let topic = trial.topic();
    let expected = numbered(200);
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let sender = {
        let (trial, topic, expected) = (trial.clone(), topic.clone(), expected.clone());
        tokio::spawn(async move {
            for text in expected {
                trial.send(&topic, &[&text]).await;
            }
        })
    };
    let mut found: Vec<String> = Vec::new();
    let mut round = 0;
    while found.len() < expected.len() {
        round += 1;
        let waits = Duration::from_micros(round * 97 % 3000);
        let at_once = worker.member.next(3).now_or_never();
        let soon = match at_once {
            None => tokio::time::timeout(waits, worker.member.next(3))
                .await
                .ok(),
            at_once => at_once,
        };
        let deliveries = match soon {
            Some(deliveries) => deliveries.expect("Member::next"),
            None => worker.next(3).await,
        };
        for delivery in deliveries {
            assert_eq!(delivery.receipt.attempt(), 1);
            found.push(text(&delivery.message));
        }
    }
    assert_eq!(found, expected);
    sender.await.expect("the sender");
}
