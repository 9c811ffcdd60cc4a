//! Tests: what is known is the same after the directory was opened again.

use streamerson_core::{Append, Durability, Message, Position, Topic};

use super::{Direction, Engine};
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

async fn held(engine: &Engine, of: &str) -> Vec<String> {
    let last = Position::new(u64::MAX, u64::MAX);
    let of = topic(of);
    let range = engine.range(&of, Position::ZERO, last, 10_000, Direction::Forward);
    let bodies = range.await.unwrap().into_iter().map(|(_, body)| body);
    let texts = bodies.map(|body| {
        let data = body.into_message().unwrap().data;
        String::from_utf8(data.to_vec()).unwrap()
    });
    texts.collect()
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
