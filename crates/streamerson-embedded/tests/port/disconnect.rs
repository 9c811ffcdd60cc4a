//! When a connection ends, what was delivered over it goes to others, and nothing else does.

use std::time::Duration;

use streamerson_core::{Broker, Membership, Name, Topic};

use crate::server::Server;
use crate::wire::{Value, Wire, encode, fields, words};

const PATIENCE: Duration = Duration::from_secs(20);
const CLAIM: &str = "-- streamerson:claim:3";

async fn topic_with(server: &Server, count: usize) -> Wire {
    let mut wire = server.connect().await;
    wire.line("XGROUP CREATE shop:{a} g 0 MKSTREAM").await;
    let append = |n| format!("XADD shop:{{a}} {n}-1 {}", fields("x"));
    let batch = (1..=count).flat_map(|n| encode(&words(&append(n))));
    wire.write(&batch.collect::<Vec<u8>>()).await;
    for _ in 0..count {
        let id = wire.receive().await;
        assert!(!id.is_error(), "{id:?}");
    }
    wire
}

async fn read(wire: &mut Wire, member: &str, count: usize) -> Vec<Value> {
    let line = format!("XREADGROUP GROUP g {member} COUNT {count} STREAMS shop:{{a}} >");
    match wire.line(&line).await {
        Value::List(found) => found[0].clone().list()[1].clone().list(),
        _ => Vec::new(),
    }
}

/// A member in the broker's own process, whose lease is so long that it only gets what was given back.
async fn next(server: &Server, max: usize) -> Vec<String> {
    let topic = Topic::new("a").expect("valid");
    let (group, member) = (
        Name::new("g").expect("valid"),
        Name::new("local").expect("valid"),
    );
    let membership = Membership {
        lease: Duration::from_secs(3600),
        ..Membership::new(topic, group, member)
    };
    let mut member = server.broker.join(membership).await.expect("a member");
    let deliveries = tokio::time::timeout(PATIENCE, member.next(max)).await;
    let deliveries = deliveries
        .expect("deliveries were not released")
        .expect("deliveries");
    let settler = member.settler();
    let mut ids = Vec::new();
    for delivery in deliveries {
        let position = delivery.receipt.position().to_string();
        ids.push(format!("{position} attempt {}", delivery.receipt.attempt()));
        let done = streamerson_core::Settlement::complete(delivery.receipt);
        settler
            .settle(vec![done])
            .await
            .remove(0)
            .expect("the first settlement");
    }
    ids
}

#[tokio::test]
async fn deliveries_go_to_others_at_once() {
    let server = Server::start().await;
    let _other = topic_with(&server, 2).await;
    let mut wire = server.connect().await;
    assert_eq!(read(&mut wire, "ada", 10).await.len(), 2);
    drop(wire);
    assert_eq!(next(&server, 10).await, ["1-1 attempt 2", "2-1 attempt 2"]);
}

#[tokio::test]
async fn a_blocked_reader_that_hangs_up_is_noticed() {
    let server = Server::start().await;
    let _other = topic_with(&server, 1).await;
    let mut wire = server.connect().await;
    assert_eq!(read(&mut wire, "ada", 10).await.len(), 1);
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
    drop(wire);
    assert_eq!(next(&server, 10).await, ["1-1 attempt 2"]);
}

#[tokio::test]
async fn what_was_settled_or_claimed_meanwhile_stays_as_it_is() {
    let server = Server::start().await;
    let mut other = topic_with(&server, 3).await;
    let mut wire = server.connect().await;
    assert_eq!(read(&mut wire, "ada", 10).await.len(), 3);
    assert_eq!(other.line("XACK shop:{a} g 1-1").await, Value::Integer(1));
    let claimed = other.line("XCLAIM shop:{a} g bob 0 2-1").await;
    assert_eq!(claimed.list().len(), 1);
    drop(wire);
    assert_eq!(next(&server, 10).await, ["3-1 attempt 2"]);
    let pending = other.line("XPENDING shop:{a} g - + 10").await.list();
    let row = pending[0].clone().list();
    assert_eq!((row[0].text(), row[1].text()), ("2-1", "bob"));
}

#[tokio::test]
async fn the_same_member_over_another_connection_keeps_its_own() {
    let server = Server::start().await;
    let mut other = topic_with(&server, 2).await;
    let mut wire = server.connect().await;
    assert_eq!(read(&mut wire, "ada", 1).await.len(), 1);
    assert_eq!(read(&mut other, "ada", 1).await.len(), 1);
    drop(wire);
    assert_eq!(next(&server, 10).await, ["1-1 attempt 2"]);
    // And it may go on with what is left, over the connection that is left.
    assert_eq!(other.line("XACK shop:{a} g 2-1").await, Value::Integer(1));
}

