//! Members and their settlements where something goes wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::time::Duration;

use streamerson_core::{
    Append, Broker, Delivery, ErrorKind, Membership, Position, Settlement, Start, Upkeep,
    dead_letter,
};
use support::{
    all, appends, connect, eventually, join, name, one, send, start, text, texts, topic, within,
};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_millis(200);

fn reply_to(inbox: &streamerson_core::Topic, delivery: Delivery, reply: &str) -> Settlement {
    let output = Append::new(inbox.clone(), delivery.message.answer(reply.to_owned()));
    Settlement::complete_with(delivery.receipt, vec![output])
}

#[tokio::test]
async fn a_group_may_be_moved_behind_every_position() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    let held = one(&mut ada).await;
    let end = Start::After(Position::new(u64::MAX, u64::MAX));
    broker
        .seek(&orders, &name("group"), end, None)
        .await
        .unwrap();
    let batch = vec![Settlement::complete(held.receipt)];
    ada.settler().settle(batch).await.remove(0).unwrap();
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_loaded_again() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a", "b"]).await;
    server.cli(&["SCRIPT", "FLUSH"]);
    // The claim script, when the member asks first.
    let mut member = join(&broker, &orders, "ada", LONG).await;
    let (a, b) = (one(&mut member).await, one(&mut member).await);
    let settler = member.settler();
    server.cli(&["SCRIPT", "FLUSH"]);
    settler.extend(&[a.receipt.position()]).await.unwrap();
    server.cli(&["SCRIPT", "FLUSH"]);
    let batch = vec![Settlement::complete(a.receipt)];
    settler.settle(batch).await.remove(0).unwrap();
    server.cli(&["SCRIPT", "FLUSH"]);
    member.leave().await.unwrap();
    let stats = broker.stats(&orders).await.unwrap();
    assert_eq!(stats.groups[0].pending, 1);
    assert_eq!(stats.groups[0].oldest_pending, Some(b.receipt.position()));
}

#[tokio::test]
async fn of_two_holders_one_settles_and_one_reply_appears() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    let mut inbox = broker.inbox().await.unwrap();
    send(&broker, &orders, &["a"]).await;
    let mut ada = join(&broker, &orders, "ada", SHORT).await;
    let by_ada = one(&mut ada).await;
    let mut bob = join(&broker, &orders, "bob", SHORT).await;
    let by_bob = one(&mut bob).await;
    assert_eq!(by_bob.receipt.attempt(), 2);

    let (ada_settler, bob_settler) = (ada.settler(), bob.settler());
    let address = inbox.address.clone();
    let (first, second) = tokio::join!(
        ada_settler.settle(vec![reply_to(&address, by_ada, "by ada")]),
        bob_settler.settle(vec![reply_to(&address, by_bob, "by bob")]),
    );
    let results = [&first[0], &second[0]];
    let fenced = results.iter().filter_map(|result| result.as_ref().err());
    let fenced: Vec<ErrorKind> = fenced.map(|error| error.kind()).collect();
    assert_eq!(fenced, [ErrorKind::Fenced]);
    let winner = if first[0].is_ok() { "by ada" } else { "by bob" };
    let replies = within(inbox.reader.next(10)).await.unwrap();
    assert_eq!(replies.len(), 1);
    assert_eq!(text(replies[0].message.as_ref().unwrap()), winner);
}

#[tokio::test]
async fn a_member_that_was_replaced_can_neither_retry_nor_extend() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut ada = join(&broker, &orders, "ada", SHORT).await;
    let by_ada = one(&mut ada).await;
    let mut bob = join(&broker, &orders, "bob", SHORT).await;
    let by_bob = one(&mut bob).await;
    let position = by_bob.receipt.position();

    let zombie = ada.settler();
    // A sign of life of the zombie must not take the message back, however often it comes.
    zombie.extend(&[position]).await.unwrap();
    let retry = Settlement::retry(by_ada.receipt, Duration::ZERO);
    let error = zombie.settle(vec![retry]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    let group = broker.stats(&orders).await.unwrap().groups.remove(0);
    let holders: Vec<_> = group
        .members
        .iter()
        .filter(|member| member.pending > 0)
        .collect();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0].name, "bob");
    let settled = bob
        .settler()
        .settle(vec![Settlement::complete(by_bob.receipt)])
        .await;
    assert!(settled[0].is_ok());
}

