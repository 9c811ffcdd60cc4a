//! `topic`: on the embedded broker through its port, and on Redis.

use std::time::Duration;

use serde_json::{Value, json};
use streamerson_core::{Append, Membership, Message, Name, Settlement, Start, Topic, partition};

use crate::support::{Dev, Place, on_both};

on_both! {
    a_topic_tells_what_it_holds
    a_topic_is_divided_once
    a_topic_in_use_is_divided_only_when_that_is_meant
    a_removed_topic_is_gone_and_its_dead_letters_stay
    trimming_keeps_what_a_group_has_not_processed
    a_look_at_a_trim_tells_what_would_go_and_what_would_be_lost
    a_look_that_does_not_count_all_does_not_pretend_to
    a_divided_topic_is_shown_and_trimmed_with_its_partitions
}

fn name(name: &str) -> Name {
    Name::new(name.to_owned()).unwrap()
}

async fn a_topic_tells_what_it_holds(place: Place) {
    let positions = place.send("orders", &["1", "2"]).await;
    place.send("orders:dlq", &["3"]).await;
    let topic = Topic::new("orders").unwrap();
    let later = streamerson_core::time::unix_ms() + 3_600_000;
    let later = Append::new(topic.clone(), Message::new("a", "4")).due_at(later);
    place.broker.append(vec![later]).await.remove(0).unwrap();
    let ttl = Duration::from_secs(60);
    let (janitor, ada) = (name("janitor"), name("ada"));
    place
        .broker
        .acquire(&topic, &janitor, &ada, ttl)
        .await
        .unwrap();

    let shown = place
        .run(&["topic", "show", "orders", "-o", "json"])
        .await
        .json();
    assert_eq!(
        (
            &shown["length"],
            &shown["scheduled"],
            &shown["partitions"],
            &shown["dead_letters"]
        ),
        (&json!(2), &json!(1), &json!(0), &json!(1)),
        "{shown}"
    );
    assert_eq!(shown["first"], json!(positions[0].to_string()));
    assert_eq!(shown["last"], json!(positions[1].to_string()));
    assert_eq!(
        (&shown["leases"][0]["name"], &shown["leases"][0]["holder"]),
        (&json!("janitor"), &json!("ada"))
    );
    let table = place.run(&["topic", "show", "orders"]).await.ok();
    for word in ["DEAD LETTERS", "ago)", "LEASE", "janitor"] {
        assert!(table.contains(word), "{word} is not in {table}");
    }
    place
        .run(&["topic", "show", "other"])
        .await
        .failed(3, "topic-not-found");
}

async fn a_topic_is_divided_once(place: Place) {
    let create = async |partitions: &str| {
        place
            .run(&["topic", "create", "orders", "--partitions", partitions])
            .await
    };
    assert_eq!(create("4").await.ok(), "orders 4\n");
    assert_eq!(create("4").await.ok(), "orders 4\n");
    let said = create("8").await.failed(4, "topic-divided");
    assert!(said.contains("help: use --partitions 4"), "{said}");
    let shown = place
        .run(&["topic", "show", "orders", "-o", "json"])
        .await
        .json();
    assert_eq!(shown["partitions"], 4);
    place
        .run(&["topic", "create", "orders:dlq", "--partitions", "2"])
        .await
        .failed(2, "topic-reserved");
    place.send("orders.1", &["1"]).await;
    let said = place
        .run(&["group", "show", "orders", "billing"])
        .await
        .stderr;
    assert!(said.contains("error: "), "{said}");
    let removed = place
        .run(&["topic", "rm", "orders", "--yes", "-o", "json"])
        .await
        .json();
    assert_eq!(
        (&removed["messages"], &removed["partitions"]),
        (&json!(1), &json!(4)),
        "{removed}"
    );
    assert_eq!(
        place.run(&["topic", "ls", "-o", "json"]).await.json(),
        json!([])
    );
}

