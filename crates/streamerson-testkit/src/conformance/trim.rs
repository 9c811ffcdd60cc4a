//! Trimming: what may go, and what goes only by force.

use std::time::Duration;

use streamerson_core::retention::{Retention, Trimmed};
use streamerson_core::{Position, Start, Topic};

use super::trial::{Trial, Worker, text};

const HOUR: Duration = Duration::from_secs(3600);

fn keep(max_len: u64) -> Retention {
    Retention {
        max_len: Some(max_len),
        ..Retention::default()
    }
}

fn force(retention: Retention) -> Retention {
    Retention {
        force: true,
        ..retention
    }
}

async fn trim(trial: &Trial, topic: &Topic, retention: Retention) -> Trimmed {
    let trimmed = trial
        .within("trim", trial.broker.trim(topic, retention))
        .await;
    trimmed.expect("trim")
}

#[track_caller]
fn assert_trimmed(trimmed: Trimmed, removed: u64, lost: u64) {
    assert_eq!(trimmed, Trimmed { removed, lost });
}

/// A topic of `count` messages, with a member of its group that has processed the first `done`.
async fn worked_on(trial: &Trial, count: u64, done: usize) -> (Topic, Vec<Position>, Worker) {
    let topic = trial.topic();
    let texts: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    let mut positions = Vec::new();
    for text in &texts {
        positions.extend(trial.send(&topic, &[text]).await);
    }
    let mut worker = trial.join(&topic, "workers", "ada").await;
    if done > 0 {
        for delivery in worker.take(done).await {
            worker.complete(delivery).await;
        }
    }
    (topic, positions, worker)
}

/// `max_len` keeps that many of the newest; with two limits the stricter one counts; with none all is kept.
pub async fn the_newest_are_kept(trial: Trial) {
    let (topic, positions, _worker) = worked_on(&trial, 10, 10).await;
    assert_trimmed(trim(&trial, &topic, Retention::default()).await, 0, 0);
    assert_trimmed(trim(&trial, &topic, keep(100)).await, 0, 0);
    assert_trimmed(trim(&trial, &topic, keep(4)).await, 6, 0);
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert_eq!((stats.length, stats.first), (4, Some(positions[6])));
    let both = Retention {
        max_age: Some(HOUR),
        ..keep(3)
    };
    assert_trimmed(trim(&trial, &topic, both).await, 1, 0);
    let mut reading = trial.read(&topic, Start::Earliest).await;
    assert_eq!(reading.texts(3).await, ["7", "8", "9"]);
}

/// `max_age` keeps what is younger.
pub async fn the_young_are_kept(trial: Trial) {
    let (topic, _, _worker) = worked_on(&trial, 5, 5).await;
    let young = Retention {
        max_age: Some(HOUR),
        ..Retention::default()
    };
    assert_trimmed(trim(&trial, &topic, young).await, 0, 0);
    let any_age = Retention {
        max_age: Some(Duration::from_millis(1)),
        ..Retention::default()
    };
    // They have to grow older by a millisecond or two first.
    let all_gone = async {
        let mut removed = 0;
        while removed < 5 {
            let trimmed = trim(&trial, &topic, any_age).await;
            assert_eq!(trimmed.lost, 0);
            removed += trimmed.removed;
            tokio::task::yield_now().await;
        }
        removed
    };
    assert_eq!(trial.within("growing old", all_gone).await, 5);
}

/// The slowest group counts: neither what it holds nor what it has not read goes.
pub async fn what_a_group_has_not_processed_is_kept(trial: Trial) {
    let (topic, positions, _fast) = worked_on(&trial, 10, 10).await;
    let mut slow = trial.join(&topic, "slow", "bob").await;
    assert_trimmed(trim(&trial, &topic, keep(0)).await, 0, 0);
    let mut held = slow.take(5).await;
    for done in [3, 1, 0] {
        slow.complete(held.remove(done)).await;
    }
    let old = Retention {
        max_age: Some(Duration::ZERO),
        ..keep(0)
    };
    assert_trimmed(trim(&trial, &topic, old).await, 2, 0);
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert_eq!(stats.first, Some(positions[2]));
    let rest = slow.take(5).await;
    assert_eq!(text(&rest[0].message), "5");
    for delivery in held.into_iter().chain(rest) {
        slow.complete(delivery).await;
    }
    assert_trimmed(trim(&trial, &topic, keep(0)).await, 8, 0);
}

/// What no group has read is unprocessed, also when there is no group yet: it goes only by force, and that is a loss.
pub async fn without_groups_nothing_goes(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["a", "b", "c"]).await;
    assert_trimmed(trim(&trial, &topic, keep(0)).await, 0, 0);
    assert_trimmed(trim(&trial, &topic, force(keep(1))).await, 2, 2);
    let mut reading = trial.read(&topic, Start::Earliest).await;
    assert_eq!(reading.texts(1).await, ["c"]);
}

/// Force removes what is pending and what is unread, says how much of it there was, and the group goes on behind it.
pub async fn force_says_what_is_lost(trial: Trial) {
    let (topic, positions, mut worker) = worked_on(&trial, 10, 4).await;
    let pending = worker.one().await;
    assert_eq!(pending.receipt.position(), positions[4]);
    assert_trimmed(trim(&trial, &topic, force(keep(3))).await, 7, 3);
    for expected in ["7", "8", "9"] {
        let delivery = worker.one().await;
        assert_eq!(text(&delivery.message), expected);
        worker.complete(delivery).await;
    }
    assert_trimmed(trim(&trial, &topic, force(keep(3))).await, 0, 0);
}

/// An emptied topic is still there; positions go on growing, and a reader of what is gone continues with what came after.
pub async fn a_trimmed_topic_goes_on(trial: Trial) {
    let (topic, positions, mut worker) = worked_on(&trial, 3, 3).await;
    assert_trimmed(trim(&trial, &topic, keep(0)).await, 3, 0);
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert_eq!((stats.length, stats.first), (0, None));
    assert_eq!(stats.last, Some(positions[2]));
    let next = trial.send(&topic, &["next"]).await;
    assert!(next[0] > positions[2]);
    let mut reading = trial.read(&topic, Start::After(positions[0])).await;
    assert_eq!(reading.texts(1).await, ["next"]);
    assert_eq!(text(&worker.one().await.message), "next");
}
