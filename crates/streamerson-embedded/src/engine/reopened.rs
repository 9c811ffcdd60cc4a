//! Tests: what is known is the same after the directory was opened again.

mod steps;

use std::fs;
use std::path::Path;

use streamerson_core::{
    Append, Durability, Message, Name, Position, Receipt, Settlement, Start, Topic,
};

use super::testing::held;
use super::{Body, Engine, GroupKey, NewEntry, Trim, Want};
use crate::Options;

/// A message of this size does not fit into a segment with another.
const LARGE: usize = 4 << 10;

fn options() -> Options {
    Options {
        durability: Durability::Os,
        segment_bytes: LARGE as u64,
        ..Options::default()
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name.to_owned()).unwrap()
}

fn name(name: &str) -> Name {
    Name::new(name.to_owned()).unwrap()
}

fn key() -> GroupKey {
    GroupKey {
        topic: topic("orders"),
        group: name("group"),
    }
}

fn open(dir: &Path) -> Engine {
    Engine::open(dir, &options()).unwrap()
}

fn message(to: &str, data: &str) -> Append {
    Append::new(topic(to), Message::new("test", data.to_owned()))
}

async fn send(engine: &Engine, append: Append) -> Position {
    engine
        .append_messages(vec![append])
        .await
        .remove(0)
        .unwrap()
}

/// The next segment begins.
async fn roll(engine: &Engine) {
    send(engine, message("passing", &"x".repeat(LARGE))).await;
}

/// The same, and nothing of `passing` is left in those before it.
async fn roll_and_trim(engine: &Engine) {
    roll(engine).await;
    let newest = Trim::Newest(1);
    engine.trim(&topic("passing"), newest).await.unwrap();
}

/// The file of a segment.
fn segment(dir: &Path, number: u64) -> std::path::PathBuf {
    dir.join(format!("{number:020}.log"))
}

/// Entries of an inbox do not count for their segment: nor do they when they go.
#[tokio::test]
async fn taking_out_of_an_inbox_leaves_the_segment_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        cache_bytes: 0,
        ..options()
    };
    let engine = Engine::open(dir.path(), &options).unwrap();
    send(&engine, message("orders", "kept")).await;
    let inbox = Topic::inbox("one").unwrap();
    let answer = Append::new(inbox.clone(), Message::new("test", "answer"));
    let at = send(&engine, answer).await;
    assert!(engine.take_out(&inbox, at, Vec::new()).await.unwrap());
    roll(&engine).await;
    assert_eq!(held(&engine, "orders").await, ["kept"]);
    drop(engine);
    let engine = Engine::open(dir.path(), &options).unwrap();
    assert_eq!(held(&engine, "orders").await, ["kept"]);
}

/// That it was gone once stands in a segment that stays; that it began again stood in one that went.
#[tokio::test]
async fn a_group_that_began_again_is_there_however_often_the_directory_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    // The first segment stays, because of this message.
    send(&engine, message("orders", "x")).await;
    engine.create_group(&key(), Start::Earliest).await.unwrap();
    assert!(engine.lose_group(&key()).await.unwrap());
    // In the second one it begins again, and the message is settled.
    send(&engine, message("passing", &"x".repeat(LARGE - 1000))).await;
    let resumed = engine.begin_group(&key(), Start::Earliest, false).await;
    assert!(resumed.unwrap());
    let ada = name("ada");
    let works = engine.take(&key(), &ada, Want::New, 9).await.unwrap();
    let done = Settlement::complete(Receipt::new(works[0].grant.position, 1));
    let settled = engine.settle(&key(), &ada, vec![done]).await.remove(0);
    settled.unwrap();
    roll_and_trim(&engine).await;
    roll(&engine).await;
    assert!(!segment(dir.path(), 2).exists());
    drop(engine);
    let engine = open(dir.path());
    roll(&engine).await;
    drop(engine);
    let engine = open(dir.path());
    assert!(engine.with_group(&key(), |_, _| ()).is_ok());
    let works = engine.take(&key(), &ada, Want::New, 9).await.unwrap();
    assert!(works.is_empty());
}

/// A topic without messages, whose last group is gone, is in no checkpoint.
#[tokio::test]
async fn a_removed_group_stays_removed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    // The first segment stays, because of this message.
    send(&engine, message("kept", "x")).await;
    engine.create_group(&key(), Start::Earliest).await.unwrap();
    // The second one says that the group is removed, and goes.
    roll(&engine).await;
    assert!(engine.remove_group(&key()).await.unwrap());
    roll_and_trim(&engine).await;
    assert!(engine.with_group(&key(), |_, _| ()).is_err());
    drop(engine);
    let engine = open(dir.path());
    assert!(engine.with_group(&key(), |_, _| ()).is_err());
}

