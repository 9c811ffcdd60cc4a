//! `reply` with a template, and what is common to all of `reply`.

use serde_json::json;
use streamerson_core::Topic;
use streamerson_testkit::redis::RedisServer;

use crate::support::{Dev, Place, Running, on_both, run};

on_both! {
    a_divided_topic_is_answered_in_all_its_partitions
    a_reply_ends_when_its_topic_is_divided
}

const HOWDY: &str = r#"{"howdy":"there, {{ payload.name | default("stranger") }}"}"#;

async fn greets(dev: &Dev) {
    let reply = [
        "reply",
        "hello",
        "greet",
        "--json",
        HOWDY,
        "--broker",
        &dev.broker,
    ];
    let mut worker = Running::start(reply);
    worker.line("answering greet on hello").await;
    let answer = dev.post("/hello/greet", r#"{"name":"Ada"}"#).await;
    assert_eq!(answer, (200, json!({"howdy": "there, Ada"})));
    let answer = dev.post("/hello/greet", "").await;
    assert_eq!(answer, (200, json!({"howdy": "there, stranger"})));
    worker.process.terminate();
    assert_eq!(worker.ended().await.0, 0);
}

#[tokio::test]
async fn a_template_answers_over_the_port_of_the_embedded_broker() {
    greets(&Dev::start(&[]).await).await;
}

#[tokio::test]
async fn a_template_answers_over_redis() {
    let redis = RedisServer::start().await;
    greets(&Dev::start_on(&redis.url(), &[]).await).await;
}

#[tokio::test]
async fn a_template_sees_the_http_request() {
    let dev = Dev::start(&[]).await;
    let template = r#"{"q":"{{ query.q }}","type":"{{ type }}","n":"{{ payload.n + 1 }}"}"#;
    let _worker = Running::start([
        "reply",
        "find",
        "it",
        "--json",
        template,
        "--broker",
        &dev.broker,
    ]);
    let answer = dev.post("/find/it?q=a%20b", r#"{"n":41}"#).await;
    let expected = json!({"q": "a b", "type": "it", "n": 42});
    assert_eq!(answer, (200, expected));
}

#[tokio::test]
async fn a_template_that_does_not_fit_the_message_is_a_failed_request() {
    let dev = Dev::start(&[]).await;
    let template = r#""{{ payload.a + payload.b }}""#;
    let _worker = Running::start([
        "reply",
        "sum",
        "it",
        "--json",
        template,
        "--broker",
        &dev.broker,
    ]);
    let ended = dev
        .run(&["request", "sum", "it", "-d", r#"{"a":1,"b":[]}"#])
        .await;
    ended.failed(1, "template-failed");
    let sum = dev
        .run(&["request", "sum", "it", "-d", r#"{"a":1,"b":2}"#])
        .await;
    assert_eq!(sum.ok(), "3\n");
}

#[tokio::test]
async fn each_type_is_answered_by_its_own_worker_only() {
    let dev = Dev::start(&[]).await;
    let a = [
        "reply",
        "letters",
        "a",
        "--json",
        r#""from a""#,
        "--broker",
        &dev.broker,
    ];
    let b = [
        "reply",
        "letters",
        "b",
        "--json",
        r#""from b""#,
        "--broker",
        &dev.broker,
    ];
    let _workers = [Running::start(a), Running::start(b)];
    for _ in 0..20 {
        assert_eq!(dev.post("/letters/a", "").await, (200, json!("from a")));
        assert_eq!(dev.post("/letters/b", "").await, (200, json!("from b")));
    }
    let groups = dev
        .run(&["topic", "show", "letters", "-o", "json"])
        .await
        .json();
    let names: Vec<_> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| &g["group"])
        .collect();
    assert_eq!(names, [&json!("reply-a"), &json!("reply-b")]);
    assert_eq!(groups["length"], json!(40));
}

#[tokio::test]
async fn what_was_sent_before_there_was_a_worker_is_handled_once_there_is_one() {
    for redis in [None, Some(RedisServer::start().await)] {
        let dev = match &redis {
            Some(redis) => Dev::start_on(&redis.url(), &[]).await,
            None => Dev::start(&[]).await,
        };
        dev.run(&["send", "jobs", "work", "--data", r#"{"n":7}"#])
            .await
            .ok();
        let script = r#"while read -r line; do echo "got $line" >&2; echo null; done"#;
        let reply = [
            "reply",
            "jobs",
            "work",
            "--broker",
            &dev.broker,
            "--",
            "sh",
            "-c",
            script,
        ];
        let mut worker = Running::start(reply);
        let line = worker.line("got ").await;
        assert!(line.contains(r#""payload":{"n":7}"#), "{line}");
    }
}

#[tokio::test]
async fn a_group_that_begins_with_the_latest_leaves_the_past_alone() {
    let dev = Dev::start(&[]).await;
    dev.run(&["send", "jobs", "work", "--data", "1"]).await.ok();
    let reply = [
        "reply",
        "jobs",
        "work",
        "--from",
        "latest",
        "--broker",
        &dev.broker,
    ];
    let script = r#"while read -r line; do echo "got $line" >&2; echo null; done"#;
    let mut worker = Running::start(reply.iter().chain(&["--", "sh", "-c", script]));
    // Until the group is there, messages are of the past.
    loop {
        let shown = dev
            .run(&["topic", "show", "jobs", "-o", "json"])
            .await
            .json();
        if shown["groups"] != json!([]) {
            break;
        }
    }
    dev.run(&["send", "jobs", "work", "--data", "2"]).await.ok();
    let line = worker.line("got ").await;
    assert!(line.contains(r#""payload":2"#), "{line}");
}

#[tokio::test]
async fn without_dev_the_error_says_to_start_it() {
    // The default port is fixed: when something listens there, the default works.
    if std::net::TcpStream::connect("127.0.0.1:6380").is_ok() {
        return;
    }
    let said = run(["reply", "hello", "greet", "--json", "1"]).await;
    assert_eq!(said.code, 6, "{}", said.stderr);
    assert!(
        said.stderr.contains("streamerson dev") && said.stderr.contains("--broker"),
        "{}",
        said.stderr
    );
}

async fn a_divided_topic_is_answered_in_all_its_partitions(place: Place) {
    let numbers = Topic::new("numbers").unwrap();
    place.broker.divide(&numbers, 2).await.unwrap();
    let double = [
        "reply",
        "numbers",
        "double",
        "--json",
        r#""{{ payload * 2 }}""#,
    ];
    let mut worker = place.start(&double);
    worker.line("answering double on numbers").await;
    let used = async |part: &str| !place.messages(part).await.is_empty();
    // A message without a key goes anywhere.
    while !(used("numbers.0").await && used("numbers.1").await) {
        let ask = ["request", "numbers", "double", "--data", "21"];
        assert_eq!(place.run(&ask).await.ok().trim(), "42");
    }
    worker.process.terminate();
    assert_eq!(worker.ended().await.0, 0);
}

async fn a_reply_ends_when_its_topic_is_divided(place: Place) {
    let mut worker = place.start(&["reply", "work", "do", "--json", "1"]);
    worker.line("answering do on work").await;
    let ask = ["request", "work", "do", "--timeout", "20s"];
    assert_eq!(place.run(&ask).await.ok().trim(), "1");
    let divide = ["topic", "create", "work", "--partitions", "2", "--yes"];
    let divided = place.run(&divide).await;
    assert!(
        divided.stderr.contains("reply-do (1 member)"),
        "{divided:?}"
    );
    divided.ok();
    let (code, said) = worker.ended().await;
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("(topic-divided)") && said.contains("help: "),
        "{said}"
    );
}
