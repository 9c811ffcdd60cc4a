//! Commands that arrive together run together, and are answered in order.

use streamerson_core::Position;

use crate::server::Server;
use crate::wire::{Value, Wire, encode, fields, words};

fn append(data: &str) -> Vec<u8> {
    encode(&words(&format!("XADD shop:{{orders}} * {}", fields(data))))
}

const APPEND: &str = "XADD shop:{orders} * id i type t corr '' reply '' meta '' data a";

async fn commits(wire: &mut Wire) -> u64 {
    let info = wire.line("INFO stats").await;
    let mut lines = info.text().lines();
    let commits = lines.find_map(|line| line.strip_prefix("streamerson_commits:"));
    commits.expect("commits").parse().expect("a number")
}

#[tokio::test]
async fn pipelined_appends_share_a_commit() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let before = commits(&mut wire).await;
    let batch: Vec<u8> = (0..50).flat_map(|n| append(&n.to_string())).collect();
    wire.write(&batch).await;
    let mut last = Position::ZERO;
    for _ in 0..50 {
        let id = wire.receive().await.text().parse().expect("an id");
        assert!(id > last, "{id} comes after {last}");
        last = id;
    }
    // One, if all came with one read; the kernel may cut what is sent.
    let commits = commits(&mut wire).await - before;
    assert!(commits <= 5, "{commits} commits for one pipeline");
}

#[tokio::test]
async fn every_answer_of_a_pipeline_has_its_place() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let mut batch = Vec::new();
    batch.extend(append("a"));
    batch.extend(encode(&["XADD", "shop:{orders}", "*", "id", "only"]));
    batch.extend(append("b"));
    batch.extend(encode(&["XLEN", "shop:{orders}"]));
    batch.extend(b"PING inline\r\n");
    batch.extend(append("c"));
    batch.extend(encode(&["FOO"]));
    batch.extend(encode(&["XLEN", "shop:{orders}"]));
    batch.extend(encode(&["XREAD", "STREAMS", "shop:{orders}", "$"]));
    wire.write(&batch).await;
    assert!(matches!(wire.receive().await, Value::Bulk(_)));
    assert!(wire.receive().await.is_error());
    assert!(matches!(wire.receive().await, Value::Bulk(_)));
    assert_eq!(wire.receive().await, Value::Integer(2));
    assert_eq!(wire.receive().await, Value::Bulk("inline".into()));
    assert!(matches!(wire.receive().await, Value::Bulk(_)));
    assert!(wire.receive().await.is_error());
    assert_eq!(wire.receive().await, Value::Integer(3));
    assert_eq!(wire.receive().await, Value::NilList);
}

#[tokio::test]
async fn a_command_may_arrive_byte_by_byte() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    for byte in append("a") {
        wire.write(&[byte]).await;
    }
    assert!(matches!(wire.receive().await, Value::Bulk(_)));
}

#[tokio::test]
async fn what_was_answered_before_a_blocking_command_does_not_wait_with_it() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let mut batch = encode(&["PING"]);
    batch.extend(encode(&[
        "XREAD",
        "BLOCK",
        "0",
        "STREAMS",
        "shop:{orders}",
        "$",
    ]));
    batch.extend(encode(&["PING", "after"]));
    wire.write(&batch).await;
    assert_eq!(wire.receive().await, Value::Simple("PONG".into()));
    let mut other = server.connect().await;
    // Until the first sees one of them: it may begin to wait after the first append.
    let woken = {
        let woken = wire.receive();
        tokio::pin!(woken);
        loop {
            let id = tokio::select! {
                biased;
                woken = &mut woken => break woken.list(),
                id = other.line(APPEND) => id,
            };
            assert!(!id.is_error());
        }
    };
    assert_eq!(woken.len(), 1);
    assert_eq!(wire.receive().await, Value::Bulk("after".into()));
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let data = "x".repeat(5 << 20);
    let line = format!("XADD shop:{{orders}} 1-1 {}", fields(&data));
    assert_eq!(wire.line(&line).await, Value::Bulk("1-1".into()));
    let entries = wire.line("XRANGE shop:{orders} - +").await.list();
    let fields = entries[0].clone().list()[1].clone().list();
    assert_eq!(fields.last(), Some(&Value::Bulk(data)));
}
