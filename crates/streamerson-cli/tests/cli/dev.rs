//! `dev` and `gateway`.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use streamerson_testkit::redis::RedisServer;

use crate::support::{Dev, FREE_PORTS, PATIENCE, Running, http, run};

#[tokio::test]
async fn the_demo_answers_on_the_embedded_broker() {
    let dev = Dev::start(&["--demo"]).await;
    for (body, howdy) in [
        (r#"{"name":"Ada"}"#, "there, Ada"),
        ("{}", "there, stranger"),
        (r#"{"name":null}"#, "there, stranger"),
        ("", "there, stranger"),
    ] {
        let answer = dev.post("/hello/greet", body).await;
        assert_eq!(answer, (200, json!({ "howdy": howdy })), "{body:?}");
    }
    let (status, problem) = dev.post("/hello/greet", "{").await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid-payload")));
}

#[tokio::test]
async fn the_demo_answers_on_redis() {
    let redis = RedisServer::start().await;
    let dev = Dev::start_on(&redis.url(), &["--demo"]).await;
    let answer = dev.post("/hello/greet", r#"{"name":"Ada"}"#).await;
    assert_eq!(answer, (200, json!({"howdy": "there, Ada"})));
}

#[tokio::test]
async fn a_redis_that_comes_back_is_used_again() {
    let mut redis = RedisServer::start().await;
    let dev = Dev::start_on(&redis.url(), &["--demo"]).await;
    let worker = [
        "reply",
        "pets",
        "name",
        "--json",
        "\"Rex\"",
        "--broker",
        &redis.url(),
    ];
    let _worker = Running::start(worker);
    assert_eq!(dev.post("/pets/name", "").await.0, 200);

    redis.kill().await;
    let (status, problem) = dev.post("/hello/greet", "").await;
    assert_eq!(status, 503, "{problem}");

    redis.start_again().await;
    for path in ["/hello/greet", "/pets/name"] {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match dev.post(path, "").await {
                (200, _) => break,
                (503 | 504, _) if tokio::time::Instant::now() < deadline => (),
                (status, problem) => panic!("{path}: {status} {problem}"),
            }
        }
    }
}

#[tokio::test]
async fn a_worker_waits_out_a_password_that_changes() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let dev = Dev::start_on(&url, &[]).await;
    let worker = [
        "reply", "pets", "name", "--json", "\"Rex\"", "--broker", &url,
    ];
    let mut worker = Running::start(worker);
    assert_eq!(dev.post("/pets/name", "").await.0, 200);

    redis.cli(&["CONFIG", "SET", "requirepass", "zzz"]);
    let auth = ["-a", "zzz", "--no-auth-warning"];
    redis.cli(&[&auth[..], &["CLIENT", "KILL", "TYPE", "normal"]].concat());
    worker.line("(authentication-required)").await;
    redis.cli(&[&auth[..], &["CONFIG", "SET", "requirepass", ""]].concat());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match dev.post("/pets/name", "").await {
            (200, _) => break,
            (503 | 504, _) if tokio::time::Instant::now() < deadline => (),
            (status, problem) => panic!("{status} {problem}"),
        }
    }
}

