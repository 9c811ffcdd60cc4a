//! Groups and topics that somebody deletes while members work: nothing is lost, and it is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use streamerson_core::{
    Append, Broker, Delivery, ErrorKind, Member, Membership, Once, Position, Settlement, Start,
    Topic, Upkeep,
};
use streamerson_redis::RedisBroker;
use streamerson_testkit::redis::RedisServer;
use support::{
    connect, eventually, join, message, name, one, send, start, text, texts, topic, within,
};

const LONG: Duration = Duration::from_secs(300);
const STREAM: &str = "test:{orders}";

fn destroy(server: &RedisServer) {
    assert_eq!(server.cli(&["XGROUP", "DESTROY", STREAM, "group"]), "1");
}

/// Waits until the group's checkpoint is at or after `position`, while `member` looks for work.
async fn checkpoint(server: &RedisServer, member: &mut Box<dyn Member>, position: Position) {
    eventually(async || {
        let waiting = tokio::time::timeout(Duration::from_millis(50), member.next(1)).await;
        assert!(waiting.is_err(), "no work was expected");
        let known = server.cli(&["HGET", "test:{orders}:topic", "group:group"]);
        let (checkpoint, _) = known.split_once(' ').unwrap();
        (checkpoint.parse::<Position>().unwrap() >= position).then_some(())
    })
    .await;
}

async fn complete(member: &dyn Member, delivery: Delivery) {
    let settler = member.settler();
    let settled = settler.settle(vec![Settlement::complete(delivery.receipt)]);
    settled.await.remove(0).unwrap();
}

/// Takes the next message and completes it; answers where it stands.
async fn work(member: &mut Box<dyn Member>) -> Position {
    let delivery = one(member).await;
    let position = delivery.receipt.position();
    complete(&**member, delivery).await;
    position
}

/// Settles with one output that appears once, whoever does it.
fn done(to: &Topic, delivery: Delivery) -> Settlement {
    let what = text(&delivery.message);
    let output = Append::new(to.clone(), message(&what));
    Settlement::complete_with(delivery.receipt, vec![output]).once(Once::new(what, LONG))
}

#[tokio::test]
async fn a_member_that_comes_after_the_loss_begins_where_all_was_settled() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a", "b"]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    let settled = work(&mut ada).await;
    let held = one(&mut ada).await;
    checkpoint(&server, &mut ada, settled).await;
    // As in a crash.
    drop((ada, held));
    destroy(&server);

    let later = connect(&server.url()).await;
    let membership = Membership {
        start: Start::Latest,
        ..Membership::new(orders.clone(), name("group"), name("bob"))
    };
    let mut bob = later.join(membership).await.unwrap();
    assert_eq!(text(&one(&mut bob).await.message), "b");
    assert_eq!(later.incidents().lost_groups, 1);
}

