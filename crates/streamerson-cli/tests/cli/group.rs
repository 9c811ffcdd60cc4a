//! `group`: on the embedded broker through its port, and on Redis.

use std::time::Duration;

use serde_json::{Value, json};
use streamerson_core::{Delivery, Member, Membership, Name, Settlement, Topic};

use crate::support::{Place, on_both};

on_both! {
    a_group_tells_how_far_it_is_and_what_it_holds
    moving_a_group_is_shown_before_it_is_done
    a_removed_group_is_gone_and_needs_a_yes
    what_is_not_there_is_told_with_what_is
    a_divided_topic_has_its_groups_in_its_partitions
    what_nobody_reads_in_a_divided_topic_is_lag
}

async fn join(place: &Place) -> Box<dyn Member> {
    let name = |name: &str| Name::new(name.to_owned()).unwrap();
    let topic = Topic::new("orders").unwrap();
    let membership = Membership {
        lease: Duration::from_secs(300),
        ..Membership::new(topic, name("billing"), name("ada"))
    };
    place.broker.join(membership).await.unwrap()
}

async fn take(member: &mut dyn Member, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(member.next(count - taken.len()).await.unwrap());
    }
    taken
}

async fn texts(member: &mut dyn Member, count: usize) -> Vec<String> {
    let taken = take(member, count).await;
    let texts = taken.iter().map(|delivery| delivery.message.data.to_vec());
    texts.map(|text| String::from_utf8(text).unwrap()).collect()
}

async fn a_group_tells_how_far_it_is_and_what_it_holds(place: Place) {
    let positions = place.send("orders", &["1", "2", "3", "4", "5"]).await;
    let mut member = join(&place).await;
    let mut held = take(&mut *member, 3).await;
    let given_back = held.remove(1);
    let later = Settlement::retry(given_back.receipt, Duration::from_secs(3600));
    member
        .settler()
        .settle(vec![later])
        .await
        .remove(0)
        .unwrap();

    let listed = place.run(&["group", "ls", "-o", "json"]).await.json();
    let group = &listed[0];
    assert_eq!(
        (
            &group["topic"],
            &group["group"],
            &group["lag"],
            &group["pending"],
            &group["retrying"]
        ),
        (
            &json!("orders"),
            &json!("billing"),
            &json!(2),
            &json!(3),
            &json!(1)
        ),
        "{group}"
    );
    assert_eq!(group["next"], json!(positions[3].to_string()));
    assert_eq!(group["oldest_pending"], json!(positions[0].to_string()));
    assert!(group["lag_ms"].is_u64() && group["oldest_pending_ms"].is_u64());
    assert_eq!(group["members"][0]["name"], "ada");

    let shown: Value = place
        .run(&["group", "show", "orders", "billing", "-o", "json"])
        .await
        .json();
    let oldest = shown["oldest"].as_array().unwrap();
    assert_eq!(oldest.len(), 3);
    assert_eq!(
        (
            &oldest[0]["position"],
            &oldest[0]["member"],
            &oldest[0]["attempt"],
            &oldest[0]["due_ms"]
        ),
        (
            &json!(positions[0].to_string()),
            &json!("ada"),
            &json!(1),
            &Value::Null
        )
    );
    assert!(oldest[1]["due_ms"].as_u64().unwrap() > 3_000_000, "{shown}");
    let two = [
        "group", "show", "orders", "billing", "--top", "2", "-o", "json",
    ];
    let two = place.run(&two).await.json();
    assert_eq!(two["oldest"].as_array().unwrap().len(), 2);

    for command in [
        &["group", "ls", "orders"][..],
        &["group", "show", "orders", "billing"],
    ] {
        let table = place.run(command).await.ok();
        for word in ["GROUP", "BEHIND", "billing"] {
            assert!(table.contains(word), "{word} is not in {table}");
        }
    }
}

async fn moving_a_group_is_shown_before_it_is_done(place: Place) {
    let positions = place.send("orders", &["1", "2", "3", "4"]).await;
    let mut member = join(&place).await;
    let done = take(&mut *member, 3).await;
    let done = done
        .into_iter()
        .map(|held| Settlement::complete(held.receipt));
    for settled in member.settler().settle(done.collect()).await {
        settled.unwrap();
    }
    let second = positions[1].to_string();
    let seek = async |to: &str, more: &[&str]| {
        let base = ["group", "seek", "orders", "billing", to, "-o", "json"];
        let all: Vec<&str> = base.iter().chain(more).copied().collect();
        place.run(&all).await
    };
    let figures = |moved: &Value| {
        let figure = |name: &str| moved[name].as_u64().unwrap();
        (
            figure("again"),
            figure("passed_over"),
            moved["moved"].as_bool().unwrap(),
        )
    };
    let look = seek(&second, &["--dry-run"]).await;
    assert!(look.stderr.contains("1 messages come again"), "{look:?}");
    assert_eq!(figures(&look.json()), (1, 0, false));
    assert_eq!(
        figures(&seek("earliest", &["--dry-run"]).await.json()),
        (3, 0, false)
    );
    assert_eq!(
        figures(&seek("latest", &["--dry-run"]).await.json()),
        (0, 1, false)
    );
    assert_eq!(seek("earliest", &[]).await.code, 2, "nobody said --yes");
    assert_eq!(texts(&mut *member, 1).await, ["4"]);

    assert!(figures(&seek(&second, &["--yes"]).await.json()).2);
    assert_eq!(texts(&mut *member, 1).await, ["3"]);

    let new = ["group", "seek", "orders", "audit", "latest", "--yes"];
    let said = place.run(&new).await;
    assert!(said.stderr.contains("is created at latest"), "{said:?}");
    let listed = place
        .run(&["group", "ls", "orders", "-o", "json"])
        .await
        .json();
    assert_eq!(
        (&listed[0]["group"], &listed[0]["lag"]),
        (&json!("audit"), &json!(0))
    );
    // No message waits, and none is held: that is no age, rather than one of zero.
    for age in ["lag_ms", "oldest_pending_ms"] {
        assert_eq!(listed[0][age], Value::Null, "{age}");
    }
}

