//! `streamerson chaos` against a broker that runs already, and its end in the middle: nothing of it is left. What it finds
//! out about brokers of its own is in `tests/chaos.rs`.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, Place, Running, on_both, run};

/// Few of everything, and a short lease.
const SMALL: [&str; 8] = [
    "chaos", "--rate", "200", "--lease", "500ms", "--seed", "1", "--faults",
];
/// More than it gets to.
const ENDLESS: [&str; 3] = ["kill,cut,poison,duplicates", "--requests", "1000000"];

fn small(arguments: &'static [&str]) -> Vec<&'static str> {
    SMALL.iter().chain(arguments).copied().collect()
}

/// All keys of the broker, as anybody sees them.
async fn keys(place: &Place) -> Vec<String> {
    let address = place.url.strip_prefix("redis://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"KEYS *\r\nQUIT\r\n").await.unwrap();
    let mut reply = String::new();
    connection.read_to_string(&mut reply).await.unwrap();
    let mut keys: Vec<String> = reply.lines().map(str::to_owned).collect();
    keys.sort();
    keys
}

/// The processes that `parent` has started and that live.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| is_child(*pid, parent)).collect()
}

fn is_child(pid: u32, parent: u32) -> bool {
    // NUMBER (NAME) STATE PARENT …
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(1) == Some(&parent.to_string())
}

/// Whether all of them end soon.
async fn all_gone(processes: &[u32]) -> bool {
    let lives = |pid: &u32| {
        let stat = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat")));
        // What nobody waits for stays as a zombie for a while.
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    let gone = async {
        while processes.iter().any(lives) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.is_ok()
}

on_both! {
    a_broker_that_runs_keeps_its_promises_and_nothing_of_the_run
    an_interrupted_run_leaves_nothing
}

async fn a_broker_that_runs_keeps_its_promises_and_nothing_of_the_run(place: Place) {
    place.send("orders", &["{}"]).await;
    let before = keys(&place).await;
    let faults = [
        "kill,cut,group,duplicates",
        "--requests",
        "300",
        "--kills",
        "5",
        "-o",
        "json",
    ];
    let arguments = SMALL.iter().chain(&faults).copied();
    let arguments: Vec<&str> = arguments.collect();
    let ended = place.run(&arguments).await;
    assert_eq!(ended.code, 0, "{}\n{}", ended.stderr, ended.stdout);
    assert_eq!(keys(&place).await, before);
}

async fn an_interrupted_run_leaves_nothing(place: Place) {
    place.send("orders", &["{}"]).await;
    let before = keys(&place).await;
    let mut chaos = place.start(&small(&ENDLESS));
    chaos.line("cut: hit").await;
    let workers = children(chaos.process.pid());
    assert!(!workers.is_empty());
    assert_ne!(keys(&place).await, before);
    chaos.process.terminate();
    let (code, said) = chaos.ended().await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("(interrupted)"), "{said}");
    assert!(all_gone(&workers).await);
    assert_eq!(keys(&place).await, before);
}

#[tokio::test]
async fn an_interrupted_run_on_its_own_broker_leaves_no_process_and_no_file() {
    let files = tempfile::tempdir().unwrap();
    let arguments = small(&ENDLESS);
    let environment = [("TMPDIR", files.path().into())];
    let mut chaos = Running::start_with(files.path(), arguments, &environment);
    chaos.line("cut: hit").await;
    let processes = children(chaos.process.pid());
    assert!(processes.len() > 1);
    chaos.process.terminate();
    assert_eq!(chaos.ended().await.0, 1);
    assert!(all_gone(&processes).await);
    assert_eq!(std::fs::read_dir(files.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_processes_of_a_killed_run_end_with_it() {
    let files = tempfile::tempdir().unwrap();
    let environment = [("TMPDIR", files.path().into())];
    let mut chaos = Running::start_with(files.path(), small(&ENDLESS), &environment);
    chaos.line("cut: hit").await;
    let processes = children(chaos.process.pid());
    assert!(processes.len() > 1);
    chaos.process.kill();
    assert!(all_gone(&processes).await);
}

#[tokio::test]
async fn a_process_that_comes_up_after_the_end_of_its_run_ends_too() {
    // Whoever runs this is not the one that the variable names, as it is after the death of the parent.
    let arguments = ["chaos-child", "--", "sleep", "1000"];
    let environment = [("STREAMERSON_CHAOS_PARENT", "1".into())];
    let orphan = Running::start_with(&PathBuf::from("."), arguments, &environment);
    let (code, said) = orphan.ended().await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is gone"), "{said}");
}

#[tokio::test]
async fn a_broker_of_somebody_else_is_not_killed() {
    let place = Place::redis().await;
    let arguments = ["chaos", "--faults", "kill,broker"];
    let refused = place.run(&arguments).await;
    let said = refused.failed(2, "fault-impossible");
    assert!(
        said.contains("--faults") && said.contains("--broker"),
        "{said}"
    );
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_as_the_user_names_it() {
    let ended = run(["chaos", "--broker", "redis://127.0.0.1:1"]).await;
    let said = ended.failed(6, "broker-unreachable");
    assert!(said.contains("redis://127.0.0.1:1"), "{said}");
}

#[tokio::test]
async fn a_run_whose_broker_dies_says_what_may_be_left() {
    let mut redis = streamerson_testkit::redis::RedisServer::start().await;
    let place = Place::of(redis.url()).await;
    let mut chaos = place.start(&small(&ENDLESS));
    chaos.line("cut: hit").await;
    redis.kill().await;
    chaos.process.terminate();
    let (code, said) = chaos.ended().await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("(traces-left)") && said.contains("chaos-"),
        "{said}"
    );
}

#[tokio::test]
async fn a_run_without_requests_is_refused() {
    let ended = run(["chaos", "--requests", "0"]).await;
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("--requests"), "{ended:?}");
}
