//! For tests: what they have in common.

use streamerson_core::{Position, Topic};

use super::{Direction, Engine};

/// The texts of the messages that stand in topic `of`, in order.
pub(super) async fn held(engine: &Engine, of: &str) -> Vec<String> {
    let of = Topic::new(of.to_owned()).unwrap();
    let last = Position::new(u64::MAX, u64::MAX);
    let range = engine.range(&of, Position::ZERO, last, 10_000, Direction::Forward);
    let bodies = range.await.unwrap().into_iter().map(|(_, body)| body);
    let texts = bodies.map(|body| {
        let data = body.into_message().unwrap().data;
        String::from_utf8(data.to_vec()).unwrap()
    });
    texts.collect()
}
