//! `send`, `request`, `tail` and `topic`.

use std::collections::BTreeSet;

use serde_json::json;
use streamerson_testkit::redis::RedisServer;

use streamerson::Client;
use streamerson_core::{Topic, partition};

use crate::support::{Dev, Place, on_both, run, run_with_input};

on_both! {
    a_message_to_a_divided_topic_goes_to_the_partition_that_any_client_would_choose
    what_has_a_key_goes_to_the_partition_of_the_key
    partitions_take_no_messages_from_commands
    tail_follows_a_divided_topic_in_all_its_partitions
}

async fn a_message_to_a_divided_topic_goes_to_the_partition_that_any_client_would_choose(
    place: Place,
) {
    let orders = Topic::new("orders").unwrap();
    place.broker.divide(&orders, 8).await.unwrap();
    let client = Client::open(place.broker.clone()).await.unwrap();
    let ours = client.send("orders", "order.create").idempotency_key("k");
    let ours = ours.await.unwrap().to_string();
    let send = [
        "send",
        "orders",
        "order.create",
        "--idempotency-key",
        "k",
        "-o",
        "json",
    ];
    let sent = place.run(&send).await.json();
    assert_eq!(
        (&sent["position"], &sent["repeat"]),
        (&json!(ours), &json!(true))
    );
    let text = place.run(&send[..5]).await;
    assert!(text.stderr.contains("stored before"), "{}", text.stderr);
    let id = sent["id"].as_str().unwrap();
    assert_eq!(text.ok().trim(), format!("{id} {ours}"));
    place.run(&["send", "orders", "order.create"]).await.ok();
    assert_eq!(place.messages("orders").await, []);
    let mut stored = 0;
    for number in 0..8 {
        stored += place.messages(&format!("orders.{number}")).await.len();
    }
    assert_eq!(stored, 2);
}