async fn a_topic_in_use_is_divided_only_when_that_is_meant(place: Place) {
    let create = async |topic: &str, more: &[&str]| {
        let base = ["topic", "create", topic, "--partitions", "3"];
        place.run(&[&base, more].concat()).await
    };
    let orders = Topic::new("orders").unwrap();
    let divided = async || place.broker.partitions(&orders).await.unwrap();
    place.send("orders", &["1", "2"]).await;
    let membership = Membership::new(orders.clone(), name("billing"), name("ada"));
    let member = place.broker.join(membership).await.unwrap();
    let refused = create("orders", &[]).await;
    for part in ["2 messages", "billing (1 member)", "ordered_topic"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    refused.failed_after_preview("confirmation-missing");
    let look = create("orders", &["--dry-run", "-o", "json"]).await;
    assert_eq!(
        look.json(),
        json!({"topic": "orders", "partitions": 3, "divided": false})
    );
    assert_eq!(divided().await, 0);
    let made = create("orders", &["--yes", "-o", "json"]).await;
    assert_eq!(
        made.json(),
        json!({"topic": "orders", "partitions": 3, "divided": true})
    );
    assert_eq!(divided().await, 3);
    // Once it is divided, that takes nothing from anybody.
    assert_eq!(create("orders", &[]).await.ok(), "orders 3\n");
    member.leave().await.unwrap();

    // What comes later is in use too.
    let mail = Topic::new("mail").unwrap();
    let later = streamerson_core::time::unix_ms() + 3_600_000;
    let later = Append::new(mail, Message::new("a", "4")).due_at(later);
    place.broker.append(vec![later]).await.remove(0).unwrap();
    create("mail", &[])
        .await
        .failed_after_preview("confirmation-missing");
}

async fn a_removed_topic_is_gone_and_its_dead_letters_stay(place: Place) {
    place.send("orders", &["1", "2"]).await;
    place.send("orders:dlq", &["3"]).await;
    let refused = place.run(&["topic", "rm", "orders"]).await;
    assert!(
        refused.stderr.contains("topic orders: 2 messages"),
        "{refused:?}"
    );
    refused.failed_after_preview("confirmation-missing");
    let look = place.run(&["topic", "rm", "orders", "--dry-run"]).await;
    assert_eq!(look.ok(), "");
    assert_eq!(place.messages("orders").await.len(), 2);
    assert_eq!(
        place.run(&["topic", "rm", "orders", "--yes"]).await.ok(),
        "orders\n"
    );
    place
        .run(&["topic", "rm", "orders", "--yes"])
        .await
        .failed(3, "topic-not-found");
    assert_eq!(place.messages("orders:dlq").await.len(), 1);
    place
        .run(&["topic", "rm", "orders:dlq", "--yes"])
        .await
        .ok();
    assert_eq!(place.messages("orders:dlq").await.len(), 0);
}

async fn trimming_keeps_what_a_group_has_not_processed(place: Place) {
    place.send("orders", &["1", "2", "3", "4"]).await;
    let topic = Topic::new("orders").unwrap();
    let membership = Membership::new(topic, name("billing"), name("ada"));
    let mut member = place.broker.join(membership).await.unwrap();
    let first = member.next(1).await.unwrap().remove(0);
    let settled = vec![Settlement::complete(first.receipt)];
    member.settler().settle(settled).await.remove(0).unwrap();
    let trim = ["topic", "trim", "orders", "--max-len", "1"];
    assert_eq!(place.run(&trim).await.ok(), "removed 1\n");
    let force: Vec<&str> = trim.iter().copied().chain(["--force"]).collect();
    place
        .run(&force)
        .await
        .failed_after_preview("confirmation-missing");
    let sure: Vec<&str> = force
        .iter()
        .copied()
        .chain(["--yes", "-o", "json"])
        .collect();
    let trimmed = place.run(&sure).await;
    assert!(
        trimmed.stderr.contains("warning: 2 messages"),
        "{trimmed:?}"
    );
    assert_eq!(
        trimmed.json(),
        json!({"topic": "orders", "removed": 2, "lost": 2, "dry_run": false, "at_least": null})
    );
    assert_eq!(place.messages("orders").await.len(), 1);
}

async fn a_look_at_a_trim_tells_what_would_go_and_what_would_be_lost(place: Place) {
    place.send("orders", &["1", "2", "3", "4", "5"]).await;
    let look = async |options: &[&str]| {
        let base = ["topic", "trim", "orders", "--dry-run", "-o", "json"];
        let ended = place.run(&[&base, options].concat()).await;
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let figure = |name: &str| report[name].as_u64().unwrap();
        assert_eq!(report["dry_run"], json!(true), "{report}");
        (figure("removed"), figure("lost"), ended.stderr)
    };
    // Nobody has read it: all of it is unprocessed.
    let (removed, lost, _) = look(&["--max-len", "1"]).await;
    assert_eq!((removed, lost), (0, 0));
    let (removed, lost, _) = look(&["--max-len", "1", "--force"]).await;
    assert_eq!((removed, lost), (4, 4));

    let membership = Membership::new(Topic::new("orders").unwrap(), name("billing"), name("ada"));
    let mut member = place.broker.join(membership).await.unwrap();
    let mut held = Vec::new();
    while held.len() < 3 {
        held.extend(member.next(3 - held.len()).await.unwrap());
    }
    // The first and the third are done; the second is held.
    held.remove(1);
    let settled = held
        .into_iter()
        .map(|held| Settlement::complete(held.receipt));
    for settled in member.settler().settle(settled.collect()).await {
        settled.unwrap();
    }
    let (removed, lost, _) = look(&["--max-len", "1"]).await;
    assert_eq!((removed, lost), (1, 0));
    let (removed, lost, said) = look(&["--max-len", "1", "--force"]).await;
    assert_eq!((removed, lost), (4, 3));
    assert!(said.contains("3 of them"), "{said}");
    let (removed, lost, _) = look(&["--max-age", "1h", "--force"]).await;
    assert_eq!((removed, lost), (0, 0));
    let (removed, lost, _) = look(&["--max-age", "0s", "--max-len", "3", "--force"]).await;
    assert_eq!((removed, lost), (5, 4));
    assert_eq!(place.messages("orders").await.len(), 5);
    place
        .run(&["topic", "trim", "other", "--max-len", "1"])
        .await
        .failed(3, "topic-not-found");
}

async fn a_look_that_does_not_count_all_does_not_pretend_to(place: Place) {
    place.send("orders", &["1"; 10_500]).await;
    let look = [
        "topic",
        "trim",
        "orders",
        "--max-len",
        "0",
        "--force",
        "--dry-run",
        "-o",
        "json",
    ];
    let looked = place.run(&look).await;
    assert!(
        looked.stderr.contains("at least 10240 of 10500"),
        "{}",
        looked.stderr
    );
    let report = looked.json();
    assert_eq!(
        (&report["removed"], &report["lost"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        report["at_least"],
        json!({"removed": 10_240, "lost": 10_240})
    );
}

async fn a_divided_topic_is_shown_and_trimmed_with_its_partitions(place: Place) {
    place.send("orders", &["0"]).await;
    let orders = Topic::new("orders").unwrap();
    place.broker.divide(&orders, 3).await.unwrap();
    for (part, texts) in [
        ("orders.0", &["1", "2"][..]),
        ("orders.2", &["3", "4", "5"]),
    ] {
        place.send(part, texts).await;
        let topic = Topic::new(part).unwrap();
        let later = streamerson_core::time::unix_ms() + 3_600_000;
        let later = Append::new(topic.clone(), Message::new("a", "9")).due_at(later);
        place.broker.append(vec![later]).await.remove(0).unwrap();
        place
            .broker
            .seek(&topic, &name("billing"), Start::Latest, None)
            .await
            .unwrap();
        let ttl = Duration::from_secs(60);
        let owner = name("owner.billing");
        place
            .broker
            .acquire(&topic, &owner, &name("ada"), ttl)
            .await
            .unwrap();
    }
    let show = ["topic", "show", "orders", "-o", "json"];
    let shown = place.run(&show).await.json();
    assert_eq!(
        (
            &shown["length"],
            &shown["scheduled"],
            &shown["partitions"],
            &shown["first"],
            &shown["last"]
        ),
        (
            &json!(6),
            &json!(2),
            &json!(3),
            &json!(place.first("orders").await),
            &json!(place.last("orders.2").await)
        ),
        "{shown}"
    );
    let topics = |list: &str| -> Vec<String> {
        let list = shown[list].as_array().unwrap().iter();
        list.map(|one| one["topic"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(topics("groups"), ["orders.0", "orders.2"]);
    assert_eq!(topics("leases"), ["orders.0", "orders.2"]);

    let trim = [
        "topic",
        "trim",
        "orders",
        "--max-len",
        "1",
        "--yes",
        "-o",
        "json",
    ];
    let trimmed = place.run(&trim).await.json();
    // What stands on the topic as a whole was read by nobody.
    assert_eq!(
        (&trimmed["removed"], &trimmed["lost"]),
        (&json!(3), &json!(0))
    );
    for (part, left) in [("orders", 1), ("orders.0", 1), ("orders.2", 1)] {
        assert_eq!(place.messages(part).await.len(), left, "{part}");
    }
}

/// A `dev` whose topic `bad` holds a message that rotted on the disk, beside a topic `good`.
async fn rotten() -> Dev {
    let dev = Dev::start(&[]).await;
    for (topic, payload) in [("good", "intact"), ("bad", "rotten")] {
        let sent = [
            "send",
            topic,
            "o",
            "--content-type",
            "text/plain",
            "-d",
            payload,
        ];
        dev.run(&sent).await.ok();
    }
    rot(dev).await
}

/// `dev`, whose message `rotten` has rotted on the disk.
async fn rot(dev: Dev) -> Dev {
    // Opened again, it has no message in memory.
    let dev = Dev::start_in(dev.stop().await, &[]).await;
    let log = dev
        .directory
        .path()
        .join(".streamerson/00000000000000000001.log");
    let bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(6).position(|part| part == b"rotten").unwrap();
    let log = std::fs::File::options().write(true).open(log).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&log, b"R", at as u64).unwrap();
    dev
}

#[tokio::test]
async fn a_topic_that_cannot_be_read_is_listed_as_such_beside_the_others() {
    let dev = rotten().await;
    let listed = dev.run(&["topic", "ls"]).await;
    let row = |topic| listed.stdout.lines().find(|line| line.starts_with(topic));
    assert!(
        row("good").is_some_and(|row| row.contains('1')),
        "{listed:?}"
    );
    assert!(
        row("bad").is_some_and(|row| row.contains("log-damaged")),
        "{listed:?}"
    );
    let said = listed.failed(1, "log-damaged");
    assert!(said.contains("topic bad"), "{said}");

    let listed = dev.run(&["topic", "ls", "-o", "json"]).await;
    let printed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(printed[0]["topic"], json!("bad"));
    assert_eq!(printed[0]["error"]["code"], json!("log-damaged"));
    assert_eq!(printed[1]["length"], json!(1));
    assert_eq!(listed.code, 1);
}

#[tokio::test]
async fn a_topic_that_cannot_be_read_is_shown_as_far_as_it_is_known() {
    let dev = rotten().await;
    let broker = Place::of(dev.broker.clone()).await.broker;
    let (bad, seat, ada) = (Topic::new("bad").unwrap(), name("seat"), name("ada"));
    broker
        .acquire(&bad, &seat, &ada, Duration::from_secs(300))
        .await
        .unwrap();

    let shown = dev.run(&["topic", "show", "bad"]).await;
    for known in ["log-damaged", "seat"] {
        assert!(shown.stdout.contains(known), "{shown:?}");
    }
    let said = shown.failed(1, "log-damaged");
    assert!(
        said.contains("topic bad") && said.contains("restore the file from a backup"),
        "{said}"
    );

    let shown = dev.run(&["topic", "show", "bad", "-o", "json"]).await;
    let printed: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(printed["length"], Value::Null, "{printed}");
    assert_eq!(printed["dead_letters"], 0);
    assert_eq!(printed["leases"][0]["name"], "seat");
    let damaged = &printed["damaged"][0];
    assert_eq!(damaged["topic"], "bad");
    assert_eq!(damaged["error"]["code"], "log-damaged");
    shown.failed(1, "log-damaged");

    let shown = dev.run(&["topic", "show", "good", "-o", "json"]).await;
    assert_eq!(shown.json()["damaged"], json!([]));
}

#[tokio::test]
async fn partitions_are_shown_beside_one_that_cannot_be_read() {
    let dev = Dev::start(&[]).await;
    let create = ["topic", "create", "orders", "--partitions", "2"];
    dev.run(&create).await.ok();
    for (partition, payload) in [(0, "intact"), (1, "rotten")] {
        let mut keys = (0..).map(|n: u32| n.to_string());
        let key = keys.find(|key| partition::of(key, 2) == partition).unwrap();
        let sent = ["send", "orders", "o", "--key", &key, "-d", payload];
        let text = ["--content-type", "text/plain"];
        dev.run(&[&sent[..], &text].concat()).await.ok();
    }
    let seek = ["group", "seek", "orders.0", "billing", "earliest", "--yes"];
    dev.run(&seek).await.ok();
    let dev = rot(dev).await;
    let shown = dev.run(&["topic", "show", "orders", "-o", "json"]).await;
    let printed: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(printed["length"], Value::Null, "{printed}");
    assert_eq!(printed["groups"][0]["topic"], "orders.0", "{printed}");
    assert_eq!(printed["damaged"][0]["topic"], "orders.1", "{printed}");
    shown.failed(1, "log-damaged");
}

#[tokio::test]
async fn dead_letters_that_cannot_be_read_are_told_with_their_topic() {
    let dev = Dev::start(&[]).await;
    let place = Place::of(dev.broker.clone()).await;
    place.send("orders", &["1"]).await;
    place.send("orders:dlq", &["rotten"]).await;
    drop(place);
    let dev = rot(dev).await;
    let shown = dev.run(&["topic", "show", "orders", "-o", "json"]).await;
    let printed: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(
        (&printed["length"], &printed["dead_letters"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(printed["damaged"][0]["topic"], "orders:dlq");
    shown.failed(1, "log-damaged");
}

#[tokio::test]
async fn groups_are_listed_beside_a_topic_that_cannot_be_read() {
    let dev = rotten().await;
    let seek = ["group", "seek", "good", "billing", "earliest", "--yes"];
    dev.run(&seek).await.ok();
    let listed = dev.run(&["group", "ls"]).await;
    assert!(listed.stdout.contains("billing"), "{listed:?}");
    listed.failed(1, "log-damaged");
}

#[tokio::test]
async fn a_topic_that_cannot_be_read_can_be_removed() {
    let dev = rotten().await;
    dev.run(&["topic", "rm", "bad", "--yes"]).await.ok();
    let listed = dev.run(&["topic", "ls"]).await.ok();
    assert!(
        listed.contains("good") && !listed.contains("bad"),
        "{listed}"
    );
}

#[tokio::test]
async fn what_is_only_shown_is_json_too_when_json_is_asked_for() {
    let place = Place::dev().await;
    place.send("orders", &["1", "2"]).await;
    place.send("orders:dlq", &["3"]).await;
    place
        .run(&["group", "seek", "orders", "billing", "latest", "--yes"])
        .await
        .ok();
    for command in [
        &["topic", "rm", "orders"][..],
        &["topic", "trim", "orders", "--max-len", "1", "--force"],
        &["group", "rm", "orders", "billing"],
        &["group", "seek", "orders", "billing", "earliest"],
        &["dlq", "drop", "orders"],
        &["dlq", "retry", "orders"],
    ] {
        let json = [command, &["-o", "json"]].concat();
        let unsaid = place.run(&json).await;
        let looked = place
            .run(&[&json[..], &["--dry-run"]].concat())
            .await
            .json();
        assert_eq!(unsaid.code, 2, "{command:?}: {unsaid:?}");
        let shown: serde_json::Value = serde_json::from_str(&unsaid.stdout).unwrap_or_default();
        assert_eq!(shown, looked, "{command:?}");
    }
}
