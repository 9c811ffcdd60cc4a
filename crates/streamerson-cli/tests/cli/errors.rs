//! Wrong usage, brokers that cannot be reached, and what helps.

use serde_json::json;
use streamerson_testkit::redis::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Dev, Running, run};

#[tokio::test]
async fn help_tells_the_exit_codes() {
    let help = run(["--help"]).await.ok();
    assert!(help.contains("124 no answer in time"), "{help}");
    for command in [
        "dev",
        "gateway",
        "send",
        "request",
        "reply",
        "tail",
        "topic",
        "group",
        "dlq",
        "completions",
    ] {
        assert!(help.contains(command), "{command}");
        run([command, "--help"]).await.ok();
    }
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    for arguments in [
        &["snd"][..],
        &["send", "no/topic", "t"],
        &["tail", "orders", "--from", "yesterday"],
        &["tail", "orders", "-n", "0"],
        &["request", "orders", "o", "--timeout", "5"],
        &["reply", "orders", "o"],
        &["reply", "orders", "o", "--json", "1", "--", "cat"],
        &["reply", "orders", "o", "--json", "1", "--processes", "2"],
        &["reply", "orders", "o", "--json", "{"],
        &["reply", "orders", "o o", "--json", "1"],
        &[
            "reply",
            "orders",
            "o",
            "--processes",
            "9",
            "--concurrency",
            "8",
            "--",
            "cat",
        ],
        &["topic", "create", "orders"],
        &["topic", "create", "orders", "--partitions", "0"],
        &["topic", "trim", "orders"],
        &["topic", "trim", "orders", "--max-age", "7w"],
        &["group", "show", "orders"],
        &["group", "seek", "orders", "billing", "yesterday"],
        &["group", "rm", "orders", "billing", "--yes", "--dry-run"],
        &["dlq", "ls"],
        &["dlq", "ls", "orders", "--all"],
        &["dlq", "ls", "orders", "--older-than", "7w"],
        &["dlq", "retry", "orders", "--rate", "fast"],
        &["dlq", "retry", "orders", "--max", "0"],
        &["dev", "--durability", "tape"],
        &["dev", "--listen", "8080"],
        &["send", "orders", "o", "--log", "a=b=c"],
        &["send", "orders", "o", "--at", "tomorrow"],
        &["send", "orders", "o", "--delay", "soon"],
        &[
            "send",
            "orders",
            "o",
            "--delay",
            "1s",
            "--at",
            "2026-12-24T18:00:00Z",
        ],
        &["send", "orders", "o", "--idempotency-key", ""],
        &["send", "orders", "o", "--broker", "memory:"],
        &[
            "send",
            "orders",
            "o",
            "--broker",
            "embedded:nx?durability=memory",
        ],
    ] {
        let ended = run(arguments).await;
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.starts_with("error: "),
            "{arguments:?}: {}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
    }
}

#[tokio::test]
async fn what_the_http_edge_would_refuse_is_not_sent() {
    for command in ["send", "request"] {
        for topic in ["inbox.me", "orders:dlq"] {
            let said = run([command, topic, "o"]).await;
            said.failed(2, "topic-reserved");
        }
        for kind in ["", "a b", "a/b", "a\nb", &"x".repeat(201)] {
            let said = run([command, "orders", kind]).await;
            said.failed(2, "invalid-type");
        }
    }
}

#[tokio::test]
async fn a_wrong_call_is_told_what_to_write() {
    let said = run(["reply", "orders", "o"])
        .await
        .failed(2, "backend-missing");
    assert!(said.contains("--json TEMPLATE") && said.contains("-- CMD"));
    for listen in ["localhost:18082", "18082"] {
        let said = run(["dev", "--listen", listen]).await.stderr;
        assert!(
            said.contains("write IP:PORT, such as 127.0.0.1:8080"),
            "{said}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let said = run([
        "dev",
        "--data",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "off",
        "--redis-listen",
        "0.0.0.0:0",
    ])
    .await
    .failed(2, "loopback-required");
    assert!(!said.contains("set a password"), "{said}");
}