async fn what_has_a_key_goes_to_the_partition_of_the_key(place: Place) {
    let ledger = Topic::new("ledger").unwrap();
    place.broker.divide(&ledger, 8).await.unwrap();
    for n in ["1", "2", "3"] {
        let send = ["send", "ledger", "step", "--key", "account-7", "--data", n];
        place.run(&send).await.ok();
    }
    let number = partition::of("account-7", 8);
    let stored = place.messages(&format!("ledger.{number}")).await;
    let stored = stored.iter().map(|message| {
        let key = message.parse_meta().unwrap().key;
        (
            key.unwrap(),
            String::from_utf8(message.data.to_vec()).unwrap(),
        )
    });
    let expected = ["1", "2", "3"].map(|n| ("account-7".to_owned(), n.to_owned()));
    assert_eq!(stored.collect::<Vec<_>>(), expected);

    let mut worker = place.start(&["reply", "ledger", "whose", "--json", r#""{{ meta.key }}""#]);
    worker.line("answering").await;
    let ask = ["request", "ledger", "whose", "--key", "account-7"];
    assert_eq!(place.run(&ask).await.ok().trim(), r#""account-7""#);
}

async fn partitions_take_no_messages_from_commands(place: Place) {
    let ledger = Topic::new("ledger").unwrap();
    place.broker.divide(&ledger, 2).await.unwrap();
    for command in [
        ["send", "ledger.1", "step"],
        ["request", "ledger.0", "step"],
    ] {
        let said = place.run(&command).await.failed(2, "topic-reserved");
        assert!(said.contains("send to ledger"), "{said}");
    }
    for topic in ["ledger.2", "ledger.01", "mail.1"] {
        place.run(&["send", topic, "step"]).await.ok();
    }
}

async fn tail_follows_a_divided_topic_in_all_its_partitions(place: Place) {
    let orders = Topic::new("orders").unwrap();
    place.send("orders", &["0"]).await;
    place.broker.divide(&orders, 8).await.unwrap();
    for part in ["orders.2", "orders.5"] {
        place.send(part, &["1"]).await;
    }
    let tail = ["tail", "orders", "--from", "earliest", "-n", "3"];
    let mut seen = BTreeSet::new();
    for line in place
        .run(&[&tail[..], &["-o", "json"]].concat())
        .await
        .ok()
        .lines()
    {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        seen.insert(record["topic"].as_str().unwrap().to_owned());
    }
    let all = ["orders", "orders.2", "orders.5"].map(str::to_owned);
    assert_eq!(seen, BTreeSet::from(all));
    let text = place.run(&tail).await.ok();
    assert!(text.contains("orders.5  "), "{text}");
}

#[tokio::test]
async fn send_prints_id_and_position() {
    let dev = Dev::start(&[]).await;
    let text = dev.run(&["send", "orders", "order.create"]).await.ok();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!((words.len(), words[0].len()), (2, 36), "{text}");

    let sent = dev
        .run(&["send", "orders", "order.create", "-d", "{}", "-o", "json"])
        .await
        .json();
    let tail = dev
        .run(&[
            "tail", "orders", "--from", words[1], "-n", "1", "-o", "json",
        ])
        .await
        .json();
    assert_eq!(
        (&tail["id"], &tail["position"]),
        (&sent["id"], &sent["position"])
    );
}

#[tokio::test]
async fn a_message_may_appear_later_and_one_with_a_key_is_stored_once() {
    let server = RedisServer::start().await;
    let url = server.url();
    let send = async |options: &[&str]| {
        let to = ["send", "orders", "o", "--broker", &url, "-o", "json"];
        run(&[&to[..], options].concat()).await.json()
    };
    let first = send(&["-d", "1", "--idempotency-key", "k"]).await;
    let again = send(&["-d", "1", "--idempotency-key", "k"]).await;
    assert_eq!(
        (&first["position"], &first["id"]),
        (&again["position"], &again["id"])
    );
    assert_eq!(
        (&first["repeat"], &again["repeat"]),
        (&json!(false), &json!(true))
    );

    let later = send(&["-d", "2", "--delay", "7d"]).await;
    assert_eq!(
        (&later["position"], &later["repeat"]),
        (&json!(null), &json!(false))
    );
    send(&["-d", "3", "--at", "2020-01-01T00:00:00Z"]).await;
    let show = ["topic", "show", "orders", "--broker", &url, "-o", "json"];
    let shown = run(show).await.json();
    assert_eq!(
        (&shown["length"], &shown["scheduled"]),
        (&json!(2), &json!(1))
    );
}

#[tokio::test]
async fn what_only_the_broker_knows_of_a_message_with_a_key_is_not_made_up() {
    let dev = Dev::start(&[]).await;
    let send = ["send", "orders", "o", "--idempotency-key", "k"];
    let later = [&send[..], &["--delay", "7d", "-o", "json"]].concat();
    let unknown = json!({"id": null, "position": null, "repeat": null});
    assert_eq!(dev.run(&later).await.json(), unknown);
    assert_eq!(dev.run(&send).await.ok().trim(), "- scheduled");
}

#[tokio::test]
async fn a_payload_comes_from_the_line_a_file_or_stdin() {
    let dev = Dev::start(&[]).await;
    let file = dev.directory.path().join("order.json");
    std::fs::write(&file, "{\n \"n\": 2\n}\n").unwrap();
    let at = format!("@{}", file.display());
    dev.run(&["send", "orders", "o", "--data", r#"{"n":1}"#])
        .await
        .ok();
    dev.run(&["send", "orders", "o", "--data", &at]).await.ok();
    let send = [
        "send",
        "orders",
        "o",
        "--data",
        "-",
        "--broker",
        &dev.broker,
    ];
    run_with_input(send, b"{\"n\":3}").await.ok();
    let plain = [
        "send",
        "orders",
        "o",
        "--data",
        "caf\u{e9}",
        "--content-type",
        "text/plain",
    ];
    dev.run(&plain).await.ok();

    let tail = dev
        .run(&[
            "tail", "orders", "--from", "earliest", "-n", "4", "-o", "json",
        ])
        .await
        .ok();
    let records: Vec<serde_json::Value> = tail
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<_> = records
        .iter()
        .map(|record| record["payload"]["n"].clone())
        .collect();
    assert_eq!(numbers[..3], [json!(1), json!(2), json!(3)]);
    assert_eq!(records[3]["payload_base64"], json!("Y2Fmw6k="));
    assert_eq!(records[3]["meta"], json!({"ctype": "text/plain"}));
}

#[tokio::test]
async fn a_payload_that_is_not_json_needs_a_content_type() {
    let ended = run(["send", "orders", "o", "--data", "hello"]).await;
    let said = ended.failed(2, "invalid-payload");
    assert!(said.contains("--content-type"), "{said}");
    run(["send", "orders", "o", "--data", "@no-such-file"])
        .await
        .failed(2, "unreadable-payload");
}

#[tokio::test]
async fn request_prints_the_payload_and_tells_the_outcome() {
    let dev = Dev::start(&["--demo"]).await;
    let request = |arguments: &'static [&'static str]| dev.run(arguments);

    let greeting = request(&["request", "hello", "greet", "-d", r#"{"name":"Ada"}"#]).await;
    assert_eq!(greeting.ok(), "{\"howdy\":\"there, Ada\"}\n");

    let reply = request(&[
        "request",
        "notes",
        "add",
        "-d",
        r#"{"text":"x"}"#,
        "-o",
        "json",
    ])
    .await
    .json();
    assert_eq!(reply["status"], json!(201));
    assert_eq!(reply["meta"]["status"], json!(201));
    assert_eq!(reply["payload"], json!({"id": 1, "text": "x"}));
    assert!(reply["id"].is_string());

    let missing = request(&[
        "request",
        "notes",
        "remove",
        "-d",
        r#"{"id":9}"#,
        "-o",
        "json",
    ])
    .await;
    let reply: serde_json::Value = serde_json::from_str(&missing.stdout).unwrap();
    assert_eq!(reply["status"], json!(404));
    assert_eq!(reply["meta"]["err"]["code"], json!("no-such-note"));
    let said = missing.failed(3, "no-such-note");
    assert!(said.contains("there is no note 9"), "{said}");

    request(&["request", "notes", "add", "-d", "7"])
        .await
        .failed(1, "invalid-payload");
    request(&["request", "notes", "nothing"])
        .await
        .failed(3, "unknown-type");
}

#[tokio::test]
async fn a_request_that_nobody_answers_times_out() {
    let dev = Dev::start(&[]).await;
    let ended = dev
        .run(&["request", "nobody", "listens", "--timeout", "200ms"])
        .await;
    assert_eq!(ended.stdout, "");
    let said = ended.failed(124, "no-reply-in-time");
    assert!(said.contains("streamerson topic show nobody"), "{said}");
}

#[tokio::test]
async fn tail_follows_and_ends_quietly_when_nobody_reads() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use streamerson_testkit::process::Process;

    let dev = Dev::start(&[]).await;
    let send = async |payload| {
        let sent = dev.run(&["send", "orders", "o", "--data", payload]).await;
        sent.ok();
    };
    send("1").await;
    let tail = [
        "tail",
        "orders",
        "--from",
        "earliest",
        "--broker",
        &dev.broker,
    ];
    let mut tail = Process::spawn(
        Command::new(env!("CARGO_BIN_EXE_streamerson"))
            .args(tail)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
    .unwrap();
    let mut stdout = BufReader::new(tail.take_stdout().unwrap());
    for (payload, next) in [("1", "2"), ("2", "3")] {
        let (line, rest) = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            (line, stdout)
        })
        .await
        .unwrap();
        assert!(line.trim_end().ends_with(payload), "{line}");
        stdout = rest;
        send(next).await;
    }
    drop(stdout);
    send("4").await;
    let status = tail.exited(crate::support::PATIENCE).await.unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut tail.take_stderr().unwrap(), &mut said).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn tail_goes_on_where_it_was_when_its_broker_comes_back() {
    let mut redis = RedisServer::builder().appendonly("always").start().await;
    let place = Place::of(redis.url()).await;
    place
        .run(&["topic", "create", "orders", "--partitions", "2"])
        .await
        .ok();
    let tail = ["tail", "orders", "--from", "earliest", "-n", "3"];
    let mut tail = place.start(&[&tail[..], &["-o", "json"]].concat());
    place.send("orders.0", &["\"first\""]).await;
    place.send("orders.1", &["\"second\""]).await;
    for _ in 0..2 {
        tail.line("payload").await;
    }
    redis.kill().await;
    tail.line("reading goes on where it was").await;
    redis.start_again().await;
    let third = ["send", "orders", "order.create", "-d", "\"third\""];
    place.run(&third).await.ok();
    let (code, said) = tail.ended().await;
    assert_eq!(code, 0, "{said}");
    for payload in ["first", "second", "third"] {
        assert_eq!(said.matches(payload).count(), 1, "{said}");
    }
    assert_eq!(said.matches("note: ").count(), 1, "{said}");
}

#[tokio::test]
async fn tail_ends_when_there_is_something_else_in_place_of_its_topic() {
    let redis = RedisServer::start().await;
    let place = Place::of(redis.url()).await;
    place.send("orders", &["1"]).await;
    let mut tail = place.start(&["tail", "orders", "--from", "earliest"]);
    tail.line("order.create").await;
    redis.cli(&["SET", "streamerson:{orders}", "x"]);
    let (code, said) = tail.ended().await;
    assert!(code == 2 && said.contains("(wrong-type)"), "{code} {said}");
}

#[tokio::test]
async fn what_others_wrote_does_not_reach_the_terminal_as_control_characters() {
    let dev = Dev::start(&[]).await;
    let send = [
        "send",
        "orders",
        "o",
        "--content-type",
        "text/plain",
        "--data",
        "a\u{1b}[2Jb\nc",
    ];
    dev.run(&send).await.ok();
    let text = dev
        .run(&["tail", "orders", "--from", "earliest", "-n", "1"])
        .await
        .ok();
    assert!(text.ends_with("a\\u{1b}[2Jb\\nc\n"), "{text:?}");
}

#[tokio::test]
async fn entries_that_are_not_messages_are_shown_as_such() {
    let redis = RedisServer::start().await;
    redis.cli(&["XADD", "streamerson:{orders}", "*", "color", "red"]);
    let tail = [
        "tail",
        "orders",
        "--from",
        "earliest",
        "-n",
        "1",
        "--broker",
        &redis.url(),
    ];
    let text = run(tail).await.ok();
    assert!(text.contains("not a message"), "{text}");
    let record = run(tail.iter().chain(&["-o", "json"])).await.json();
    assert_eq!(record["foreign"], json!([["color", "red"]]));
}

#[tokio::test]
async fn topics_are_listed_and_shown() {
    let dev = Dev::start(&["--demo"]).await;
    dev.run(&["send", "orders", "o"]).await.ok();
    dev.run(&["request", "hello", "greet"]).await.ok();

    let topics = dev.run(&["topic", "ls", "-o", "json"]).await.json();
    let names: Vec<&str> = topics
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["topic"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"orders") && names.contains(&"hello"),
        "{names:?}"
    );
    let table = dev.run(&["topic", "ls"]).await.ok();
    assert!(table.starts_with("TOPIC"), "{table}");

    let shown = dev
        .run(&["topic", "show", "hello", "-o", "json"])
        .await
        .json();
    assert_eq!(
        (&shown["topic"], &shown["length"]),
        (&json!("hello"), &json!(1))
    );
    assert_eq!(shown["groups"][0]["group"], json!("demo"));
    let table = dev.run(&["topic", "show", "hello"]).await.ok();
    assert!(table.contains("GROUP") && table.contains("demo"), "{table}");

    let missing = dev.run(&["topic", "show", "no-such-topic"]).await;
    assert_eq!(missing.code, 3, "{}", missing.stderr);
}

#[tokio::test]
async fn namespaces_are_apart() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let send = [
        "send",
        "orders",
        "o",
        "--broker",
        &url,
        "--namespace",
        "shop",
    ];
    run(send).await.ok();
    let ls = ["topic", "ls", "-o", "json", "--broker", &url];
    assert_eq!(run(ls).await.json(), json!([]));
    let ls = run(ls.iter().chain(&["--namespace", "shop"])).await.json();
    assert_eq!(ls[0]["topic"], json!("orders"));
}

#[tokio::test]
async fn an_embedded_directory_needs_no_server() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!(
        "embedded:{}?durability=os",
        directory.path().join("data").display()
    );
    run(["send", "orders", "o", "--data", "1", "--broker", &url])
        .await
        .ok();
    let tail = [
        "tail", "orders", "--from", "earliest", "-n", "1", "-o", "json", "--broker", &url,
    ];
    assert_eq!(run(tail).await.json()["payload"], json!(1));
}
