//! Wall clocks that jump by hours, in every process of ours: `dev` and a worker run under libfaketime.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use streamerson_core::meta::DeadLetter;
use streamerson_core::{Message, Position, Topic, dead_letter};
use streamerson_testkit::redis::RedisServer;
use tempfile::TempDir;

use crate::support::{Dev, Place, Running, http};

/// A clock that several processes look at.
struct Clock {
    folder: TempDir,
}

impl Clock {
    fn new() -> Clock {
        let clock = Clock {
            folder: tempfile::tempdir().unwrap(),
        };
        clock.jump("+0");
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("now")
    }

    /// Sets it to so many seconds from the real time.
    fn jump(&self, offset: &str) {
        // Renamed, so that nobody reads half of it.
        let next = self.folder.path().join("next");
        fs::write(&next, offset).unwrap();
        fs::rename(next, self.file()).unwrap();
    }

    /// What makes a process look at it. The monotonic clock stays real, as it does when somebody sets the time.
    fn environment(&self) -> [(&'static str, OsString); 4] {
        [
            ("LD_PRELOAD", library().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}

fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap();
    let found = folders
        .map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists());
    found.expect("libfaketime is missing: run `cargo xtask test`, or install the package faketime")
}

async fn last_position(dev: &Dev) -> Position {
    let topic = dev.run(&["topic", "show", "hello", "-o", "json"]).await;
    let topic: Value = topic.json();
    topic["last"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn clocks_that_jump_by_hours_fail_no_request_and_never_turn_positions_back() {
    let clock = Clock::new();
    let dev = Dev::start_with(&clock.environment()).await;
    let reply = [
        "reply",
        "hello",
        "greet",
        "--json",
        "{}",
        "--broker",
        &dev.broker,
    ];
    let mut worker = Running::start_with(Path::new("."), reply, &clock.environment());
    worker.line("answering greet on hello").await;

    assert_eq!(dev.post("/hello/greet", "{}").await.0, 200);
    let begun = last_position(&dev).await;
    let mut last = begun;
    for offset in ["+7200", "-7200", "+0", "-7200", "+7200", "+0"] {
        clock.jump(offset);
        for _ in 0..10 {
            let (status, answer) = dev.post("/hello/greet", "{}").await;
            assert_eq!(status, 200, "at {offset} s: {answer}");
        }
        let now = last_position(&dev).await;
        assert!(now > last, "at {offset} s: {now} after {last}");
        last = now;
    }
    let hours = 7_000_000;
    assert!(
        last.major() > begun.major() + hours,
        "the clock did not jump"
    );

    let group = dev
        .run(&["group", "ls", "hello", "-o", "json"])
        .await
        .json();
    assert_eq!(
        (&group[0]["lag"], &group[0]["pending"]),
        (&0.into(), &0.into())
    );
    worker.process.terminate();
    assert_eq!(worker.ended().await.0, 0);
    dev.stop().await;
}

#[tokio::test]
async fn machines_whose_clocks_are_hours_apart_answer_each_other() {
    let dev = Dev::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let route = "[[route]]\nmethod = \"POST\"\npath = \"/far\"\ntopic = \"far\"\ntype = \"ask\"\n";
    fs::write(&config, route).unwrap();
    let config = config.display().to_string();
    let reply = [
        "reply",
        "far",
        "ask",
        "--json",
        "{}",
        "--broker",
        &dev.broker,
    ];
    let gateway = [
        "gateway",
        "--config",
        &config,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "off",
        "--broker",
        &dev.broker,
    ];
    let here = Path::new(".");
    for [at_gateway, at_worker] in [
        ["+0", "+7200"],
        ["+0", "-7200"],
        ["-7200", "+0"],
        ["+7200", "+0"],
        ["-7200", "+7200"],
    ] {
        let (theirs, ours) = (Clock::new(), Clock::new());
        theirs.jump(at_gateway);
        ours.jump(at_worker);
        let mut worker = Running::start_with(here, reply, &ours.environment());
        worker.line("answering ask on far").await;
        let mut gateway = Running::start_with(here, gateway, &theirs.environment());
        let line = gateway.line("gateway ").await;
        let url = format!("{}/far", line.split_whitespace().nth(1).unwrap());
        for offset in [at_worker, "+7200", "-7200"] {
            // The clock of the worker jumps while it works, too.
            ours.jump(offset);
            let (status, answer) = http("POST", &url, "{}").await;
            let clocks = format!("gateway at {at_gateway} s, worker at {offset} s");
            assert_eq!(status, 200, "{clocks}: {answer}");
        }
        for mut process in [gateway, worker] {
            process.process.terminate();
            assert_eq!(process.ended().await.0, 0);
        }
    }
    dev.stop().await;
}

/// A broker whose clock is so many seconds from that of the commands, with one message, a group that has not seen it, and a
/// dead letter at this position.
async fn elsewhere(seconds: i64) -> (RedisServer, Place, Position) {
    let server = RedisServer::builder().clock().start().await;
    server.set_clock(seconds);
    let place = Place::of(server.url()).await;
    place.send("orders", &["1"]).await;
    let seek = ["group", "seek", "orders", "billing", "earliest", "--yes"];
    place.run(&seek).await.ok();
    let orders = Topic::new("orders").unwrap();
    let why = DeadLetter::default();
    let letter = dead_letter::letter(&orders, &Message::new("order.create", "{}"), why);
    let stored = place.broker.append(vec![letter]).await.remove(0);
    (server, place, stored.unwrap())
}

const HOUR: u64 = 3_600_000;

#[tokio::test]
async fn ages_are_by_the_clock_of_the_broker() {
    let (_server, place, letter) = elsewhere(-7200).await;
    let groups = place.run(&["group", "ls", "-o", "json"]).await.json();
    let group = ["group", "show", "orders", "billing", "-o", "json"];
    let group = place.run(&group).await.json();
    for group in [&groups[0], &group] {
        assert!(group["lag_ms"].as_u64().unwrap() < HOUR, "{group}");
    }
    let letter = letter.to_string();
    for shown in [
        ["topic", "show", "orders"].as_slice(),
        &["dlq", "ls", "orders"],
        &["dlq", "ls", "orders", "--summary"],
        &["dlq", "show", "orders", &letter],
    ] {
        let shown = place.run(shown).await.ok();
        assert!(!shown.contains("2h"), "{shown}");
    }
}

#[tokio::test]
async fn ages_that_are_asked_for_are_by_the_clock_of_the_broker() {
    let (_server, place, _) = elsewhere(-7200).await;
    let listed = ["dlq", "ls", "orders", "--newer-than", "1h", "-o", "json"];
    let listed = place.run(&listed).await.json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let report = [
        "dlq",
        "retry",
        "orders",
        "--older-than",
        "1h",
        "--dry-run",
        "-o",
        "json",
    ];
    let report = place.run(&report).await.json();
    assert_eq!(report["matched"], 0, "{report}");
    let look = [
        "topic",
        "trim",
        "orders",
        "--max-age",
        "1h",
        "--force",
        "--dry-run",
        "-o",
        "json",
    ];
    let look = place.run(&look).await.json();
    assert_eq!(look["removed"], 0, "{look}");
}

#[tokio::test]
async fn a_delay_is_by_the_clock_of_the_broker() {
    let (_server, place, _) = elsewhere(7200).await;
    let sent = ["send", "orders", "o", "--delay", "1h", "-d", "{}"];
    let sent = place.run(&sent).await.ok();
    assert!(sent.contains("scheduled"), "{sent}");
}

#[tokio::test]
async fn a_gateway_tells_ages_by_the_clock_of_the_broker() {
    let (_server, place, _) = elsewhere(-7200).await;
    let dev = Dev::start_on(&place.url, &[]).await;
    let scale = format!("{}/admin/v1/scale/orders/billing", dev.admin);
    let (_, advice) = http("GET", &scale, "").await;
    let hour = 3600.0;
    assert!(advice["lag_seconds"].as_f64().unwrap() < hour, "{advice}");
    let (_, metrics) = http("GET", &format!("{}/metrics", dev.admin), "").await;
    let waited = metrics.as_str().unwrap().lines().find_map(|line| {
        line.strip_prefix(r#"strm_group_lag_seconds{topic="orders",group="billing"} "#)
    });
    assert!(waited.unwrap().parse::<f64>().unwrap() < hour, "{metrics}");
}
