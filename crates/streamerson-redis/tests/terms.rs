//! Messages with a due time or a key, and what a member's attempt may still do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::time::Duration;

use streamerson_core::time::unix_ms;
use streamerson_core::{
    Append, Broker, ErrorKind, Once, Position, Receipt, Settlement, Topic, Upkeep,
};
use streamerson_testkit::redis::RedisServer;
use support::{
    appends, connect, eventually, join, message, name, one, send, start, text, texts, topic,
};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn scheduled_messages_survive_a_crash_of_the_server() {
    let mut server = RedisServer::builder().appendonly("always").start().await;
    let broker = connect(&server.url()).await;
    let orders = topic("orders");
    let due = unix_ms() + 500;
    let later = |text: &str, due| Append::new(orders.clone(), message(text)).due_at(due);
    let batch = vec![
        later("second", due + 1),
        later("first", due),
        later("never", due + 1_000_000),
    ];
    for position in broker.append(batch).await {
        assert_eq!(position.unwrap(), Position::ZERO);
    }
    server.kill().await;
    server.start_again().await;
    let again = connect(&server.url()).await;
    let mut member = join(&again, &orders, "ada", LONG).await;
    assert_eq!(text(&one(&mut member).await.message), "first");
    assert!(unix_ms() >= due);
    assert_eq!(text(&one(&mut member).await.message), "second");
    assert_eq!(again.stats(&orders).await.unwrap().scheduled, 1);
}

#[tokio::test]
async fn equal_messages_due_at_the_same_time_all_come_in_the_order_they_were_sent() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    let due = unix_ms() + 100;
    let names: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let twice = message("twice");
    let mut batch = vec![Append::new(orders.clone(), twice.clone()).due_at(due)];
    let named = names
        .iter()
        .map(|name| Append::new(orders.clone(), message(name)).due_at(due));
    batch.extend(named);
    batch.push(Append::new(orders.clone(), twice).due_at(due));
    for stored in broker.append(batch).await {
        stored.unwrap();
    }
    let mut member = join(&broker, &orders, "ada", LONG).await;
    let mut seen = Vec::new();
    while seen.len() < names.len() + 2 {
        let deliveries = support::within(member.next(100)).await.unwrap();
        seen.extend(deliveries.iter().map(|it| text(&it.message)));
    }
    assert_eq!(seen[0], "twice");
    assert_eq!(seen[1..=names.len()], names);
    assert_eq!(seen.last().unwrap(), "twice");
}

#[tokio::test]
async fn large_messages_that_are_due_appear_in_several_steps() {
    let server = RedisServer::builder().clock().start().await;
    let broker = connect(&server.url()).await;
    let orders = topic("orders");
    let (stream, delays) = ("test:{orders}", "test:{orders}:delay:group");
    server.cli(&["XGROUP", "CREATE", stream, "group", "0", "MKSTREAM"]);
    let due = unix_ms() + 3_600_000;
    let large = "x".repeat(600_000);
    let batch = (0..5).map(|_| Append::new(orders.clone(), message(&large)).due_at(due));
    for stored in broker.append(batch.collect()).await {
        stored.unwrap();
    }
    server.set_clock(7_200);
    let script = include_str!("../../../spec/scripts/claim.lua");
    for left in ["3", "1", "0"] {
        let mut claim = vec!["EVAL", script, "2", stream, delays, "group", "ada"];
        claim.extend(["1000", "1", "-", "", "", ""]);
        server.cli(&claim);
        assert_eq!(server.cli(&["ZCARD", "test:{orders}:later"]), left);
    }
}

#[tokio::test]
async fn a_message_stored_once_is_answered_with_its_first_position() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    let once = |keep| Append::new(orders.clone(), message("a")).once(Once::new("key\n7", keep));
    let mut batch = appends(&orders, &["before"]);
    batch.extend([once(LONG), once(LONG)]);
    batch.extend(appends(&orders, &["after"]));
    let stored: Vec<Position> = broker
        .append(batch)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(stored[1], stored[2]);
    assert!(stored[0] < stored[1] && stored[2] < stored[3]);
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(
        broker.append(vec![once(LONG)]).await.remove(0).unwrap(),
        stored[1]
    );
    assert_eq!(texts(&broker, &orders).await, ["before", "a", "after"]);
}

