//! How groups stand, on the admin address: in metrics, and as advice on scaling.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use streamerson::worker::Worker;
use streamerson_core::{
    Append, Broker, Membership, Message, Name, Settlement, Topic, Upkeep, partition,
};
use streamerson_gateway::Admin;
use tower::ServiceExt;

use crate::support::{Connection, Edge, Fault, in_flight, metrics, post, until};

fn orders() -> Topic {
    Topic::new("orders").unwrap()
}

async fn send(edge: &Edge, topic: &Topic, count: usize) {
    let append = || Append::new(topic.clone(), Message::new("order.create", "{}"));
    let batch = (0..count).map(|_| append()).collect();
    for stored in edge.broker.append(batch).await {
        stored.unwrap();
    }
}

fn billing(topic: &Topic) -> Membership {
    let name = |name: &str| Name::new(name.to_owned()).unwrap();
    Membership::new(topic.clone(), name("billing"), name("ada"))
}

async fn ask(admin: &Admin, path: &str) -> (u16, Value) {
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .body(())
        .unwrap();
    let Ok(response) = admin.clone().oneshot(request).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[track_caller]
fn tells(metrics: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            metrics.contains(&format!("\n{line}\n")),
            "{line} is not in {metrics}"
        );
    }
}

#[tokio::test]
async fn groups_tell_how_far_behind_they_are_and_what_they_hold() {
    let edge = Edge::serve("").await;
    send(&edge, &orders(), 5).await;
    let mut member = edge.broker.join(billing(&orders())).await.unwrap();
    let held = member.next(2).await.unwrap();
    assert_eq!(held.len(), 2);
    let text = metrics(&edge).await;
    tells(
        &text,
        &[
            "strm_broker_up 1",
            "strm_topics_unseen 0",
            r#"strm_topic_messages{topic="orders"} 5.0"#,
            r#"strm_topic_dead_letters{topic="orders"} 0.0"#,
            r#"strm_group_lag_messages{topic="orders",group="billing"} 3.0"#,
            r#"strm_group_pending{topic="orders",group="billing"} 2.0"#,
            r#"strm_group_members{topic="orders",group="billing"} 1.0"#,
        ],
    );
    for name in [
        "strm_group_lag_seconds{",
        "strm_group_oldest_pending_seconds{",
    ] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
}

#[tokio::test]
async fn routes_tell_who_works_on_their_topics() {
    let route =
        |topic| format!("[[route]]\npath = \"/{topic}\"\ntopic = \"{topic}\"\ntype = \"t\"\n");
    let edge = Edge::serve(&(route("orders") + &route("deaf"))).await;
    drop(edge.broker.join(billing(&orders())).await.unwrap());
    send(&edge, &Topic::new("deaf").unwrap(), 1).await;
    let admin = || Admin::new(edge.gateway.clone());
    let routes = ask(&admin(), "/routes").await.1;
    assert_eq!(routes[0]["groups"], json!(["billing"]));
    assert_eq!(routes[1]["groups"], json!([]));
    edge.broker.set(Fault::Away);
    let routes = ask(&admin(), "/routes").await.1;
    assert_eq!(routes[0]["groups"], json!(null), "nobody knows");
}

#[tokio::test]
async fn a_divided_topic_is_one_to_the_metrics() {
    let edge = Edge::serve("").await;
    edge.broker.divide(&orders(), 3).await.unwrap();
    for number in 0..3 {
        let part = partition::topic(&orders(), number).unwrap();
        send(&edge, &part, 2).await;
        drop(edge.broker.join(billing(&part)).await.unwrap());
    }
    let text = metrics(&edge).await;
    tells(
        &text,
        &[
            r#"strm_topic_messages{topic="orders"} 6.0"#,
            r#"strm_group_lag_messages{topic="orders",group="billing"} 6.0"#,
        ],
    );
    assert!(!text.contains("orders.0"), "{text}");
}