#[tokio::test]
async fn a_busy_member_loses_nothing_when_others_create_the_group_again() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut busy = join(&broker, &orders, "busy", LONG).await;
    let held = one(&mut busy).await;
    let other = connect(&server.url()).await;
    let mut bob = join(&other, &orders, "bob", LONG).await;
    destroy(&server);
    let again = one(&mut bob).await;
    assert_eq!(text(&again.message), "a");
    // Of the two who hold it now, the first to settle wins, whoever that is.
    complete(&*busy, held).await;
    let late = bob.settler();
    let late = late.settle(vec![Settlement::complete(again.receipt)]).await;
    assert_eq!(late[0].as_ref().unwrap_err().kind(), ErrorKind::Fenced);
    let counted = broker.incidents().lost_groups + other.incidents().lost_groups;
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn groups_destroyed_under_load_lose_and_repeat_nothing() {
    let (server, sender) = start().await;
    let (orders, results) = (topic("orders"), topic("done"));
    let names: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut busy = join(&connect(&server.url()).await, &orders, "busy", LONG).await;
    let broker = connect(&server.url()).await;
    let mut quick = join(&broker, &orders, "quick", LONG).await;

    let working = async {
        let mut held: Vec<Delivery> = Vec::new();
        let mut seen = BTreeSet::new();
        let (mut rounds, mut next_loss) = (0, 100);
        // What the busy one holds and settles late, and what the quick one does, with the group destroyed in between.
        while seen.len() < names.len() {
            if held.is_empty()
                && let Ok(Ok(deliveries)) =
                    tokio::time::timeout(Duration::from_millis(20), busy.next(50)).await
            {
                held = deliveries;
            }
            if let Ok(Ok(deliveries)) =
                tokio::time::timeout(Duration::from_millis(200), quick.next(20)).await
            {
                let work: Vec<String> = deliveries.iter().map(|it| text(&it.message)).collect();
                let settlements = deliveries.into_iter().map(|it| done(&results, it));
                let settled = quick.settler().settle(settlements.collect()).await;
                let won = work.into_iter().zip(&settled).filter(|(_, it)| it.is_ok());
                seen.extend(won.map(|(work, _)| work));
            }
            rounds += 1;
            if seen.len() >= next_loss {
                let _ = server.cli(&["XGROUP", "DESTROY", STREAM, "group"]);
                next_loss += 300;
            }
            if rounds % 7 == 0 {
                let work: Vec<String> = held.iter().map(|it| text(&it.message)).collect();
                let settlements = held.drain(..).map(|it| done(&results, it));
                let settled = busy.settler().settle(settlements.collect()).await;
                let won = work.into_iter().zip(&settled).filter(|(_, it)| it.is_ok());
                seen.extend(won.map(|(work, _)| work));
            }
        }
    };
    let sending = async {
        for batch in names.chunks(100) {
            send(&sender, &orders, batch).await;
        }
    };
    within(async { tokio::join!(working, sending) }).await;
    let mut appeared = texts(&sender, &results).await;
    appeared.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(appeared, names);
    assert!(broker.incidents().lost_groups >= 1);
}

#[tokio::test]
async fn a_topic_that_was_deleted_begins_at_its_new_beginning() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    let settled = work(&mut ada).await;
    checkpoint(&server, &mut ada, settled).await;
    drop(ada);
    server.cli(&["DEL", STREAM]);
    // Its positions are lower than those of the old one.
    let mut entry = vec!["XADD", STREAM, "5-1", "id", "1", "type", "t"];
    entry.extend(["corr", "", "reply", "", "meta", "", "data", "new"]);
    server.cli(&entry);
    let mut bob = join(&broker, &orders, "bob", LONG).await;
    assert_eq!(text(&one(&mut bob).await.message), "new");
    assert_eq!(broker.incidents().lost_groups, 1);
}

#[tokio::test]
async fn a_removed_group_is_new_to_who_comes_and_lost_to_who_was_there() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a", "b"]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    let settled = work(&mut ada).await;
    let held = one(&mut ada).await;
    checkpoint(&server, &mut ada, settled).await;
    assert!(broker.remove_group(&orders, &name("group")).await.unwrap());
    // She was there, and goes on where all was settled.
    assert_eq!(text(&one(&mut ada).await.message), "b");
    assert_eq!(broker.incidents().lost_groups, 1);
    drop((ada, held));

    assert!(broker.remove_group(&orders, &name("group")).await.unwrap());
    let mut bob = join(&broker, &orders, "bob", LONG).await;
    assert_eq!(text(&one(&mut bob).await.message), "a");
    assert_eq!(broker.incidents().lost_groups, 1);
}

