//! The admin port of a running `dev`: what Prometheus and KEDA read.

use serde_json::json;
use streamerson_core::{Name, Start, Topic};
use streamerson_testkit::redis::RedisServer;

use crate::support::{Dev, http};

async fn metrics(dev: &Dev) -> String {
    let (status, text) = http("GET", &format!("{}/metrics", dev.admin), "").await;
    assert_eq!(status, 200);
    text.as_str().unwrap().to_owned()
}

async fn scale(dev: &Dev, path: &str) -> serde_json::Value {
    let (status, answer) = http("GET", &format!("{}/admin/v1/scale/{path}", dev.admin), "").await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn dev_tells_prometheus_and_keda_how_it_stands() {
    let redis = RedisServer::start().await;
    for dev in [
        Dev::start(&["--demo"]).await,
        Dev::start_on(&redis.url(), &["--demo"]).await,
    ] {
        let (status, _) = dev.post("/hello/greet", r#"{"name":"Ada"}"#).await;
        assert_eq!(status, 200);
        // Nobody waits for it, and it cannot become right: a dead letter.
        dev.run(&["send", "hello", "greet", "--data", "7"])
            .await
            .ok();
        let name = Topic::new("hello").unwrap().dead_letters();
        let namespace = Name::new("streamerson").unwrap();
        let broker = streamerson::connect_in(&dev.broker, namespace)
            .await
            .unwrap();
        let mut letters = broker.read(&name, Start::Earliest).await.unwrap();
        letters.next(1).await.unwrap();
        let text = metrics(&dev).await;
        for name in [
            "strm_build_info{",
            "strm_gateway_requests_in_flight{",
            r#"strm_gateway_request_duration_seconds_count{route="/{topic}/{type}",code="200"} 1"#,
            r#"strm_group_lag_messages{topic="hello",group="demo"} 0"#,
            r#"strm_group_lag_seconds{topic="hello",group="demo"} 0"#,
            r#"strm_group_pending{topic="hello",group="demo"} "#,
            r#"strm_group_oldest_pending_seconds{topic="hello",group="demo"} "#,
            r#"strm_topic_dead_letters{topic="hello"} 1"#,
            r#"strm_dead_letters_total{reason="invalid-payload"} 1"#,
            r#"strm_worker_handled_total{worker="hello"} 2"#,
            "strm_broker_lost_groups_total 0",
            r#"strm_worker_fenced_total{worker="notes"} 0"#,
        ] {
            assert!(text.contains(name), "{name} is not in {text}");
        }
        assert!(!text.contains("greet"), "{text}");
        dev.stop().await;
    }
}

#[tokio::test]
async fn a_message_without_workers_asks_for_one() {
    let dev = Dev::start(&[]).await;
    assert_eq!(scale(&dev, "orders/billing").await["desired_replicas"], 0);
    dev.run(&["send", "orders", "order.create"]).await.ok();
    let woken = scale(&dev, "orders/billing?target_seconds=10&max=5").await;
    assert_eq!(
        (
            &woken["desired_replicas"],
            &woken["backlog"],
            &woken["exists"]
        ),
        (&json!(1), &json!(1), &json!(false)),
        "{woken}"
    );
}
