//! Answers are bounded, whatever is asked for.

use streamerson_core::{Append, Broker, Message, Topic};

use crate::server::Server;
use crate::wire::{Value, Wire};

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

/// 64 messages of 1 MiB, delivered to ada.
async fn delivered(server: &Server, wire: &mut Wire) -> Vec<String> {
    let topic = Topic::new("a").expect("valid");
    wire.line("XGROUP CREATE shop:{a} g 0 MKSTREAM").await;
    let mut ids = Vec::new();
    for _ in 0..64 {
        let message = Message::new("test", vec![b'x'; 1 << 20]);
        let append = vec![Append::new(topic.clone(), message)];
        ids.push(
            server
                .broker
                .append(append)
                .await
                .remove(0)
                .expect("stored"),
        );
    }
    for _ in 0..64 {
        wire.line("XREADGROUP GROUP g ada COUNT 1 STREAMS shop:{a} >")
            .await;
    }
    ids.iter().map(ToString::to_string).collect()
}

fn ids(entries: Vec<Value>) -> Vec<String> {
    let id = |entry: Value| entry.list()[0].text().to_owned();
    entries.into_iter().map(id).collect()
}

/// The attempts of what is pending, by member.
async fn pending(wire: &mut Wire, member: &str) -> Vec<Value> {
    let list = format!("XPENDING shop:{{a}} g - + 100 {member}");
    let rows = wire.line(&list).await.list().into_iter();
    rows.map(|row| row.list().remove(3)).collect()
}

/// And goes on after what was answered. What was not is not counted as delivered once more.
#[tokio::test]
async fn the_history_of_a_member_comes_in_parts() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let sent = delivered(&server, &mut wire).await;
    let (mut seen, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let read = format!("XREADGROUP GROUP g ada STREAMS shop:{{a}} {after}");
        let part = ids(entries(wire.line(&read).await));
        let Some(last) = part.last() else { break };
        assert!(part.len() <= 10, "{} entries of 1 MiB", part.len());
        after = last.clone();
        seen.extend(part);
    }
    assert_eq!(seen, sent);
    assert_eq!(pending(&mut wire, "ada").await, vec![Value::Integer(2); 64]);
}

#[tokio::test]
async fn a_claim_takes_over_no_more_than_it_answers() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let sent = delivered(&server, &mut wire).await;
    let claim = format!("XCLAIM shop:{{a}} g bob 0 {}", sent.join(" "));
    let claimed = ids(wire.line(&claim).await.list());
    assert!((1..=10).contains(&claimed.len()), "{}", claimed.len());
    assert_eq!(claimed, sent[..claimed.len()]);
    assert_eq!(pending(&mut wire, "bob").await.len(), claimed.len());
    let left = pending(&mut wire, "ada").await;
    assert!(left.iter().all(|attempt| *attempt == Value::Integer(1)));

    // Ids alone are small.
    let claim = format!("{claim} JUSTID");
    assert_eq!(wire.line(&claim).await.list().len(), 64);
}

#[tokio::test]
async fn a_search_for_what_is_idle_comes_in_parts() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let sent = delivered(&server, &mut wire).await;
    let (mut seen, mut from) = (Vec::new(), "0-0".to_owned());
    while seen.is_empty() || from != "0-0" {
        let search = format!("XAUTOCLAIM shop:{{a}} g bob 0 {from} COUNT 100");
        let found = wire.line(&search).await.list();
        let part = ids(found[1].clone().list());
        assert!(part.len() <= 10, "{} entries of 1 MiB", part.len());
        from = found[0].text().to_owned();
        seen.extend(part);
    }
    assert_eq!(seen, sent);
    assert_eq!(pending(&mut wire, "bob").await, vec![Value::Integer(2); 64]);
}

/// Of the one stream that was read.
fn entries(answer: Value) -> Vec<Value> {
    answer.list().remove(0).list().remove(1).list()
}