#[tokio::test]
async fn an_inbox_takes_no_terms() {
    let (_server, broker) = start().await;
    let inbox = broker.inbox().await.unwrap().address;
    let late = Append::new(inbox, message("a")).due_at(unix_ms() + 1000);
    let error = broker.append(vec![late]).await.remove(0).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Invalid, "inbox-terms")
    );
}

#[tokio::test]
async fn outputs_on_terms_appear_with_the_settlement_or_not_at_all() {
    let (_server, broker) = start().await;
    let (orders, next) = (topic("orders"), topic("next"));
    send(&broker, &orders, &["a"]).await;
    let mut ada = join(&broker, &orders, "ada", SHORT).await;
    let by_ada = one(&mut ada).await;
    let mut bob = join(&broker, &orders, "bob", SHORT).await;
    let by_bob = one(&mut bob).await;
    let output = |who: &str| {
        let output = Append::new(next.clone(), message(who));
        vec![
            output.clone().due_at(unix_ms() + 50),
            output.once(Once::new("key", LONG)),
        ]
    };
    let settle = async |member: &dyn streamerson_core::Member, receipt, who| {
        let settlement = Settlement::complete_with(receipt, output(who));
        member.settler().settle(vec![settlement]).await.remove(0)
    };
    settle(&*bob, by_bob.receipt, "bob").await.unwrap();
    let late = settle(&*ada, by_ada.receipt, "ada").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Fenced);
    let mut reader = join(&broker, &next, "eve", LONG).await;
    assert_eq!(text(&one(&mut reader).await.message), "bob");
    assert_eq!(text(&one(&mut reader).await.message), "bob");
    assert_eq!(broker.stats(&next).await.unwrap().scheduled, 0);
}

#[tokio::test]
async fn an_attempt_that_is_over_cannot_ask_for_another_try() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    let first = one(&mut ada).await.receipt;
    let position = first.position();
    let settler = ada.settler();
    let retry = settler.settle(vec![Settlement::retry(first, Duration::ZERO)]);
    retry.await.remove(0).unwrap();
    let second = one(&mut ada).await;
    assert_eq!(second.receipt.attempt(), 2);
    let stale = Settlement::retry(Receipt::new(position, 1), Duration::ZERO);
    let refused = settler.settle(vec![stale]).await.remove(0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    let pending = broker
        .pending(&orders, &name("group"), Position::ZERO, 10)
        .await;
    assert_eq!(pending.unwrap()[0].due, None);
}

/// What another member gave back was answered while a read waited: nothing may lie with that read while its member is busy.
#[tokio::test]
async fn nothing_is_given_to_a_member_that_is_busy_with_something_else() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut gone = join(&broker, &orders, "gone", LONG).await;
    let held = one(&mut gone).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    let waits = async {
        // Her read waits, when the other one leaves.
        eventually(async || {
            let stats = broker.stats(&orders).await.unwrap();
            (stats.groups[0].members.len() == 2).then_some(())
        })
        .await;
        gone.leave().await.unwrap();
    };
    let (taken, ()) = tokio::join!(one(&mut ada), waits);
    assert_eq!(taken.receipt.position(), held.receipt.position());
    // Ada is busy now, and does not ask.
    send(&broker, &orders, &["b"]).await;
    let mut bob = join(&broker, &orders, "bob", LONG).await;
    let asked = Instant::now();
    assert_eq!(text(&one(&mut bob).await.message), "b");
    assert!(asked.elapsed() < LONG);
}

#[tokio::test]
async fn keys_of_one_topic_are_not_those_of_another() {
    let (_server, broker) = start().await;
    let once = |topic: &Topic| Append::new(topic.clone(), message("a")).once(Once::new("k", LONG));
    let (one, two) = (topic("one"), topic("two"));
    for stored in broker.append(vec![once(&one), once(&two)]).await {
        assert!(stored.unwrap() > Position::ZERO);
    }
    assert_eq!(texts(&broker, &two).await, ["a"]);
}
