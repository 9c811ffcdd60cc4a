//! kill -9 in the middle of the work: what was acknowledged is there afterwards, and nothing twice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use store::{append, join, name, options, payloads, text, topic};
use streamerson_core::{Append, Broker, Durability, Membership, Message, Outcome, Settlement};
use streamerson_embedded::{EmbeddedBroker, Options};

const DIR: &str = "STREAMERSON_TEST_DIR";
const CLASS: &str = "STREAMERSON_TEST_CLASS";
const BEGIN: &str = "STREAMERSON_TEST_BEGIN";

/// So that some are killed on the way from one segment to the next.
fn small_segments(durability: Durability) -> Options {
    Options {
        segment_bytes: 16 << 10,
        ..options(durability)
    }
}

/// Not a test: the process that is killed. It appends and settles as fast as it can, and prints what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other tests, in a process of its own"]
async fn victim() {
    let (Ok(dir), Ok(class)) = (std::env::var(DIR), std::env::var(CLASS)) else {
        return;
    };
    let begin: u64 = std::env::var(BEGIN).unwrap().parse().unwrap();
    let broker = EmbeddedBroker::open(dir, small_segments(class.parse().unwrap())).unwrap();
    let worker = tokio::spawn(work(broker.clone()));
    for batch in begin.. {
        let numbers = batch * 5..(batch + 1) * 5;
        let message = |n: u64| Message::new("test", n.to_string());
        let appends = numbers
            .clone()
            .map(|n| Append::new(topic("orders"), message(n)));
        let stored = broker.append(appends.collect()).await;
        for (n, stored) in numbers.zip(stored) {
            if stored.is_ok() {
                say(&format!("appended {n}"));
            }
        }
        assert!(!worker.is_finished());
    }
}

async fn work(broker: EmbeddedBroker) {
    let membership = Membership::new(topic("orders"), name("group"), name("victim"));
    let mut member = broker.join(membership).await.unwrap();
    let settler = member.settler();
    loop {
        let deliveries = member.next(20).await.unwrap();
        let texts: Vec<String> = deliveries.iter().map(|d| text(&d.message)).collect();
        let settlements = deliveries.into_iter().map(|delivery| {
            let output = Message::new("test", delivery.message.data.clone());
            let outputs = vec![Append::new(topic("out"), output)];
            Settlement {
                receipt: delivery.receipt,
                outcome: Outcome::Complete {
                    outputs,
                    once: None,
                },
            }
        });
        let settled = settler.settle(settlements.collect()).await;
        for (text, settled) in texts.iter().zip(settled) {
            if settled.is_ok() {
                say(&format!("settled {text}"));
            }
        }
    }
}

/// Not a test: the process that dies of what it is given.
#[tokio::test]
#[ignore = "run by the other tests, in a process of its own"]
async fn poisoned() {
    let (Ok(dir), Ok(class)) = (std::env::var(DIR), std::env::var(CLASS)) else {
        return;
    };
    let broker = EmbeddedBroker::open(dir, options(class.parse().unwrap())).unwrap();
    let mut member = join(&broker, "orders", "victim").await;
    for delivery in member.next(10).await.unwrap() {
        let attempt = delivery.receipt.attempt();
        say(&format!("delivered {} {attempt}", text(&delivery.message)));
    }
    std::process::abort();
}