#[tokio::test]
async fn the_demo_keeps_notes() {
    let dev = Dev::start(&["--demo", "--durability", "memory"]).await;
    let note = json!({"id": 1, "text": "buy milk"});
    let added = dev.post("/notes/add", r#"{"text":"buy milk"}"#).await;
    assert_eq!(added, (201, note.clone()));
    let listed = http("GET", &format!("{}/notes/list", dev.http), "").await;
    assert_eq!(listed, (200, json!([note])));
    assert_eq!(dev.post("/notes/remove", r#"{"id":1}"#).await.0, 204);
    let (status, problem) = dev.post("/notes/remove", r#"{"id":1}"#).await;
    assert_eq!((status, &problem["code"]), (404, &json!("no-such-note")));
}

#[tokio::test]
async fn what_it_prints_is_short_and_on_stderr() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["dev", "--demo"].into_iter().chain(FREE_PORTS);
    let mut running = Running::start_in(directory.path(), arguments);
    running.line("stop ").await;
    running.process.terminate();
    let (code, said) = running.ended().await;
    assert_eq!(code, 0);
    let start: Vec<&str> = said
        .lines()
        .take_while(|line| !line.starts_with("stopping"))
        .collect();
    assert!(start.len() <= 8, "{start:#?}");
    assert!(said.contains("/.streamerson (durability disk)"), "{said}");
    assert!(said.contains("curl http://127.0.0.1:"), "{said}");
    assert!(!said.contains(":0/"), "{said}");
}

#[tokio::test]
async fn messages_survive_a_restart() {
    let dev = Dev::start(&[]).await;
    dev.run(&["send", "orders", "order.create", "--data", "1"])
        .await
        .ok();
    let dev = Dev::start_in(dev.stop().await, &[]).await;
    let tail = dev
        .run(&[
            "tail", "orders", "--from", "earliest", "-n", "1", "-o", "json",
        ])
        .await;
    assert_eq!(tail.json()["payload"], json!(1));
}

#[tokio::test]
async fn a_busy_port_names_the_flag_to_change() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--redis-listen", "--admin"] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let mut arguments = vec![
            "dev".to_owned(),
            "--data".to_owned(),
            data.display().to_string(),
        ];
        for pair in FREE_PORTS.chunks(2) {
            let address = if pair[0] == flag { &taken } else { pair[1] };
            arguments.extend([pair[0].to_owned(), address.to_owned()]);
        }
        let said = run(&arguments).await.failed(1, "address-in-use");
        assert!(said.contains(flag) && said.contains(&taken), "{said}");
        assert!(!data.exists(), "{flag}: nothing was begun");
    }
}

