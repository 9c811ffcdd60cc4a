//! `topic`: on the embedded broker through its port, and on Redis.

use std::time::Duration;

use serde_json::json;
use streamerson_core::{Append, Membership, Message, Name, Settlement, Topic};

use crate::support::{Place, on_both};

on_both! {
    a_topic_tells_what_it_holds
    a_topic_is_divided_once
    a_removed_topic_is_gone_and_its_dead_letters_stay
    trimming_keeps_what_a_group_has_not_processed
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
        json!({"topic": "orders", "removed": 2, "lost": 2})
    );
    assert_eq!(place.messages("orders").await.len(), 1);
}
