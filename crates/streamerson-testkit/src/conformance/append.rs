//! Appending.

use futures::FutureExt;
use futures::future::join_all;
use streamerson_core::{Position, Start};

use super::trial::{Trial, numbered, text, to, whole};

/// Positions are answered in the order of the batch, grow from batch to batch, and are where readers find the messages.
pub async fn positions_grow_in_the_order_of_the_batch(trial: Trial) {
    let topic = trial.topic();
    let mut answered = trial.send(&topic, &["a", "b", "c"]).await;
    answered.extend(trial.send(&topic, &["d", "e"]).await);
    assert!(answered.is_sorted_by(|a, b| a < b), "{answered:?}");
    assert!(answered[0] > Position::ZERO);

    let entries = trial.read(&topic, Start::Earliest).await.take(5).await;
    let found: Vec<Position> = entries.iter().map(|entry| entry.position).collect();
    assert_eq!(found, answered);
    let texts: Vec<String> = entries
        .into_iter()
        .map(|entry| text(&whole(entry)))
        .collect();
    assert_eq!(texts, ["a", "b", "c", "d", "e"]);
}

/// A batch may mix topics; its answers are in the order of the batch, and each topic keeps the order of its messages.
pub async fn a_batch_may_go_to_several_topics(trial: Trial) {
    let (one, two) = (trial.topic(), trial.topic());
    let batch = vec![to(&one, "1"), to(&two, "2"), to(&one, "3"), to(&two, "4")];
    let answered = trial.append(batch).await;
    for (topic, expected, at) in [(one, ["1", "3"], [0, 2]), (two, ["2", "4"], [1, 3])] {
        let entries = trial.read(&topic, Start::Earliest).await.take(2).await;
        for ((entry, expected), at) in entries.into_iter().zip(expected).zip(at) {
            assert_eq!(entry.position, answered[at]);
            assert_eq!(text(&whole(entry)), expected);
        }
    }
}

/// A large batch is stored whole and in order.
pub async fn a_batch_of_a_thousand_keeps_its_order(trial: Trial) {
    let topic = trial.topic();
    let expected = numbered(1000);
    let batch = expected.iter().map(|text| to(&topic, text)).collect();
    let answered = trial.append(batch).await;
    assert!(answered.is_sorted_by(|a, b| a < b));
    let mut reading = trial.read(&topic, Start::Earliest).await;
    assert_eq!(reading.texts(1000).await, expected);
}

/// Nothing to append is nothing to answer.
pub async fn an_empty_batch_is_answered_empty(trial: Trial) {
    assert_eq!(trial.append(Vec::new()).await, []);
}

/// Many callers at once: nothing is lost, nothing doubled, and each caller's messages keep their order.
pub async fn concurrent_appends_are_each_stored_once_and_in_order(trial: Trial) {
    const SENDERS: usize = 32;
    const EACH: usize = 25;
    let topic = trial.topic();
    let senders = (0..SENDERS).map(|sender| {
        let (trial, topic) = (trial.clone(), topic.clone());
        tokio::spawn(async move {
            let mut positions = Vec::new();
            for n in 0..EACH {
                positions.extend(trial.send(&topic, &[&format!("{sender} {n:03}")]).await);
            }
            positions
        })
    });
    let mut answered: Vec<Position> = Vec::new();
    for positions in join_all(senders).await {
        answered.extend(positions.expect("a sender"));
    }
    answered.sort_unstable();

    let mut reading = trial.read(&topic, Start::Earliest).await;
    let entries = reading.take(SENDERS * EACH).await;
    let found: Vec<Position> = entries.iter().map(|entry| entry.position).collect();
    assert_eq!(found, answered);
    let texts: Vec<String> = entries
        .into_iter()
        .map(|entry| text(&whole(entry)))
        .collect();
    for sender in 0..SENDERS {
        let prefix = format!("{sender} ");
        let own: Vec<&String> = texts
            .iter()
            .filter(|text| text.starts_with(&prefix))
            .collect();
        assert_eq!(own.len(), EACH);
        assert!(own.is_sorted_by(|a, b| a < b), "{own:?}");
    }
}

/// A caller that gives up in the middle takes nothing from the others; its own message is stored at most once.
pub async fn a_dropped_append_disturbs_no_other(trial: Trial) {
    let topic = trial.topic();
    for n in 0..50 {
        // Begun, and dropped unless it was done at once.
        let given_up = trial
            .broker
            .append(vec![to(&topic, &format!("given up {n}"))]);
        let _ = given_up.now_or_never();
        trial.send(&topic, &[&format!("kept {n:02}")]).await;
    }
    let mut texts = trial.texts_of(&topic).await;
    let kept: Vec<String> = texts
        .iter()
        .filter(|text| text.starts_with("kept"))
        .cloned()
        .collect();
    let expected: Vec<String> = (0..50).map(|n| format!("kept {n:02}")).collect();
    assert_eq!(kept, expected);
    let stored = texts.len();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), stored, "a message was stored twice");
}