#[tokio::test]
async fn an_entry_that_is_no_message_goes_to_the_dead_letters() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    server.cli(&["XADD", "test:{orders}", "*", "hello", "world"]);
    server.cli(&[
        "XADD",
        "test:{orders}",
        "*",
        "id",
        "1",
        "type",
        "t",
        "corr",
        "",
        "reply",
        "",
        "meta",
        "",
    ]);
    send(&broker, &orders, &["b"]).await;
    let mut member = join(&broker, &orders, "ada", LONG).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        for delivery in within(member.next(10)).await.unwrap() {
            seen.push(text(&delivery.message));
            let settled = member
                .settler()
                .settle(vec![Settlement::complete(delivery.receipt)])
                .await;
            assert!(settled[0].is_ok());
        }
    }
    assert_eq!(seen, ["a", "b"]);
    let letters = all(&broker, &orders.dead_letters()).await;
    let letters: Vec<_> = letters
        .into_iter()
        .map(|entry| entry.message.unwrap())
        .collect();
    assert_eq!(letters.len(), 2);
    assert!(
        letters
            .iter()
            .all(|letter| letter.kind == dead_letter::FOREIGN)
    );
    let kept = text(&letters[0]);
    assert!(kept.contains("hello") && kept.contains("world"), "{kept}");
    let why = letters[1].parse_meta().unwrap().dlq.unwrap();
    assert_eq!(
        (why.code.as_str(), why.group.as_str()),
        ("foreign-entry", "group")
    );
    assert!(why.reason.contains("data"), "{why:?}");
    assert_eq!(broker.incidents().foreign_entries, 2);
    assert_eq!(broker.stats(&orders).await.unwrap().groups[0].pending, 0);
}

#[tokio::test]
async fn an_entry_that_is_no_message_is_read_as_it_is() {
    let (server, broker) = start().await;
    server.cli(&["XADD", "test:{orders}", "*", "hello", "world"]);
    let foreign = all(&broker, &topic("orders"))
        .await
        .remove(0)
        .message
        .unwrap_err();
    assert_eq!(foreign.fields, [("hello".into(), "world".into())]);
}

#[tokio::test]
async fn a_member_that_starts_again_gets_its_own_back() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut member = join(&broker, &orders, "ada", SHORT).await;
    let first = one(&mut member).await;
    drop(member);
    let again = connect(&server.url()).await;
    let mut member = join(&again, &orders, "ada", SHORT).await;
    let second = one(&mut member).await;
    assert_eq!(second.receipt.position(), first.receipt.position());
    assert_eq!(second.receipt.attempt(), 2);
}

#[tokio::test]
async fn a_short_retry_comes_when_it_is_due() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut member = join(&broker, &orders, "ada", LONG).await;
    let delivery = one(&mut member).await;
    let asked = Instant::now();
    let retry = Settlement::retry(delivery.receipt, Duration::from_millis(50));
    // Asked for while the member already waits for work.
    let settler = member.settler();
    let (settled, again) = tokio::join!(settler.settle(vec![retry]), one(&mut member));
    settled[0].as_ref().unwrap();
    assert_eq!(again.receipt.attempt(), 2);
    assert!(asked.elapsed() >= Duration::from_millis(50));
    assert!(
        asked.elapsed() < Duration::from_millis(900),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn groups_that_share_a_topic_retry_on_their_own() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut members = Vec::new();
    for group in ["one", "two"] {
        let membership = Membership {
            lease: LONG,
            ..Membership::new(orders.clone(), name(group), name("ada"))
        };
        members.push(broker.join(membership).await.unwrap());
    }
    let held = one(&mut members[0]).await;
    let given_back = one(&mut members[1]).await;
    let retry = Settlement::retry(given_back.receipt, Duration::ZERO);
    members[1]
        .settler()
        .settle(vec![retry])
        .await
        .remove(0)
        .unwrap();
    assert_eq!(one(&mut members[1]).await.receipt.attempt(), 2);
    // The other group's holder was not disturbed.
    send(&broker, &orders, &["b"]).await;
    assert_eq!(text(&one(&mut members[0]).await.message), "b");
    let settled = members[0]
        .settler()
        .settle(vec![Settlement::complete(held.receipt)])
        .await;
    assert!(settled[0].is_ok());
}