#[tokio::test]
async fn a_second_dev_on_the_same_directory_is_refused() {
    let dev = Dev::start(&[]).await;
    let data = dev.directory.path().join(".streamerson");
    let data = data.display().to_string();
    let arguments = ["dev", "--data", &data].into_iter().chain(FREE_PORTS);
    let second = run(arguments).await;
    assert_eq!(second.code, 4, "{}", second.stderr);
    assert!(
        second.stderr.contains(&data) && second.stderr.contains("--data"),
        "{}",
        second.stderr
    );
    // The first is not disturbed.
    assert_eq!(
        http("GET", &format!("{}/readyz", dev.admin), "").await.0,
        200
    );
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let read_only = directory.path().join("read-only");
    std::fs::create_dir(&read_only).unwrap();
    std::fs::set_permissions(&read_only, std::fs::Permissions::from_mode(0o500)).unwrap();
    // Permissions do not bind root: a file in the place of the directory does.
    let data = match std::fs::write(read_only.join("probe"), "") {
        Err(_) => read_only,
        Ok(()) => {
            let file = directory.path().join("file");
            std::fs::write(&file, "").unwrap();
            file
        }
    };
    let data = data.display().to_string();
    let arguments = ["dev", "--data", &data].into_iter().chain(FREE_PORTS);
    let ended = run(arguments).await;
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(
        ended.stderr.starts_with("error: ") && ended.stderr.contains(&data),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn a_flag_without_effect_is_an_error() {
    let redis = "redis://:secret@127.0.0.1:1";
    for arguments in [
        ["dev", "--broker", redis, "--data", "d"],
        ["dev", "--broker", redis, "--durability", "os"],
        ["dev", "--broker", redis, "--redis-listen", "127.0.0.1:0"],
        ["dev", "--durability", "memory", "--data", "d"],
    ] {
        let said = run(arguments).await.failed(2, "flag-without-effect");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[tokio::test]
async fn sigterm_lets_a_request_in_flight_finish() {
    let mut dev = Dev::start(&[]).await;
    let request = tokio::spawn({
        let url = format!("{}/slow/work", dev.http);
        async move { http("POST", &url, "{}").await }
    });
    // The request is on the topic before there is a worker for it.
    let tail = ["tail", "slow", "--from", "earliest", "-n", "1"];
    dev.run(&tail).await.ok();
    dev.running.process.terminate();
    dev.running.line("stopping").await;
    let worker = [
        "reply",
        "slow",
        "work",
        "--json",
        r#""done""#,
        "--broker",
        &dev.broker,
    ];
    let _worker = Running::start(worker);
    assert_eq!(request.await.unwrap(), (200, json!("done")));
    let (code, said) = dev.running.ended().await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut dev = Dev::start(&[]).await;
    let url = format!("{}/nobody/answers", dev.http);
    let request = tokio::spawn(async move { http("POST", &url, "{}").await });
    dev.run(&["tail", "nobody", "--from", "earliest", "-n", "1"])
        .await
        .ok();
    dev.running.process.terminate();
    dev.running.line("stopping").await;
    dev.running.process.terminate();
    let status = dev.running.process.exited(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(130));
    request.abort();
}

#[tokio::test]
async fn routes_of_a_configuration_are_served_by_dev_and_by_gateways() {
    let redis = RedisServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("shop.toml");
    let routes = r#"
        [[route]]
        path = "/greetings/{name}"
        topic = "hello"
        type = "greet"
    "#;
    std::fs::write(&config, routes).unwrap();
    let config = config.display().to_string();

    let template = r#"{"hi":"{{ path.name }}"}"#;
    let _worker = Running::start([
        "reply",
        "hello",
        "greet",
        "--json",
        template,
        "--broker",
        &redis.url(),
    ]);
    let dev = Dev::start_on(&redis.url(), &["--config", &config]).await;
    let answer = dev.post("/greetings/ada", "").await;
    assert_eq!(answer, (200, json!({"hi": "ada"})));
    assert_eq!(dev.post("/hello/greet", "").await.0, 404);

    let url = redis.url();
    let arguments = [
        "gateway",
        "--config",
        &config,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "off",
        "--broker",
        &url,
    ];
    let mut gateway = Running::start(arguments);
    let line = gateway.line("gateway ").await;
    let base = line.split_whitespace().nth(1).unwrap();
    let answer = http("POST", &format!("{base}/greetings/bob"), "").await;
    assert_eq!(answer, (200, json!({"hi": "bob"})));
    gateway.process.terminate();
    assert_eq!(gateway.ended().await.0, 0);
}

#[tokio::test]
async fn dev_does_not_take_its_broker_from_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamerson"));
    command
        .args(["dev", "--data", &data, "--redis-listen", "0.0.0.0:0"])
        .args(["--listen", "127.0.0.1:0", "--admin", "off"])
        .env("STREAMERSON_BROKER", "redis://127.0.0.1:1");
    let said = command.output().await.unwrap().stderr;
    let said = String::from_utf8_lossy(&said);
    // It comes as far as the embedded broker's port.
    assert!(said.contains("loopback-required"), "{said}");
}

#[tokio::test]
async fn a_mistake_in_the_configuration_is_shown_in_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("shop.toml");
    std::fs::write(&config, "[gateway]\nlisen = \"127.0.0.1:80\"\n").unwrap();
    let config = config.display().to_string();
    let said = run(["gateway", "--config", &config])
        .await
        .failed(2, "invalid-config");
    assert!(
        said.contains("shop.toml:2:1") && said.contains("did you mean `listen`"),
        "{said}"
    );
}

#[tokio::test]
async fn a_gateway_needs_a_broker_that_others_can_reach() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("shop.toml");
    std::fs::write(
        &config,
        "[[route]]\npath = \"/a\"\ntopic = \"a\"\ntype = \"a\"\n",
    )
    .unwrap();
    let config = config.display().to_string();
    run(["gateway", "--config", &config])
        .await
        .failed(2, "broker-missing");
    for url in ["memory:", "embedded:d"] {
        let ended = run(["gateway", "--config", &config, "--broker", url]).await;
        ended.failed(2, "broker-not-shared");
    }
}