async fn a_removed_group_is_gone_and_needs_a_yes(place: Place) {
    place.send("orders", &["1", "2"]).await;
    let mut member = join(&place).await;
    take(&mut *member, 1).await;
    let rm = ["group", "rm", "orders", "billing"];
    let refused = place.run(&rm).await;
    assert!(
        refused.stderr.contains("will create the group again"),
        "{refused:?}"
    );
    refused.failed_after_preview("confirmation-missing");
    let sure = ["group", "rm", "orders", "billing", "--yes", "-o", "json"];
    let removed = place.run(&sure).await.json();
    assert_eq!(
        (&removed["removed"], &removed["pending"], &removed["lag"]),
        (&json!(true), &json!(1), &json!(1))
    );
    place.run(&sure).await.failed(3, "group-not-found");
    assert_eq!(
        place.run(&["group", "ls", "-o", "json"]).await.json(),
        json!([])
    );
}

async fn what_is_not_there_is_told_with_what_is(place: Place) {
    for command in [
        &["group", "ls", "orders"][..],
        &["group", "show", "orders", "billing"],
        &["group", "rm", "orders", "billing", "--yes"],
        &["group", "seek", "orders", "billing", "latest", "--yes"],
    ] {
        let said = place.run(command).await.failed(3, "topic-not-found");
        assert!(said.contains("help: "), "{said}");
    }
    assert_eq!(place.broker.topics().await.unwrap(), []);
    place.send("orders", &["1"]).await;
    let _member = join(&place).await;
    let said = place.run(&["group", "show", "orders", "biling"]).await;
    let said = said.failed(3, "group-not-found");
    assert!(said.contains("there are: billing"), "{said}");
}

async fn a_divided_topic_has_its_groups_in_its_partitions(place: Place) {
    let orders = Topic::new("orders").unwrap();
    // Sent before it was divided: there is something on the topic as a whole.
    place.send("orders", &["1"]).await;
    place.broker.divide(&orders, 3).await.unwrap();
    place.send("orders.1", &["2"]).await;
    for command in [
        &["group", "show", "orders", "billing"][..],
        &["group", "rm", "orders", "billing", "--yes"],
        &["group", "seek", "orders", "billing", "earliest", "--yes"],
    ] {
        let said = place.run(command).await.failed(3, "group-not-found");
        assert!(said.contains("orders.0 to orders.2"), "{said}");
    }
    let listed = place.run(&["group", "ls", "-o", "json"]).await.json();
    assert_eq!(listed, json!([]));
    let part = [
        "group", "seek", "orders.1", "billing", "earliest", "--yes", "-o", "json",
    ];
    assert_eq!(place.run(&part).await.json()["moved"], json!(true));
}

async fn what_nobody_reads_in_a_divided_topic_is_lag(place: Place) {
    let _member = join(&place).await;
    let orders = Topic::new("orders").unwrap();
    place.broker.divide(&orders, 3).await.unwrap();
    place.send("orders.0", &["1", "2"]).await;
    place.send("orders.2", &["3"]).await;
    for ls in [&["group", "ls"][..], &["group", "ls", "orders"]] {
        let listed = place.run(&[ls, &["-o", "json"]].concat()).await.json();
        let lag = |topic: &str| {
            let mut groups = listed.as_array().unwrap().iter();
            let group = groups.find(|group| group["topic"] == topic);
            group.map(|group| (group["group"].clone(), group["lag"].clone()))
        };
        let billing = |lag: u64| Some((json!("billing"), json!(lag)));
        let lags = ["orders", "orders.0", "orders.1", "orders.2"].map(lag);
        assert_eq!(lags, [billing(0), billing(2), None, billing(1)], "{listed}");
    }
    let show = ["group", "show", "orders", "billing", "-o", "json"];
    let shown = place.run(&show).await;
    assert!(shown.stderr.contains("reads 3 messages"), "{shown:?}");
    assert_eq!(shown.json()["lag"], 3);
}