#[tokio::test]
async fn an_unreachable_broker_exits_with_6_and_keeps_its_secret() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let url = format!("redis://user:s3cret@{address}");
    for arguments in [
        &["send", "orders", "o"][..],
        &["request", "orders", "o"],
        &["tail", "orders"],
        &["topic", "ls"],
        &["group", "ls"],
        &["dlq", "retry", "orders", "--code", "c", "--yes"],
        &["reply", "orders", "o", "--json", "1"],
    ] {
        let ended = run(arguments.iter().copied().chain(["--broker", &url])).await;
        assert_eq!(ended.code, 6, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("help: "), "{}", ended.stderr);
        assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_wrong_password_exits_with_5() {
    let redis = RedisServer::builder().password("right").start().await;
    for url in [
        redis.url().replace("right", "wrong"),
        redis.url().replace(":right@", ""),
    ] {
        let ended = run(["send", "orders", "o", "--broker", &url]).await;
        assert_eq!(ended.code, 5, "{}", ended.stderr);
        assert!(!ended.stderr.contains("wrong@"), "{}", ended.stderr);
    }
    let url = redis.url();
    run(["send", "orders", "o", "--broker", &url]).await.ok();
}

#[tokio::test]
async fn another_namespace_than_that_of_dev_is_refused() {
    let dev = Dev::start(&[]).await;
    for command in [
        &["send", "orders", "o"][..],
        &["request", "orders", "o"],
        &["reply", "orders", "o", "--json", "1"],
        &["group", "show", "orders", "billing"],
        &["topic", "ls"],
        &["group", "ls"],
    ] {
        let command: Vec<&str> = command
            .iter()
            .copied()
            .chain(["--namespace", "shop"])
            .collect();
        let ended = dev.run(&command).await;
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("(wrong-namespace)"), "{ended:?}");
        assert!(ended.stderr.contains("--namespace"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_delay_that_is_none_is_explained() {
    for delay in ["5", "-5s", "soon"] {
        let send = ["send", "orders", "o", "--delay", delay];
        let ended = run(send).await;
        assert_eq!(ended.code, 2, "{ended:?}");
        let told = format!("{delay:?} is not a duration such as 90s, 30m, 12h or 7d");
        assert!(ended.stderr.contains(&told), "{ended:?}");
    }
}

#[tokio::test]
async fn a_broker_that_takes_nothing_is_in_the_log_of_the_gateway() {
    let redis = RedisServer::start().await;
    let mut dev = Dev::start_on(&redis.url(), &[]).await;
    let address = redis.url().replace("redis://", "");
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let full = b"CONFIG SET maxmemory 1\r\nQUIT\r\n";
    connection.write_all(full).await.unwrap();
    let mut said = String::new();
    connection.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "+OK\r\n+OK\r\n");
    let (status, seen) = dev.post("/orders/o", "1").await;
    assert_eq!((status, &seen["code"]), (503, &json!("broker-unavailable")));
    let line = dev.running.line("broker-out-of-memory").await;
    assert!(line.contains("WARN"), "{line}");
}

#[tokio::test]
async fn completions_are_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(
            run(["completions", shell])
                .await
                .ok()
                .contains("streamerson"),
            "{shell}"
        );
    }
}

#[tokio::test]
async fn the_environment_names_the_broker_and_a_flag_wins() {
    let redis = RedisServer::start().await;
    let list = |broker: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamerson"));
        command
            .args(["topic", "ls", "-o", "json"])
            .env("STREAMERSON_BROKER", broker);
        command
    };
    let output = list(&redis.url()).output().await.unwrap();
    assert_eq!(output.stdout, b"[]\n");
    let output = list("nonsense:")
        .args(["--broker", &redis.url()])
        .output()
        .await
        .unwrap();
    assert_eq!(output.stdout, b"[]\n");
    let output = list("nonsense:").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn what_the_embedded_broker_refuses_keeps_its_code() {
    let dev = Dev::start(&[]).await;
    let large = dev.directory.path().join("large");
    std::fs::File::create(&large)
        .unwrap()
        .set_len(40 << 20)
        .unwrap();
    let large = format!("@{}", large.display());
    let sent = ["send", "orders", "o", "--content-type", "text/plain", "-d"];
    let sent: Vec<&str> = sent.into_iter().chain([large.as_str()]).collect();
    let said = dev.run(&sent).await.failed(2, "message-too-large");
    assert!(said.contains("store large content elsewhere"), "{said}");
    assert!(!said.contains("unexpected-refusal"), "{said}");
}

#[tokio::test]
async fn a_directory_in_use_is_reached_through_the_process_that_has_it() {
    let dev = Dev::start(&[]).await;
    let data = dev.directory.path().join(".streamerson");
    let url = format!("embedded:{}", data.display());
    let said = run(["topic", "ls", "--broker", &url])
        .await
        .failed(4, "data-directory-locked");
    let help = said.lines().find(|line| line.starts_with("help:")).unwrap();
    assert!(help.contains("--broker redis://"), "{said}");
    assert!(!help.contains("that the broker runs"), "{said}");
}

#[tokio::test]
async fn an_empty_variable_names_no_broker() {
    let environment = [("STREAMERSON_BROKER", "".into())];
    let look = ["topic", "ls"];
    let running = Running::start_with(std::path::Path::new("."), look, &environment);
    let (_, said) = running.ended().await;
    // Whether there is a local one or not.
    assert!(!said.contains("(unknown-broker)"), "{said}");
}

#[tokio::test]
async fn a_look_at_a_directory_that_is_not_there_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nx");
    let url = format!("embedded:{}?durability=os", missing.display());
    let looks: [&[&str]; 13] = [
        &["tail", "orders", "-n", "1"],
        &["topic", "ls"],
        &["topic", "show", "orders"],
        &["topic", "trim", "orders", "--max-len", "1"],
        &["topic", "rm", "orders", "--yes"],
        &["group", "ls"],
        &["group", "show", "orders", "g"],
        &["group", "seek", "orders", "g", "earliest", "--yes"],
        &["group", "rm", "orders", "g", "--yes"],
        &["dlq", "ls", "orders"],
        &["dlq", "show", "orders", "1-0"],
        &["dlq", "retry", "orders", "--code", "c", "--yes"],
        &["dlq", "drop", "orders", "--code", "c", "--yes"],
    ];
    for look in looks {
        let ended = run(look.iter().chain(&["--broker", &url])).await;
        let said = ended.failed(3, "data-directory-missing");
        assert!(said.contains(missing.to_str().unwrap()), "{said}");
        assert!(!missing.exists(), "{look:?}");
    }
}
