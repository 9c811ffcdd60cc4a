//! Answers are bounded, whatever is asked for.

use streamerson_core::{Append, Broker, Message, Topic};

use crate::server::Server;
use crate::wire::Value;

/// Many entries with next to nothing in them: what stands around it counts.
#[tokio::test]
async fn an_answer_of_many_small_entries_is_bounded() {
    let server = Server::start().await;
    let topic = Topic::new("a").unwrap();
    let mut message = Message::new("t", "");
    message.id = "".into();
    for _ in 0..300 {
        let batch = (0..1000).map(|_| Append::new(topic.clone(), message.clone()));
        for stored in server.broker.append(batch.collect()).await {
            stored.unwrap();
        }
    }
    let mut wire = server.connect().await;
    let all = wire.line("XRANGE shop:{a} - +").await;
    assert!(all.text().contains("larger than 64 MiB"));
    let part = wire.line("XREVRANGE shop:{a} + - COUNT 50000").await;
    assert_eq!(part.list().len(), 50_000);

    wire.line("XGROUP CREATE shop:{a} g 0").await;
    for read in [
        "XREAD STREAMS shop:{a} 0",
        "XREADGROUP GROUP g ada STREAMS shop:{a} >",
    ] {
        let entries = entries(wire.line(read).await);
        assert!((1..40_000).contains(&entries.len()), "{}", entries.len());
    }
}

/// Of the one stream that was read.
fn entries(answer: Value) -> Vec<Value> {
    answer.list().remove(0).list().remove(1).list()
}
