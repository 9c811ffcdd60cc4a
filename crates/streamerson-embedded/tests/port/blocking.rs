//! Commands that wait for news.

use std::time::{Duration, Instant};

use crate::server::Server;
use crate::wire::{Value, Wire, fields};

async fn append(wire: &mut Wire, topic: &str, data: &str) {
    let id = wire
        .line(&format!("XADD shop:{{{topic}}} * {}", fields(data)))
        .await;
    assert!(!id.is_error(), "{id:?}");
}

/// Appends until `wire` has its answer: when a blocked command begins to wait cannot be seen from outside.
async fn append_until_answered(server: &Server, topic: &str, wire: &mut Wire) -> Value {
    let mut other = server.connect().await;
    let answer = wire.receive();
    tokio::pin!(answer);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = append(&mut other, topic, "news") => {}
        }
    }
}

#[tokio::test]
async fn any_of_several_streams_wakes_a_reader() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    wire.send(&[
        "XREAD", "BLOCK", "0", "STREAMS", "shop:{a}", "shop:{b}", "$", "$",
    ])
    .await;
    let found = append_until_answered(&server, "b", &mut wire).await.list();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].clone().list()[0], Value::Bulk("shop:{b}".into()));
}

#[tokio::test]
async fn a_member_waits_for_new_entries() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    wire.line("XGROUP CREATE shop:{a} g 0 MKSTREAM").await;
    wire.send(&[
        "XREADGROUP",
        "GROUP",
        "g",
        "ada",
        "BLOCK",
        "0",
        "STREAMS",
        "shop:{a}",
        ">",
    ])
    .await;
    let found = append_until_answered(&server, "a", &mut wire).await.list();
    let entries = found[0].clone().list()[1].clone().list();
    assert!(!entries.is_empty());
}

#[tokio::test]
async fn patience_ends() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let since = Instant::now();
    let answer = wire.line("XREAD BLOCK 30 STREAMS shop:{a} $").await;
    assert_eq!(answer, Value::NilList);
    assert!(since.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn the_longest_patience_is_no_danger() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    wire.send(&[
        "XREAD",
        "BLOCK",
        "9223372036854775807",
        "STREAMS",
        "shop:{a}",
        "$",
    ])
    .await;
    append_until_answered(&server, "a", &mut wire).await.list();
}

#[tokio::test]
async fn a_group_that_is_destroyed_is_told_to_who_waits() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    wire.line("XGROUP CREATE shop:{a} g $ MKSTREAM").await;
    wire.send(&[
        "XREADGROUP",
        "GROUP",
        "g",
        "ada",
        "BLOCK",
        "0",
        "STREAMS",
        "shop:{a}",
        ">",
    ])
    .await;
    let mut other = server.connect().await;
    other.line("XGROUP DESTROY shop:{a} g").await;
    let answer = append_until_answered(&server, "a", &mut wire).await;
    assert!(answer.text().starts_with("NOGROUP "), "{answer:?}");
}

#[tokio::test]
async fn each_entry_goes_to_one_of_the_members_that_wait() {
    let server = Server::start().await;
    let mut other = server.connect().await;
    other.line("XGROUP CREATE shop:{a} g 0 MKSTREAM").await;
    let mut members = Vec::new();
    for member in ["ada", "bob", "cyd"] {
        let mut wire = server.connect().await;
        wire.send(&[
            "XREADGROUP",
            "GROUP",
            "g",
            member,
            "COUNT",
            "1",
            "BLOCK",
            "0",
            "STREAMS",
            "shop:{a}",
            ">",
        ])
        .await;
        members.push(wire);
    }
    let mut ids = Vec::new();
    for _ in 0..3 {
        append(&mut other, "a", "news").await;
    }
    for mut wire in members {
        let found = wire.receive().await.list();
        let entries = found[0].clone().list()[1].clone().list();
        ids.push(entries[0].clone().list()[0].text().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn waiting_can_be_ended_by_another_client() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let Value::Integer(id) = wire.line("CLIENT ID").await else {
        panic!("no number");
    };
    let mut other = server.connect().await;
    let unblock = format!("CLIENT UNBLOCK {id}");
    assert_eq!(other.line(&unblock).await, Value::Integer(0));
    for reason in ["", " TIMEOUT"] {
        wire.send(&["XREAD", "BLOCK", "0", "STREAMS", "shop:{a}", "$"])
            .await;
        let answer = wire.receive();
        tokio::pin!(answer);
        // When it begins to wait cannot be seen from outside.
        while other.line(&format!("{unblock}{reason}")).await == Value::Integer(0) {}
        assert_eq!(answer.await, Value::NilList);
    }
    let refused = other.line(&format!("{unblock} ERROR")).await;
    assert!(refused.is_error());
    assert_eq!(other.line("CLIENT UNBLOCK 999").await, Value::Integer(0));
}