#[tokio::test]
async fn what_nobody_reads_in_a_divided_topic_is_the_lag_of_its_group() {
    let edge = Edge::serve("").await;
    let _member = edge.broker.join(billing(&orders())).await.unwrap();
    edge.broker.divide(&orders(), 3).await.unwrap();
    for number in 0..2 {
        send(&edge, &partition::topic(&orders(), number).unwrap(), 2).await;
    }
    let text = metrics(&edge).await;
    tells(
        &text,
        &[r#"strm_group_lag_messages{topic="orders",group="billing"} 4.0"#],
    );
    let admin = Admin::new(edge.gateway.clone());
    let (_, advice) = ask(&admin, "/admin/v1/scale/orders/billing").await;
    assert_eq!(
        (&advice["backlog"], &advice["desired_replicas"]),
        (&json!(4), &json!(1)),
        "{advice}"
    );
}

#[tokio::test(start_paused = true)]
async fn figures_are_asked_for_rarely_and_a_broker_that_is_away_is_told() {
    let edge = Edge::serve("").await;
    send(&edge, &orders(), 1).await;
    let admin = Admin::new(edge.gateway.clone());
    let read = async || {
        let request = Request::get("/metrics").body(()).unwrap();
        let Ok(response) = admin.clone().oneshot(request).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    tells(
        &read().await,
        &[r#"strm_topic_messages{topic="orders"} 1.0"#],
    );
    send(&edge, &orders(), 1).await;
    tells(
        &read().await,
        &[r#"strm_topic_messages{topic="orders"} 1.0"#],
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    tells(
        &read().await,
        &[r#"strm_topic_messages{topic="orders"} 2.0"#],
    );
    for fault in [Fault::Away, Fault::Silent] {
        edge.broker.set(fault);
        tokio::time::advance(Duration::from_secs(1)).await;
        let text = read().await;
        tells(&text, &["strm_topics_unseen 1"]);
        assert!(text.contains("strm_gateway_connections"), "{text}");
    }
}

#[tokio::test]
async fn routes_that_differ_in_their_method_have_one_line_and_stages_tell_where_requests_are() {
    let edge = Edge::serve(
        "[[route]]\npath = \"/o\"\nmethod = \"POST\"\ntopic = \"orders\"\ntype = \"a\"\n\
         [[route]]\npath = \"/o\"\nmethod = \"PUT\"\ntopic = \"orders\"\ntype = \"b\"",
    )
    .await;
    let mut receiving = Connection::to(edge.address).await;
    receiving
        .write(&post("/o", "{}")[..post("/o", "{}").len() - 1])
        .await;
    let mut waiting = Connection::to(edge.address).await;
    waiting.write(post("/o", "{}").replace("POST", "PUT")).await;
    until("both are in progress", async || in_flight(&edge).await == 2).await;
    let waits = r#"strm_gateway_requests_in_flight{route="/o",stage="waiting"} 1"#;
    until("one waits", async || metrics(&edge).await.contains(waits)).await;
    let text = metrics(&edge).await;
    tells(
        &text,
        &[r#"strm_gateway_requests_in_flight{route="/o",stage="receiving"} 1"#],
    );
    assert_eq!(text.matches(waits).count(), 1, "{text}");
}

#[tokio::test]
async fn workers_of_the_process_are_counted_along() {
    let edge = Edge::serve("").await;
    let worker = Worker::new(edge.broker.clone() as Arc<dyn Broker>);
    let admin = Admin::new(edge.gateway.clone()).with_workers([("billing", worker.counters())]);
    let request = Request::get("/metrics").body(()).unwrap();
    let Ok(response) = admin.oneshot(request).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    tells(&text, &[r#"strm_worker_fenced_total{worker="billing"} 0"#]);
}

#[tokio::test]
async fn a_single_message_wakes_a_group_and_none_lets_it_sleep() {
    let edge = Edge::serve("").await;
    let admin = Admin::new(edge.gateway.clone());
    let path = "/admin/v1/scale/orders/billing";
    let (status, nothing) = ask(&admin, path).await;
    assert_eq!(
        (status, &nothing["desired_replicas"]),
        (200, &json!(0)),
        "{nothing}"
    );
    assert_eq!(nothing["exists"], false);

    send(&edge, &orders(), 1).await;
    let (_, woken) = ask(&admin, path).await;
    assert_eq!(woken["desired_replicas"], 1, "{woken}");

    let mut member = edge.broker.join(billing(&orders())).await.unwrap();
    let held = member.next(1).await.unwrap();
    let (_, held_one) = ask(&admin, path).await;
    assert_eq!(
        (
            &held_one["desired_replicas"],
            &held_one["pending"],
            &held_one["members"]
        ),
        (&json!(1), &json!(1), &json!(1)),
        "{held_one}"
    );
    let settled = held
        .into_iter()
        .map(|held| Settlement::complete(held.receipt));
    member.settler().settle(settled.collect()).await;
    let (_, done) = ask(&admin, path).await;
    assert_eq!(done["desired_replicas"], 0, "{done}");
    let (_, least) = ask(&admin, &format!("{path}?min=2&target_seconds=5")).await;
    assert_eq!(
        (&least["desired_replicas"], &least["target_seconds"]),
        (&json!(2), &json!(5))
    );
}

#[tokio::test]
async fn what_cannot_be_answered_is_an_error_and_not_a_number() {
    let edge = Edge::serve("").await;
    let admin = Admin::new(edge.gateway.clone());
    for path in [
        "orders",
        "orders/",
        "a%2Fb/c",
        "orders/billing?max=0",
        "orders/billing?speed=9",
    ] {
        let (status, said) = ask(&admin, &format!("/admin/v1/scale/{path}")).await;
        assert_eq!(
            (status, &said["code"]),
            (400, &json!("invalid-scale-request")),
            "{path}"
        );
        assert!(said.get("desired_replicas").is_none());
    }
    edge.broker.set(Fault::Away);
    let (status, said) = ask(&admin, "/admin/v1/scale/orders/billing").await;
    assert_eq!((status, &said["code"]), (503, &json!("broker-unavailable")));
}

#[tokio::test(start_paused = true)]
async fn as_many_partitions_as_there_can_be_are_asked_about_in_time() {
    let edge = Edge::serve("").await;
    edge.broker
        .divide(&orders(), partition::MOST)
        .await
        .unwrap();
    for number in 0..partition::MOST {
        send(&edge, &partition::topic(&orders(), number).unwrap(), 1).await;
    }
    edge.broker.set(Fault::Slow);
    let admin = Admin::new(edge.gateway.clone());
    let (status, said) = ask(&admin, "/admin/v1/scale/orders/billing").await;
    assert_eq!((status, &said["backlog"]), (200, &json!(partition::MOST)));
    tells(
        &metrics(&edge).await,
        &[
            "strm_topics_unseen 0",
            r#"strm_topic_messages{topic="orders"} 1024.0"#,
        ],
    );
}