#[tokio::test]
async fn what_was_taken_for_a_cancelled_call_and_taken_over_is_not_answered() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    let mut ada = join(&broker, &orders, "ada", SHORT).await;
    // Ada asks, and walks away: her read stays with Redis, and is given the message.
    let waiting = tokio::time::timeout(Duration::from_millis(50), ada.next(10)).await;
    assert!(waiting.is_err());
    send(&broker, &orders, &["a"]).await;
    eventually(async || {
        let group = broker.stats(&orders).await.unwrap().groups.remove(0);
        (group.pending == 1).then_some(())
    })
    .await;
    let mut bob = join(&broker, &orders, "bob", SHORT).await;
    let taken = one(&mut bob).await;
    let settled = bob
        .settler()
        .settle(vec![Settlement::complete(taken.receipt)])
        .await;
    assert!(settled[0].is_ok());
    drop(bob);
    send(&broker, &orders, &["b"]).await;
    assert_eq!(text(&one(&mut ada).await.message), "b");
}

#[tokio::test]
async fn a_deleted_group_begins_again_where_all_was_settled() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a", "b", "c"]).await;
    let mut member = join(&broker, &orders, "ada", LONG).await;
    let mut held = within(member.next(3)).await.unwrap();
    let first = held.remove(0);
    let first_position = first.receipt.position();
    let settled = member
        .settler()
        .settle(vec![Settlement::complete(first.receipt)])
        .await;
    assert!(settled[0].is_ok());
    eventually(async || {
        let waiting = tokio::time::timeout(Duration::from_millis(50), member.next(3)).await;
        assert!(waiting.is_err());
        let known = server.cli(&["HGET", "test:{orders}:topic", "group:group"]);
        let (checkpoint, _) = known.split_once(' ').unwrap();
        (checkpoint.parse::<Position>().unwrap() >= first_position).then_some(())
    })
    .await;
    server.cli(&["XGROUP", "DESTROY", "test:{orders}", "group"]);
    send(&broker, &orders, &["d"]).await;

    let mut seen = Vec::new();
    while seen.len() < 3 {
        let deliveries = within(member.next(10)).await.unwrap();
        seen.extend(deliveries.iter().map(|delivery| text(&delivery.message)));
    }
    // Not "a", which was settled; "b" and "c" again, because nobody else will do them.
    assert_eq!(seen, ["b", "c", "d"]);
    assert_eq!(broker.incidents().lost_groups, 1);
}

#[tokio::test]
async fn a_deleted_group_does_not_forget_what_waits_for_another_try() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a", "b"]).await;
    let mut member = join(&broker, &orders, "ada", LONG).await;
    let (a, b) = (one(&mut member).await, one(&mut member).await);
    let batch = vec![
        Settlement::retry(a.receipt, LONG),
        Settlement::complete(b.receipt),
    ];
    for settled in member.settler().settle(batch).await {
        settled.unwrap();
    }
    server.cli(&["XGROUP", "DESTROY", "test:{orders}", "group"]);
    assert_eq!(text(&one(&mut member).await.message), "a");
}