/// It is in a checkpoint although there is nothing else in the topic.
#[tokio::test]
async fn a_group_that_was_lost_before_the_first_message_goes_on_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    engine.create_group(&key(), Start::Latest).await.unwrap();
    assert!(engine.lose_group(&key()).await.unwrap());
    for _ in 0..2 {
        roll_and_trim(&engine).await;
    }
    assert!(!segment(dir.path(), 1).exists());
    drop(engine);
    let engine = open(dir.path());
    send(&engine, message("orders", "x")).await;
    let resumed = engine.begin_group(&key(), Start::Latest, false).await;
    assert!(resumed.unwrap());
    let works = engine.take(&key(), &name("ada"), Want::New, 9).await;
    assert_eq!(works.unwrap().len(), 1);
}

/// What was delivered first is not in the log; what was settled is, and the move.
#[tokio::test]
async fn what_is_pending_when_a_group_is_moved_is_pending_after_a_restart() {
    let ada = name("ada");
    for ahead in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        let mut sent = Vec::new();
        for _ in 0..5 {
            sent.push(send(&engine, message("orders", "x")).await);
        }
        engine.create_group(&key(), Start::Earliest).await.unwrap();
        engine.take(&key(), &ada, Want::New, 4).await.unwrap();
        let done = Settlement::complete(Receipt::new(sent[1], 1));
        let settled = engine.settle(&key(), &ada, vec![done]).await.remove(0);
        settled.unwrap();
        let start = match ahead {
            true => Start::Latest,
            false => Start::After(sent[2]),
        };
        engine.seek_group(&key(), start).await.unwrap();
        let known = |engine: &Engine| {
            let known = engine.with_group(&key(), |group, _| {
                let pending: Vec<Position> = group.held().map(|(at, _)| at).collect();
                (pending, group.cursor())
            });
            known.unwrap()
        };
        let before = known(&engine);
        assert_eq!(before.0.len(), if ahead { 3 } else { 2 });
        drop(engine);
        assert_eq!(known(&open(dir.path())), before);
    }
}

/// Its positions may then begin anew, if their writer chooses them.
#[tokio::test]
async fn a_removed_topic_is_forgotten_with_the_last_segment_that_has_something_of_it() {
    let (orders, ada) = (topic("orders"), name("ada"));
    // Whether a checkpoint says that it begins again.
    for checkpoint in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        // This keeps the first segment.
        send(&engine, message("passing", "x")).await;
        send(&engine, message("orders", "old")).await;
        assert!(engine.remove_topic(&orders).await.unwrap());
        let is_known = |engine: &Engine| {
            let state = engine.inner.shared.state.lock();
            let orders = state.topic(&orders);
            orders.is_some_and(|orders| !orders.is_vacant())
        };
        roll(&engine).await;
        assert!(is_known(&engine));
        roll_and_trim(&engine).await;
        roll(&engine).await;
        assert!(!segment(dir.path(), 1).exists());
        assert!(!is_known(&engine));
        engine.create_group(&key(), Start::Earliest).await.unwrap();
        if checkpoint {
            roll(&engine).await;
        }
        let first = NewEntry {
            topic: orders.clone(),
            body: Body::Message(Message::new("test", "new")),
            position: Some(Position::new(1, 1)),
        };
        engine.append([first]).await.remove(0).unwrap();
        drop(engine);
        let engine = open(dir.path());
        assert_eq!(held(&engine, "orders").await, ["new"]);
        let works = engine.take(&key(), &ada, Want::New, 9).await.unwrap();
        assert_eq!(works.len(), 1);
    }
}

/// What waits for its time makes it a topic again, but no positions.
#[tokio::test]
async fn a_topic_that_was_forgotten_begins_again_with_what_waits_for_its_time() {
    let orders = topic("orders");
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    send(&engine, message("orders", "old")).await;
    assert!(engine.remove_topic(&orders).await.unwrap());
    // The checkpoint of the second segment still tells of it.
    roll(&engine).await;
    {
        let state = engine.inner.shared.state.lock();
        assert!(state.topic(&orders).unwrap().is_vacant());
    }
    send(&engine, message("orders", "later").due_at(u64::MAX / 2)).await;
    let chosen = NewEntry {
        topic: orders,
        body: Body::Message(Message::new("test", "new")),
        position: Some(Position::new(1, 1)),
    };
    engine.append([chosen]).await.remove(0).unwrap();
    drop(engine);

    let engine = open(dir.path());

    assert_eq!(held(&engine, "orders").await, ["new"]);
    let state = engine.inner.shared.state.lock();
    assert_eq!(state.topic(&topic("orders")).unwrap().scheduled, 1);
}

/// What says that they were taken out may be gone by then.
#[tokio::test]
async fn what_was_taken_out_does_not_come_back_with_a_file_that_stayed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let at = send(&engine, message("orders", "x")).await;
    let first = segment(dir.path(), 1);
    let stayed = fs::read(&first).unwrap();
    roll(&engine).await;
    let orders = topic("orders");
    assert!(engine.take_out(&orders, at, Vec::new()).await.unwrap());
    for _ in 0..3 {
        roll_and_trim(&engine).await;
    }
    drop(engine);
    assert!(!first.exists());
    fs::write(&first, stayed).unwrap();
    let engine = open(dir.path());
    let length = engine.with_topic(&topic("orders"), |view| view.length);
    assert_eq!(length, Some(0));
    assert!(!first.exists());
}