#[tokio::test]
async fn a_member_that_is_gone_is_forgotten() {
    let server = Server::start().await;
    let mut other = topic_with(&server, 1).await;
    let mut wire = server.connect().await;
    assert_eq!(read(&mut wire, "ada", 1).await.len(), 1);
    drop(wire);
    assert_eq!(next(&server, 10).await, ["1-1 attempt 2"]);
    let members = other.line("XINFO CONSUMERS shop:{a} g").await.list();
    assert!(members.is_empty(), "{members:?}");
}

#[tokio::test]
async fn more_deliveries_than_one_looks_through_are_released() {
    const MANY: usize = 3000;
    let server = Server::start().await;
    let mut other = topic_with(&server, MANY).await;
    let mut wire = server.connect().await;
    let mut count = 0;
    while count < MANY {
        let entries = read(&mut wire, "ada", 500).await;
        count += entries.len();
        // Settled over another connection, as our own client does: the first forgets them when it looks.
        let done = entries[0].clone().list()[0].text().to_owned();
        assert_eq!(
            other.call(&["XACK", "shop:{a}", "g", &done]).await,
            Value::Integer(1)
        );
    }
    let pending = other.line("XPENDING shop:{a} g").await.list();
    let Value::Integer(expected) = pending[0] else {
        panic!("{pending:?}");
    };
    drop(wire);
    let mut released = 0;
    while released < expected {
        released += next(&server, MANY).await.len() as i64;
    }
    assert_eq!(released, expected);
}

#[tokio::test]
async fn a_search_that_arrives_after_its_member_has_gone_takes_nothing() {
    let server = Server::start().await;
    let mut other = topic_with(&server, 1).await;
    let mut wire = server.connect().await;
    assert_eq!(read(&mut wire, "ada", 1).await.len(), 1);
    drop(wire);
    // When the port has noticed, it has forgotten the member.
    while !other
        .line("XINFO CONSUMERS shop:{a} g")
        .await
        .list()
        .is_empty()
    {
        tokio::task::yield_now().await;
    }
    let claim = async |wire: &mut Wire, member| {
        let keys = ["EVAL", CLAIM, "2", "shop:{a}", "shop:{a}:delay:g"];
        let arguments = ["g", member, "3600000", "10", "-", "", ""];
        let claimed = wire.call(&[&keys[..], &arguments].concat()).await.list();
        claimed[1].clone().list().len()
    };
    assert_eq!(claim(&mut other, "ada").await, 0);
    // Once it reads again, it may.
    assert!(read(&mut other, "ada", 1).await.is_empty());
    assert_eq!(claim(&mut other, "ada").await, 1);
}

#[tokio::test]
async fn a_lease_is_free_when_the_connection_that_renewed_it_last_closes() {
    const LEASE: &str = "-- streamerson:lease:1";
    let server = Server::start().await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    let mut other = server.connect().await;
    let acquire = async |wire: &mut Wire, holder| {
        let arguments = ["acquire", "seat", holder, "3600000"];
        let call = [&["EVAL", LEASE, "1", "shop:{a}"], &arguments[..]].concat();
        let lease = wire.call(&call).await.list();
        lease[1].text().to_owned()
    };
    assert_eq!(acquire(&mut first, "ada").await, "ada");
    assert_eq!(acquire(&mut second, "ada").await, "ada");
    // Renewed over another connection since: nothing changes with the first.
    drop(first);
    while other.line("CLIENT LIST").await.text().lines().count() > 2 {}
    assert_eq!(acquire(&mut other, "bob").await, "ada");
    drop(second);
    while acquire(&mut other, "bob").await != "bob" {}
}

/// More than is read while it is blocked: that it has gone is seen without reading on.
#[tokio::test]
async fn a_blocked_client_that_sent_much_and_hung_up_is_noticed() {
    let server = Server::start().await;
    let mut wire = topic_with(&server, 0).await;
    wire.send(&words("XREADGROUP GROUP g ada BLOCK 0 STREAMS shop:{a} >"))
        .await;
    let behind = "PING\r\n".repeat((1100 << 10) / 6);
    wire.write(behind.as_bytes()).await;
    let mut other = server.connect().await;
    drop(wire);
    let gone = async { while other.line("CLIENT LIST").await.text().lines().count() > 1 {} };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("it was not noticed");
}