#[tokio::test]
async fn a_waiting_member_survives_that_everything_is_deleted() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut member = join(&broker, &orders, "ada", LONG).await;
    let delivery = one(&mut member).await;
    let settled = member
        .settler()
        .settle(vec![Settlement::complete(delivery.receipt)])
        .await;
    assert!(settled[0].is_ok());
    let deleting = async {
        // Once the member waits.
        eventually(async || {
            server
                .cli(&["INFO", "clients"])
                .contains("blocked_clients:1")
                .then_some(())
        })
        .await;
        server.cli(&["FLUSHALL"]);
        send(&broker, &orders, &["b"]).await;
    };
    let (next, ()) = tokio::join!(one(&mut member), deleting);
    assert_eq!(text(&next.message), "b");
    let settled = member
        .settler()
        .settle(vec![Settlement::complete(next.receipt)])
        .await;
    assert!(settled[0].is_ok());
    assert!(broker.incidents().lost_groups >= 1);
}

#[tokio::test]
async fn a_refused_member_does_not_spin() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    let mut member = join(&broker, &orders, "ada", LONG).await;
    server.cli(&["DEL", "test:{orders}"]);
    server.cli(&["SET", "test:{orders}", "taken"]);
    let begun = Instant::now();
    let mut refusals = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(
            within(member.next(1)).await.unwrap_err().code(),
            "wrong-type"
        );
        refusals += 1;
    }
    assert!(refusals < 50, "{refusals} in a second");
}

#[tokio::test]
async fn what_was_trimmed_away_unprocessed_is_counted_and_not_delivered() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a", "b"]).await;
    let mut ada = join(&broker, &orders, "ada", SHORT).await;
    let taken = within(ada.next(10)).await.unwrap();
    assert_eq!(taken.len(), 2);
    server.cli(&["XTRIM", "test:{orders}", "MAXLEN", "1"]);
    let mut bob = join(&broker, &orders, "bob", SHORT).await;
    assert_eq!(text(&one(&mut bob).await.message), "b");
    eventually(async || {
        let _ = tokio::time::timeout(Duration::from_millis(20), bob.next(1)).await;
        (broker.incidents().lost_messages == 1).then_some(())
    })
    .await;
    drop(ada);
}

#[tokio::test]
async fn a_stream_of_work_survives_cut_connections() {
    let (server, direct) = start().await;
    let address = format!("127.0.0.1:{}", server.port()).parse().unwrap();
    let proxy = streamerson_testkit::proxy::Proxy::start(address)
        .await
        .unwrap();
    let broker = connect(&format!("redis://{}", proxy.address())).await;
    let (orders, done) = (topic("orders"), topic("done"));
    let names: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    send(&direct, &orders, &names).await;
    let mut member = join(&broker, &orders, "ada", SHORT).await;
    let settler = member.settler();
    let mut rounds = 0;
    within(async {
        while direct.stats(&done).await.map_or(0, |stats| stats.length) < 500 {
            // Errors are what this is about: the work goes on after them.
            let Ok(deliveries) = member.next(20).await else {
                continue;
            };
            let settle = |delivery: Delivery| {
                let output = Append::new(done.clone(), delivery.message.clone());
                Settlement::complete_with(delivery.receipt, vec![output])
            };
            let _ = settler
                .settle(deliveries.into_iter().map(settle).collect())
                .await;
            rounds += 1;
            if rounds % 5 == 0 {
                proxy.cut();
            }
        }
    })
    .await;
    let mut results = texts(&direct, &done).await;
    results.sort_by_key(|name| name.parse::<u32>().unwrap());
    assert_eq!(results, names);
}

#[tokio::test]
async fn a_late_group_starts_where_it_was_told_even_if_it_is_lost_before_the_first_message() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let membership = Membership {
        start: Start::Latest,
        ..Membership::new(orders.clone(), name("group"), name("ada"))
    };
    let mut member = broker.join(membership).await.unwrap();
    server.cli(&["XGROUP", "DESTROY", "test:{orders}", "group"]);
    send(&broker, &orders, &["b"]).await;
    assert_eq!(text(&one(&mut member).await.message), "b");
    let _ = appends(&orders, &[]);
}
