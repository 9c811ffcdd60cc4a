//! The same commands against a real Redis and against the port: the answers must be the same, byte for byte, but for
//! ids that contain the time, idle times, and what Redis tells of its inner structure.

use std::collections::HashMap;

use streamerson_testkit::redis::RedisServer;

use crate::cases::CASES;
use crate::server::Server;
use crate::wire::{Value, Wire, fields, words};

/// Fields of answers that no two servers share.
const PRIVATE: &[&str] = &[
    "idle",
    "radix-tree-keys",
    "radix-tree-nodes",
    // Redis counts what was ever added and read; we count what is there.
    "entries-added",
    "entries-read",
    "id",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_redis() {
    compare("HELLO 2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_in_resp3_are_those_of_redis() {
    compare("HELLO 3").await;
}

async fn compare(hello: &str) {
    let redis = RedisServer::start().await;
    let server = Server::start().await;
    let mut differences = Vec::new();
    for (name, lines) in CASES {
        let mut real = Wire::connect(([127, 0, 0, 1], redis.port()).into()).await;
        let mut ours = server.connect().await;
        let (mut real_ids, mut our_ids) = (Ids::default(), Ids::default());
        for line in [hello].iter().chain(*lines) {
            let expected = real_ids.normalise(line, run(&mut real, name, line, &real_ids).await);
            let found = our_ids.normalise(line, run(&mut ours, name, line, &our_ids).await);
            if expected != found {
                differences.push(format!(
                    "{name}: {line}\n   redis: {expected:?}\n    port: {found:?}"
                ));
            }
        }
    }
    assert!(differences.is_empty(), "\n{}\n", differences.join("\n"));
}

/// `$K` is the stream of the case, `$F(data)` the fields of a message, `$1` the first id that was given, and so on.
async fn run(wire: &mut Wire, case: &str, line: &str, ids: &Ids) -> Value {
    let mut text = line.replace("$K", &format!("shop:{{{case}}}"));
    while let Some((head, tail)) = text.split_once("$F(") {
        let (data, rest) = tail.split_once(')').expect("$F(data)");
        text = format!("{head}{}{rest}", fields(data));
    }
    for (id, number) in &ids.given {
        text = text.replace(&format!("${number}"), id);
    }
    wire.call(&words(&text)).await
}

/// Ids that contain the time, by the order of their appearance.
#[derive(Default)]
struct Ids {
    given: HashMap<String, usize>,
}

impl Ids {
    fn normalise(&mut self, line: &str, value: Value) -> Value {
        let mut value = self.rename(value);
        if line.starts_with("XPENDING") {
            hide_idle(&mut value);
        }
        hide_private(&mut value);
        value
    }

    fn rename(&mut self, value: Value) -> Value {
        match value {
            Value::Bulk(text) if is_timed(&text) => {
                let next = self.given.len() + 1;
                let number = *self.given.entry(text).or_insert(next);
                Value::Bulk(format!("id {number}"))
            }
            Value::List(items) => {
                Value::List(items.into_iter().map(|item| self.rename(item)).collect())
            }
            Value::Map(pairs) => {
                let pairs = pairs.into_iter();
                Value::Map(
                    pairs
                        .map(|(key, value)| (key, self.rename(value)))
                        .collect(),
                )
            }
            other => other,
        }
    }
}

fn is_timed(text: &str) -> bool {
    text.split_once('-')
        .is_some_and(|(major, minor)| major.len() == 13 && minor.parse::<u64>().is_ok())
}

/// `XPENDING` lists id, consumer, idle time and count.
fn hide_idle(value: &mut Value) {
    let Value::List(rows) = value else { return };
    for row in rows {
        if let Value::List(columns) = row
            && let [
                _,
                Value::Bulk(_),
                idle @ Value::Integer(_),
                Value::Integer(_),
            ] = &mut columns[..]
        {
            *idle = Value::Nil;
        }
    }
}

fn hide_private(value: &mut Value) {
    if let Value::Map(pairs) = value {
        for (name, value) in pairs {
            match PRIVATE.contains(&name.text()) {
                true => *value = Value::Null,
                false => hide_private(value),
            }
        }
        return;
    }
    let Value::List(items) = value else { return };
    for at in 0..items.len() {
        let private = matches!(&items[at], Value::Bulk(name) if PRIVATE.contains(&name.as_str()));
        // A payload field of the same name is text, and stays.
        if private && matches!(items.get(at + 1), Some(Value::Integer(_) | Value::Nil)) {
            items[at + 1] = Value::Nil;
        }
        hide_private(&mut items[at]);
    }
}
