//! `streamerson chaos`, in short: real processes under every fault, on every broker. The long form is in `docs/proof.md`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::process::{Command, Output};

use serde_json::{Value, json};

/// Small counts and a short lease: what takes over quickly has many chances to do it wrong. What dead workers had is to go on
/// within that lease and a look for it each second, about two seconds together. The rest of the bound is for a busy machine and a
/// build that is not optimized: it is to notice what waits for ever, or for far more than its lease.
const SHORT: [&str; 13] = [
    "chaos",
    "--requests",
    "3000",
    "--kills",
    "40",
    "--rate",
    "200",
    "--lease",
    "1s",
    "--takeover-within",
    "8s",
    "-o",
    "json",
];

fn chaos(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_streamerson"))
        .args(SHORT)
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

#[track_caller]
fn holds(arguments: &[&str]) {
    let output = chaos(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["holds"], true);
    assert!(report["figures"]["requests"].as_u64().unwrap() >= 3000);
    assert!(report["figures"]["kills"].as_u64().unwrap() >= 40);
}

#[test]
fn the_embedded_broker_keeps_its_promises_under_every_fault() {
    holds(&["--broker", "embedded"]);
}

#[test]
fn redis_keeps_its_promises_under_every_fault() {
    holds(&["--broker", "redis"]);
}

#[test]
fn a_run_in_which_something_did_not_happen_proves_nothing() {
    // With this seed the first message with a key would be sent half a minute after the run has ended.
    let arguments = [
        "chaos",
        "--workers",
        "2",
        "--faults",
        "kill",
        "--kills",
        "2",
        "--kill-every",
        "50ms",
        "--rate",
        "1",
        "--requests",
        "1",
        "--seed",
        "12",
        "-o",
        "json",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_streamerson"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("(promise-broken)"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["holds"], false);
    let guards = report["guards"].as_array().unwrap();
    let keyed = guards
        .iter()
        .find(|guard| guard["what"] == "effects of keys in order");
    let keyed = keyed.unwrap();
    assert_eq!((&keyed["at_least"], &keyed["seen"]), (&json!(1), &json!(0)));
}
