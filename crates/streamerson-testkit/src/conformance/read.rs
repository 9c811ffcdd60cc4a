//! Reading: fan-out.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use streamerson_core::{Position, Start};
use tokio::sync::Barrier;

use super::trial::{Trial, numbered, text, whole};

/// A reader from the earliest message sees what was there before it, then what comes.
pub async fn earliest_sees_everything_there_is(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["a", "b"]).await;
    let mut reading = trial.read(&topic, Start::Earliest).await;
    assert_eq!(reading.texts(2).await, ["a", "b"]);
    trial.send(&topic, &["c"]).await;
    assert_eq!(reading.texts(1).await, ["c"]);
}

/// "From then on" is from the opening of the reader, not from its first wait.
pub async fn latest_sees_what_is_appended_from_then_on(trial: Trial) {
    let (topic, unborn) = (trial.topic(), trial.topic());
    trial.send(&topic, &["old", "older"]).await;
    for topic in [topic, unborn] {
        let mut reading = trial.read(&topic, Start::Latest).await;
        trial.send(&topic, &["a", "b"]).await;
        assert_eq!(reading.texts(1).await, ["a"]);
        trial.send(&topic, &["c"]).await;
        assert_eq!(reading.texts(2).await, ["b", "c"]);
    }
}

/// A reader after a position sees the next message first, also when the position is one that no message has.
pub async fn after_a_position_continues_behind_it(trial: Trial) {
    let topic = trial.topic();
    let positions = trial.send(&topic, &["a", "b", "c"]).await;
    let mut reading = trial.read(&topic, Start::After(positions[0])).await;
    assert_eq!(reading.texts(2).await, ["b", "c"]);
    let mut at_end = trial.read(&topic, Start::After(positions[2])).await;
    trial.send(&topic, &["d"]).await;
    assert_eq!(at_end.texts(1).await, ["d"]);
    let before = Position::new(positions[0].major() - 1, u64::MAX);
    let mut from_before = trial.read(&topic, Start::After(before)).await;
    assert_eq!(from_before.texts(4).await, ["a", "b", "c", "d"]);
}

/// Readers do not take anything from each other, nor from groups.
pub async fn every_reader_sees_everything(trial: Trial) {
    let topic = trial.topic();
    let mut early = trial.read(&topic, Start::Earliest).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let expected = numbered(50);
    for text in &expected {
        trial.send(&topic, &[text]).await;
    }
    for delivery in worker.take(50).await {
        worker.complete(delivery).await;
    }
    let mut late = trial.read(&topic, Start::Earliest).await;
    assert_eq!(early.texts(50).await, expected);
    assert_eq!(late.texts(50).await, expected);
}

/// A reader that waits for the first message of a topic is woken by it.
pub async fn a_waiting_reader_wakes(trial: Trial) {
    let topic = trial.topic();
    let mut reading = trial.read(&topic, Start::Earliest).await;
    for text in ["first", "second"] {
        let mut waiting = pin!(reading.texts(1));
        assert_eq!(
            waiting.as_mut().now_or_never(),
            None,
            "there is nothing yet"
        );
        let batch = [text];
        let send = trial.send(&topic, &batch);
        let (texts, _) = tokio::join!(waiting, send);
        assert_eq!(texts, [text]);
    }
}

/// Any number of readers may wait while others read and append.
pub async fn waiting_readers_do_not_hold_each_other_up(trial: Trial) {
    let idle: Vec<_> = (0..20).map(|_| trial.topic()).collect();
    let all_wait = Arc::new(Barrier::new(idle.len() + 1));
    let waiting: Vec<_> = idle
        .iter()
        .map(|topic| {
            let (trial, topic, all_wait) = (trial.clone(), topic.clone(), all_wait.clone());
            tokio::spawn(async move {
                let mut reading = trial.read(&topic, Start::Earliest).await;
                let mut waiting = pin!(reading.texts(1));
                assert_eq!(waiting.as_mut().now_or_never(), None);
                all_wait.wait().await;
                waiting.await
            })
        })
        .collect();
    trial.within("waiting", all_wait.wait()).await;
    let busy = trial.topic();
    let mut reading = trial.read(&busy, Start::Earliest).await;
    for text in numbered(10) {
        trial.send(&busy, &[&text]).await;
        assert_eq!(reading.texts(1).await, [text]);
    }
    for topic in idle.iter().rev() {
        trial.send(topic, &[topic.as_str()]).await;
    }
    for (topic, texts) in idle.iter().zip(join_all(waiting).await) {
        assert_eq!(texts.expect("a reader"), [topic.as_str()]);
    }
}

/// `max` is a bound, and what it cut off comes with the next calls.
pub async fn a_read_answers_no_more_than_asked(trial: Trial) {
    let topic = trial.topic();
    let expected = numbered(20);
    let texts: Vec<&str> = expected.iter().map(String::as_str).collect();
    trial.send(&topic, &texts).await;
    let mut reading = trial.read(&topic, Start::Earliest).await;
    let mut found = Vec::new();
    while found.len() < expected.len() {
        // Asserts the bound.
        found.extend(
            reading
                .next(3)
                .await
                .into_iter()
                .map(|entry| text(&whole(entry))),
        );
    }
    assert_eq!(found, expected);
}

/// A range answers what there is, page by page, and does not wait for more.
pub async fn a_range_ends_where_the_topic_does(trial: Trial) {
    let topic = trial.topic();
    let range = async |after, max| {
        let range = trial.broker.range(&topic, after, max);
        trial.within("range", range).await.expect("range")
    };
    assert_eq!(range(Position::ZERO, 9).await, []);
    let positions = trial.send(&topic, &["a", "b", "c"]).await;
    let (first, rest) = (range(Position::ZERO, 2).await, range(positions[1], 9).await);
    let found: Vec<_> = first
        .into_iter()
        .chain(rest)
        .map(|entry| (entry.position, text(&whole(entry))))
        .collect();
    let sent = ["a", "b", "c"].map(str::to_owned);
    assert_eq!(
        found,
        positions.iter().copied().zip(sent).collect::<Vec<_>>()
    );
    assert_eq!(range(positions[2], 9).await, []);
    assert_eq!(range(Position::ZERO, 0).await, []);
}

/// A wait that is given up, at any moment, loses no entry and repeats none.
pub async fn a_cancelled_read_loses_nothing(trial: Trial) {
    let topic = trial.topic();
    let expected = numbered(200);
    let mut reading = trial.read(&topic, Start::Earliest).await;
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
        let at_once = reading.reader.next(3).now_or_never();
        let soon = match at_once {
            None => tokio::time::timeout(waits, reading.reader.next(3))
                .await
                .ok(),
            at_once => at_once,
        };
        let entries = match soon {
            Some(entries) => entries.expect("Reader::next"),
            // A reader that begins anew after each cancellation gets its chance too.
            None => reading.next(3).await,
        };
        found.extend(entries.into_iter().map(|entry| text(&whole(entry))));
    }
    assert_eq!(found, expected);
    sender.await.expect("the sender");
}