#[tokio::test]
async fn what_happened_once_does_not_happen_again_when_the_group_is_removed_under_its_members() {
    let (_server, broker) = start().await;
    let (orders, results) = (topic("orders"), topic("done"));
    send(&broker, &orders, &["held", "settled"]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    let _held = one(&mut ada).await;
    let settlement = done(&results, one(&mut ada).await);
    let settled = ada.settler().settle(vec![settlement]).await;
    assert!(settled[0].is_ok());
    assert!(broker.remove_group(&orders, &name("group")).await.unwrap());
    // What is held keeps the group from beginning again behind what was settled.
    for again in ["held", "settled"] {
        let delivery = one(&mut ada).await;
        assert_eq!(text(&delivery.message), again);
        let settled = ada.settler().settle(vec![done(&results, delivery)]).await;
        assert!(settled[0].is_ok());
    }
    assert_eq!(texts(&broker, &results).await, ["settled", "held"]);
}

#[tokio::test]
async fn a_group_removed_under_its_members_goes_on_where_all_is_settled_now() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a", "b", "c"]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    let begun = server.cli(&["HGET", "test:{orders}:topic", "group:group"]);
    work(&mut ada).await;
    work(&mut ada).await;
    // As if its checkpoint had not been written since it began.
    server.cli(&["HSET", "test:{orders}:topic", "group:group", &begun]);
    assert!(broker.remove_group(&orders, &name("group")).await.unwrap());
    assert_eq!(text(&one(&mut ada).await.message), "c");
}

#[tokio::test]
async fn what_is_remembered_goes_with_the_group_and_the_topic() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    let results = topic("done");
    let request = || Append::new(orders.clone(), message("a")).once(Once::new("a", LONG));
    for round in 1..=3 {
        broker.append(vec![request()]).await.remove(0).unwrap();
        let mut ada = join(&broker, &orders, "ada", LONG).await;
        let settlement = done(&results, one(&mut ada).await);
        let settled = ada.settler().settle(vec![settlement]).await;
        assert!(settled[0].is_ok());
        ada.leave().await.unwrap();
        assert_eq!(texts(&broker, &results).await.len(), round);
        assert!(broker.remove_topic(&orders).await.unwrap());
        let left = server.cli(&["KEYS", "test:{orders}*"]);
        let left = left.lines().filter(|key| !key.is_empty());
        assert!(
            left.into_iter()
                .all(|key| key.contains(":sent:") || key.contains(":done:"))
        );
    }
}

/// Whether this Redis counts what a group was given: since 7.0.
fn counts(server: &RedisServer) -> bool {
    let groups = server.cli(&["XINFO", "GROUPS", STREAM]);
    groups.contains("entries-read")
}

/// Works on all there is, and on one more; then until the member has looked, and knows what it found.
async fn go_on(server: &RedisServer, broker: &RedisBroker, member: &mut Box<dyn Member>) {
    send(broker, &topic("orders"), &["after"]).await;
    loop {
        let delivery = one(member).await;
        let (text, position) = (text(&delivery.message), delivery.receipt.position());
        complete(&**member, delivery).await;
        if text == "after" {
            checkpoint(server, member, position).await;
            break;
        }
    }
    // The next one begins when the answer to this one is there.
    let known = || server.cli(&["HGET", "test:{orders}:topic", "group:group"]);
    let looked = known();
    eventually(async || {
        let waiting = tokio::time::timeout(Duration::from_millis(50), member.next(1)).await;
        assert!(waiting.is_err(), "no work was expected");
        (known() != looked).then_some(())
    })
    .await;
}

/// Waits for work, of which there is none, until a loss is told.
async fn told(broker: &RedisBroker, member: &mut Box<dyn Member>) {
    eventually(async || {
        let waiting = tokio::time::timeout(Duration::from_millis(50), member.next(1)).await;
        assert!(waiting.is_err(), "there is nothing");
        (broker.incidents().lost_messages > 0).then_some(())
    })
    .await;
}

/// A group that has processed 100 of 300 messages when somebody leaves only the newest `keep`.
async fn trimmed_to(keep: &str) -> (RedisServer, RedisBroker, Box<dyn Member>) {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["work"; 300]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    for delivery in within(ada.next(100)).await.unwrap() {
        complete(&*ada, delivery).await;
    }
    server.cli(&["XTRIM", STREAM, "MAXLEN", keep]);
    (server, broker, ada)
}

