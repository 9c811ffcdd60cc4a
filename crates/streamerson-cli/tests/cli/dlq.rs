//! `dlq`: on the embedded broker through its port, and on Redis.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use streamerson_core::message::Foreign;
use streamerson_core::meta::DeadLetter;
use streamerson_core::{Append, Message, Start, Topic, dead_letter, partition};
use streamerson_testkit::redis::RedisServer;

use crate::support::{Place, on_both};

fn orders() -> Topic {
    Topic::new("orders").unwrap()
}

fn letter(kind: &'static str, code: &str, reason: &str) -> Append {
    let why = DeadLetter {
        code: code.into(),
        reason: reason.into(),
        topic: "orders".into(),
        group: "billing".into(),
        position: "1-0".into(),
        attempts: 5,
        ..DeadLetter::default()
    };
    dead_letter::letter(&orders(), &Message::new(kind, r#"{"n":1}"#), why)
}

async fn append(place: &Place, letters: Vec<Append>) {
    for stored in place.broker.append(letters).await {
        stored.unwrap();
    }
}

async fn some(place: &Place, count: usize) -> BTreeSet<String> {
    let letters: Vec<_> = (0..count)
        .map(|_| letter("order.create", "busy", "away"))
        .collect();
    let ids = letters.iter().map(|letter| letter.message.id.to_string());
    let ids = ids.collect();
    append(place, letters).await;
    ids
}

fn ids(messages: &[Message]) -> Vec<String> {
    let mut ids: Vec<String> = messages
        .iter()
        .map(|message| message.id.to_string())
        .collect();
    ids.sort();
    ids
}

/// Each of `expected` stands on the topic once, and no letter is left.
async fn assert_all_moved_once(place: &Place, expected: BTreeSet<String>) {
    let found = ids(&place.messages("orders").await);
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    assert_eq!(place.messages("orders:dlq").await, []);
}

on_both! {
    letters_are_listed_filtered_and_counted_by_cause
    a_retried_letter_is_the_message_it_was
    two_operators_retry_each_letter_once
    an_interrupted_retry_goes_on_where_it_was
    a_killed_retry_loses_and_repeats_nothing
    a_look_changes_nothing_and_a_bound_holds
    letters_of_partitions_are_letters_of_their_topic
    what_was_no_message_stays_and_is_told
    all_letters_are_retried_only_when_that_is_said
    dropping_needs_a_yes_and_takes_only_what_is_meant
    a_topic_that_is_not_there_is_noted
}

async fn letters_are_listed_filtered_and_counted_by_cause(place: Place) {
    append(
        &place,
        vec![
            letter("order.create", "busy", "card service is away"),
            letter("order.cancel", "handler-failed", "no such order"),
            letter("order.create", "busy", "card service is slow"),
        ],
    )
    .await;
    let list = async |arguments: &[&str]| {
        let base = ["dlq", "ls", "orders", "-o", "json"];
        let all: Vec<&str> = base.iter().chain(arguments).copied().collect();
        let listed = place.run(&all).await.json();
        listed.as_array().unwrap().clone()
    };
    let all = list(&[]).await;
    assert_eq!(all.len(), 3);
    assert_eq!(
        (
            &all[0]["topic"],
            &all[0]["type"],
            &all[0]["why"]["code"],
            &all[0]["why"]["attempts"]
        ),
        (
            &json!("orders"),
            &json!("order.create"),
            &json!("busy"),
            &json!(5)
        )
    );
    let position = |at: usize| all[at]["position"].as_str().unwrap().to_owned();
    let (second, third) = (position(1), position(2));
    let id = all[2]["id"].as_str().unwrap();
    let cases: [(&[&str], usize); 12] = [
        (&["--code", "busy"], 2),
        (&["--code", "busy", "--code", "handler-failed"], 3),
        (&["--type", "order.cancel"], 1),
        (&["--group", "billing"], 3),
        (&["--group", "other"], 0),
        (&["--reason", "SERVICE IS"], 2),
        (&["--id", id], 1),
        (&["--from", &second], 2),
        (&["--to", &second], 2),
        (&["--from", &second, "--to", &second], 1),
        (&["--older-than", "1h"], 0),
        (
            &["--newer-than", "1h", "--code", "busy", "--reason", "slow"],
            1,
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(list(filter).await.len(), expected, "{filter:?}");
    }
    let cut = place.run(&["dlq", "ls", "orders", "--max", "2"]).await;
    assert_eq!(cut.stdout.lines().count(), 3, "{cut:?}");
    assert!(cut.stderr.contains("there are more"), "{cut:?}");

    let summary = place
        .run(&["dlq", "ls", "--all", "--summary", "-o", "json"])
        .await;
    // A topic that has only dead letters is not listed as one.
    assert_eq!(summary.json(), json!([]));
    place.send("orders", &["{}"]).await;
    let summary = place
        .run(&["dlq", "ls", "--all", "--summary", "-o", "json"])
        .await;
    let summary: Value = summary.json();
    assert_eq!(
        (
            &summary[0]["code"],
            &summary[0]["count"],
            &summary[0]["reason"]
        ),
        (&json!("busy"), &json!(2), &json!("card service is slow"))
    );
    assert_eq!(summary[0]["last"], json!(third));
    assert_eq!(summary[1]["count"], 1);
}

async fn a_retried_letter_is_the_message_it_was(place: Place) {
    let expected = some(&place, 1).await;
    let listed = place
        .run(&["dlq", "ls", "orders", "-o", "json"])
        .await
        .json();
    let position = listed[0]["position"].as_str().unwrap();
    let shown = place.run(&["dlq", "show", "orders", position]).await.ok();
    for fact in ["busy", "away", "orders at 1-0", "billing", r#"{"n":1}"#] {
        assert!(shown.contains(fact), "{fact} is not in {shown}");
    }
    let whole = place
        .run(&["dlq", "show", "orders", position, "-o", "json"])
        .await;
    assert_eq!(whole.json()["payload"], json!({"n": 1}));

    let report = place
        .run(&["dlq", "retry", "orders", "--yes", "-o", "json"])
        .await
        .json();
    assert_eq!(
        (&report["matched"], &report["moved"]),
        (&json!(1), &json!(1)),
        "{report}"
    );
    let messages = place.messages("orders").await;
    assert_eq!(
        (&messages[0].data[..], &messages[0].meta[..]),
        (&br#"{"n":1}"#[..], &b""[..])
    );
    assert_all_moved_once(&place, expected).await;
    let said = place.run(&["dlq", "show", "orders", position]).await;
    said.failed(3, "letter-not-found");
    // Nothing left is nothing to do.
    assert_eq!(
        place.run(&["dlq", "retry", "orders", "--yes"]).await.ok(),
        "retried 0\n"
    );
}

async fn two_operators_retry_each_letter_once(place: Place) {
    let expected = some(&place, 300).await;
    let operator = || place.run(&["dlq", "retry", "orders", "--yes", "-o", "json"]);
    let (one, two) = tokio::join!(operator(), operator());
    let (one, two) = (one.json(), two.json());
    let moved = |report: &Value| report["moved"].as_u64().unwrap();
    assert_eq!(moved(&one) + moved(&two), 300, "{one} {two}");
    assert_all_moved_once(&place, expected).await;
}

async fn an_interrupted_retry_goes_on_where_it_was(place: Place) {
    let expected = some(&place, 60).await;
    let mut reader = place.broker.read(&orders(), Start::Earliest).await.unwrap();
    let mut retry = place.start(&[
        "dlq", "retry", "orders", "--yes", "--rate", "5/s", "-o", "json",
    ]);
    reader.next(1).await.unwrap();
    retry.process.terminate();
    let (code, said) = retry.ended().await;
    assert!(code == 1 && said.contains("(interrupted)"), "{said}");
    assert!(said.contains("help: run the same command again"), "{said}");
    let before = place.messages("orders").await.len();
    assert!((1..60).contains(&before), "{before}");
    let report = said.lines().find(|line| line.starts_with('{')).unwrap();
    let report: Value = serde_json::from_str(report).unwrap();
    assert_eq!(
        (&report["moved"], &report["interrupted"]),
        (&json!(before), &json!(true)),
        "{report}"
    );
    place.run(&["dlq", "retry", "orders", "--yes"]).await.ok();
    assert_all_moved_once(&place, expected).await;
}

async fn a_killed_retry_loses_and_repeats_nothing(place: Place) {
    // More than it moves before it is killed, also on a busy machine.
    let expected = some(&place, 3_000).await;
    let mut reader = place.broker.read(&orders(), Start::Earliest).await.unwrap();
    let mut retry = place.start(&["dlq", "retry", "orders", "--yes", "--rate", "500/s"]);
    reader.next(1).await.unwrap();
    retry.process.kill();
    retry.ended().await;
    let letters = place.messages("orders:dlq").await.len();
    assert!(letters > 0, "it was killed too late to tell anything");
    place.run(&["dlq", "retry", "orders", "--yes"]).await.ok();
    assert_all_moved_once(&place, expected).await;
}

#[tokio::test]
async fn a_retry_that_loses_its_broker_goes_on_where_it_was() {
    let mut redis = RedisServer::builder().appendonly("always").start().await;
    let place = Place::of(redis.url()).await;
    let expected = some(&place, 60).await;
    let mut reader = place.broker.read(&orders(), Start::Earliest).await.unwrap();
    let retry = place.start(&["dlq", "retry", "orders", "--yes", "--rate", "10/s"]);
    reader.next(1).await.unwrap();
    redis.kill().await;
    let (code, said) = retry.ended().await;
    assert!(
        code == 6 && said.contains("run the same command again"),
        "{said}"
    );
    redis.start_again().await;
    let place = Place::of(redis.url()).await;
    assert!(!place.messages("orders:dlq").await.is_empty());
    place.run(&["dlq", "retry", "orders", "--yes"]).await.ok();
    assert_all_moved_once(&place, expected).await;
}

async fn a_look_changes_nothing_and_a_bound_holds(place: Place) {
    some(&place, 5).await;
    let look = place
        .run(&["dlq", "retry", "orders", "--dry-run", "--max", "4"])
        .await;
    assert_eq!(look.ok(), "would retry 4\n");
    assert_eq!(place.messages("orders:dlq").await.len(), 5);
    let two = place.run(&["dlq", "retry", "orders", "--max", "2"]).await;
    assert_eq!(two.ok(), "retried 2\n");
    assert_eq!(place.messages("orders:dlq").await.len(), 3);
    assert_eq!(place.messages("orders").await.len(), 2);
}

async fn letters_of_partitions_are_letters_of_their_topic(place: Place) {
    place.broker.divide(&orders(), 3).await.unwrap();
    let mut letters = Vec::new();
    for number in 0..3 {
        let part = partition::topic(&orders(), number).unwrap();
        let why = DeadLetter {
            topic: part.to_string(),
            ..DeadLetter::default()
        };
        letters.push(dead_letter::letter(&part, &Message::new("a", "1"), why));
    }
    append(&place, letters).await;
    let listed = place
        .run(&["dlq", "ls", "orders", "-o", "json"])
        .await
        .json();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    let shown = place.run(&["topic", "show", "orders", "-o", "json"]).await;
    assert_eq!(shown.json()["dead_letters"], 3);
    let two = place.run(&["dlq", "retry", "orders", "--max", "2"]).await;
    assert_eq!(two.ok(), "retried 2\n");
    let rest = place.run(&["dlq", "retry", "orders", "--yes"]).await;
    assert_eq!(rest.ok(), "retried 1\n");
    for part in ["orders.0", "orders.1", "orders.2"] {
        assert_eq!(place.messages(part).await.len(), 1, "{part}");
    }
}

async fn what_was_no_message_stays_and_is_told(place: Place) {
    let foreign = Foreign {
        fields: vec![("a".into(), "1".into())],
        reason: "missing field \"id\"".into(),
    };
    let foreign = dead_letter::foreign_letter(&orders(), &foreign, DeadLetter::default());
    append(
        &place,
        vec![foreign, letter("order.create", "busy", "away")],
    )
    .await;
    let ended = place.run(&["dlq", "retry", "orders", "--yes"]).await;
    assert_eq!(ended.stdout, "retried 1\n");
    assert_eq!(ended.code, 1, "{ended:?}");
    for said in ["(foreign-dead-letter)", "(letters-refused)", "help: "] {
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
    assert_eq!(place.messages("orders:dlq").await.len(), 1);
    let dropped = place
        .run(&["dlq", "drop", "orders", "--code", "foreign-entry", "--yes"])
        .await;
    assert_eq!(dropped.ok(), "dropped 1\n");
    assert_eq!(place.messages("orders:dlq").await, []);
}

async fn dropping_needs_a_yes_and_takes_only_what_is_meant(place: Place) {
    append(
        &place,
        vec![
            letter("order.create", "busy", "away"),
            letter("order.create", "wrong", "no"),
        ],
    )
    .await;
    let drop = ["dlq", "drop", "orders", "--code", "wrong"];
    let said = place.run(&drop).await.stderr;
    assert!(said.contains("1 dead letter of orders would go"), "{said}");
    place
        .run(&drop)
        .await
        .failed_after_preview("confirmation-missing");
    let look: Vec<&str> = drop
        .iter()
        .copied()
        .chain(["--dry-run", "-o", "json"])
        .collect();
    let look = place.run(&look).await.json();
    assert_eq!((&look["matched"], &look["moved"]), (&json!(1), &json!(0)));
    assert_eq!(place.messages("orders:dlq").await.len(), 2);
    let sure: Vec<&str> = drop.iter().copied().chain(["--yes"]).collect();
    assert_eq!(place.run(&sure).await.ok(), "dropped 1\n");
    let left = place.messages("orders:dlq").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].parse_meta().unwrap().dlq.unwrap().code, "busy");
    assert_eq!(place.messages("orders").await, []);
}

async fn all_letters_are_retried_only_when_that_is_said(place: Place) {
    let expected = some(&place, 3).await;
    let refused = place.run(&["dlq", "retry", "orders"]).await;
    assert!(refused.stderr.contains("all dead letters"), "{refused:?}");
    refused.failed_after_preview("confirmation-missing");
    assert_eq!(place.messages("orders").await, []);
    let chosen = place
        .run(&["dlq", "retry", "orders", "--code", "other"])
        .await;
    assert_eq!(chosen.ok(), "retried 0\n");
    let look = place.run(&["dlq", "retry", "orders", "--dry-run"]).await;
    assert_eq!(look.ok(), "would retry 3\n");
    let all = place.run(&["dlq", "retry", "orders", "--yes"]).await;
    assert_eq!(all.ok(), "retried 3\n");
    assert_all_moved_once(&place, expected).await;
}

async fn a_topic_that_is_not_there_is_noted(place: Place) {
    let notes = async |command: &[&str]| {
        let ended = place.run(command).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stderr.contains("note: there is no topic ordres;")
    };
    append(&place, vec![letter("order.create", "busy", "away")]).await;
    for command in [
        &["dlq", "ls", "ordres"][..],
        &["dlq", "ls", "ordres", "--summary"],
        &["dlq", "retry", "ordres", "--yes"],
    ] {
        assert!(notes(command).await, "{command:?}");
    }
    let mut tail = place.start(&["tail", "ordres"]);
    tail.line("note: there is no topic ordres;").await;
    place.send("ordres", &["1"]).await;
    for command in [
        &["dlq", "ls", "ordres"][..],
        &["dlq", "retry", "ordres", "--yes"],
        &["tail", "ordres", "--from", "earliest", "-n", "1"],
    ] {
        assert!(!notes(command).await, "{command:?}");
    }
}