/// Runs it until it is dead, and answers what it was given.
fn die_of_poison(dir: &Path, class: Durability) -> Vec<String> {
    let victim = Command::new(std::env::current_exe().unwrap())
        .args(["poisoned", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(CLASS, class.to_string())
        .output()
        .unwrap();
    assert_eq!(victim.status.code(), None, "it must die of a signal");
    let said = String::from_utf8_lossy(&victim.stdout).into_owned();
    let delivered = said
        .lines()
        .filter_map(|line| line.strip_prefix("delivered "));
    delivered.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_message_that_kills_its_process_counts_its_deliveries() {
    for class in [Durability::Os, Durability::Disk] {
        let dir = tempfile::tempdir().unwrap();
        let broker = EmbeddedBroker::open(dir.path(), options(class)).unwrap();
        append(&broker, "orders", &["poison", "fine"]).await;
        drop(broker);
        for attempt in 1..=6 {
            let delivered = die_of_poison(dir.path(), class);
            let both = [format!("poison {attempt}"), format!("fine {attempt}")];
            // What died with it twice does not again.
            let expected = if attempt > 2 { &both[..1] } else { &both };
            assert_eq!(delivered, expected);
        }
        // What came later is not blamed.
        let broker = EmbeddedBroker::open(dir.path(), options(class)).unwrap();
        append(&broker, "orders", &["later"]).await;
        let mut member = join(&broker, "orders", "after").await;
        for (text, attempt) in [("poison", 7), ("fine", 3), ("later", 1)] {
            let mut delivery = store::take(&mut member, 1).await;
            assert_eq!(store::seen(&delivery), [(text.to_owned(), attempt)]);
            let settled = Settlement::complete(delivery.remove(0).receipt);
            member
                .settler()
                .settle(vec![settled])
                .await
                .remove(0)
                .unwrap();
        }
    }
}

fn say(line: &str) {
    // One write per line, past the buffer of the test harness: what was said stays said.
    std::io::stdout()
        .write_all(format!("\n{line}\n").as_bytes())
        .unwrap();
    std::io::stdout().flush().unwrap();
}

/// Runs the victim, kills it after so many acknowledgements, and answers all of them.
fn run_and_kill(dir: &Path, class: Durability, begin: u64, after: usize) -> Vec<String> {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(CLASS, class.to_string())
        .env(BEGIN, begin.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    for line in lines {
        let line = line.unwrap();
        if line.starts_with("appended ") || line.starts_with("settled ") {
            said.push(line);
        }
        if said.len() == after {
            // SIGKILL; the rest of the pipe is still read.
            victim.kill().unwrap();
        }
    }
    victim.wait().unwrap();
    said
}

async fn survives(class: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    for round in 0..8u64 {
        said.extend(run_and_kill(
            dir.path(),
            class,
            round * 1_000_000,
            150 + 97 * round as usize,
        ));
        let broker = EmbeddedBroker::open(dir.path(), small_segments(class)).unwrap();
        let orders: BTreeSet<String> = payloads(&broker, "orders")
            .await
            .unwrap()
            .into_iter()
            .collect();
        let out = payloads(&broker, "out").await.unwrap();
        let outputs: BTreeSet<String> = out.iter().cloned().collect();
        assert_eq!(out.len(), outputs.len(), "a settlement took effect twice");
        for line in &said {
            match line.split_once(' ').unwrap() {
                ("appended", n) => assert!(orders.contains(n), "append {n} was lost"),
                (_, n) => assert!(outputs.contains(n), "the output of {n} was lost"),
            }
        }
        // What has no output is still to be delivered, and nothing else.
        let mut member = join(&broker, "orders", "after").await;
        let mut left = orders.len() - outputs.len();
        while left > 0 {
            let deliveries = store::take(&mut member, left.min(100)).await;
            left -= deliveries.len();
            let settled = deliveries.into_iter().map(|delivery| {
                let text = text(&delivery.message);
                assert!(!outputs.contains(&text));
                let output = Append::new(topic("out"), Message::new("test", text));
                Settlement::complete_with(delivery.receipt, vec![output])
            });
            for settled in member.settler().settle(settled.collect()).await {
                settled.unwrap();
            }
        }
        assert!(futures::poll!(member.next(1)).is_pending());
    }
    assert!(said.iter().any(|line| line.starts_with("settled ")));
}

#[tokio::test]
async fn class_os_survives_the_death_of_the_process() {
    survives(Durability::Os).await;
}

#[tokio::test]
async fn class_disk_survives_the_death_of_the_process() {
    survives(Durability::Disk).await;
}