#[tokio::test]
async fn messages_removed_before_the_group_had_them_are_counted() {
    let (server, broker, _ada) = trimmed_to("30").await;
    if !counts(&server) {
        return;
    }
    // The checkpoint is due, and who comes writes it before reading.
    let known = server.cli(&["HGET", "test:{orders}:topic", "group:group"]);
    let fields: Vec<&str> = known.split_whitespace().collect();
    let old = format!("{} 0 {} {}", fields[0], fields[2], fields[3]);
    server.cli(&["HSET", "test:{orders}:topic", "group:group", &old]);
    let mut bob = join(&broker, &topic("orders"), "bob", LONG).await;
    for _ in 0..2 {
        go_on(&server, &broker, &mut bob).await;
        assert_eq!(broker.incidents().lost_messages, 170);
    }
}

#[tokio::test]
async fn messages_removed_from_a_group_that_goes_on_at_once_are_counted() {
    let (server, broker, mut ada) = trimmed_to("30").await;
    for _ in 0..2 {
        go_on(&server, &broker, &mut ada).await;
        let groups = server.cli(&["XINFO", "GROUPS", STREAM]);
        if !counts(&server) || groups.ends_with("lag\n0") {
            // Redis 8 and Valkey 8.1 correct their count when the group reads on.
            return;
        }
        assert_eq!(broker.incidents().lost_messages, 170);
    }
}

#[tokio::test]
async fn messages_removed_with_all_others_are_counted() {
    let (server, broker, mut ada) = trimmed_to("0").await;
    if !counts(&server) {
        return;
    }
    told(&broker, &mut ada).await;
    go_on(&server, &broker, &mut ada).await;
    assert_eq!(broker.incidents().lost_messages, 200);
}

#[tokio::test]
async fn what_the_group_had_or_somebody_took_out_is_not_counted_as_lost() {
    let (server, broker, mut ada) = trimmed_to("200").await;
    let orders = topic("orders");
    for taken in [198, 50] {
        let entries = broker.range(&orders, Position::ZERO, 1000).await.unwrap();
        let position = entries[taken].position;
        assert!(broker.take(&orders, position, Vec::new()).await.unwrap());
    }
    go_on(&server, &broker, &mut ada).await;
    server.cli(&["XTRIM", STREAM, "MAXLEN", "0"]);
    go_on(&server, &broker, &mut ada).await;
    assert_eq!(broker.incidents().lost_messages, 0);
}

/// A Redis that has read its log again may not know how much of it the group was given.
#[tokio::test]
async fn a_redis_that_started_again_counts_nothing_as_lost() {
    let mut server = RedisServer::builder().appendonly("always").start().await;
    let broker = connect(&server.url()).await;
    let orders = topic("orders");
    send(&broker, &orders, &["work"; 10]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    work(&mut ada).await;
    server.cli(&["BGREWRITEAOF"]);
    eventually(async || {
        let about = server.cli(&["INFO", "persistence"]);
        let goes_on = about.contains("aof_rewrite_in_progress:1")
            || about.contains("aof_rewrite_scheduled:1");
        (!goes_on).then_some(())
    })
    .await;
    go_on(&server, &broker, &mut ada).await;
    drop((broker, ada));
    server.kill().await;
    server.start_again().await;
    let broker = connect(&server.url()).await;
    let mut bob = join(&broker, &orders, "bob", LONG).await;
    go_on(&server, &broker, &mut bob).await;
    assert_eq!(broker.incidents().lost_messages, 0);
    bob.leave().await.unwrap();
    send(&broker, &orders, &["work"; 10]).await;
    server.cli(&["XTRIM", STREAM, "MAXLEN", "0"]);
    if counts(&server) {
        let mut cyd = join(&broker, &orders, "cyd", LONG).await;
        told(&broker, &mut cyd).await;
        assert_eq!(broker.incidents().lost_messages, 10);
    }
}
