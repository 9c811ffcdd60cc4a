//! Our scripts: in Lua on a real Redis, and in their native form on the port. The answers must be the same.

use streamerson_testkit::redis::RedisServer;

use crate::server::Server;
use crate::wire::{Value, Wire, fields};

const SETTLE: &str = include_str!("../../../streamerson-redis/src/scripts/settle.lua");
const CLAIM: &str = include_str!("../../../streamerson-redis/src/scripts/claim.lua");
const LEAVE: &str = include_str!("../../../streamerson-redis/src/scripts/leave.lua");
const EXTEND: &str = include_str!("../../../streamerson-redis/src/scripts/extend.lua");

/// A real Redis and a port, given the same commands.
struct Both {
    _redis: RedisServer,
    _server: Server,
    real: Wire,
    ours: Wire,
}

impl Both {
    async fn start() -> Both {
        let redis = RedisServer::start().await;
        let server = Server::start().await;
        Both {
            real: Wire::connect(([127, 0, 0, 1], redis.port()).into()).await,
            ours: server.connect().await,
            _redis: redis,
            _server: server,
        }
    }

    async fn call(&mut self, words: &[&str]) -> Value {
        let real = self.real.call(words).await;
        let ours = self.ours.call(words).await;
        let shown = &words[words.len().min(1)..];
        assert_eq!(
            ours, real,
            "the port (left) and Redis (right) differ about {shown:?}"
        );
        ours
    }

    async fn line(&mut self, line: &str) -> Value {
        self.call(&crate::wire::words(line)).await
    }

    async fn eval(&mut self, script: &str, keys: &[&str], arguments: &[&str]) -> Value {
        let count = keys.len().to_string();
        self.call(&[&["EVAL", script, &count], keys, arguments].concat())
            .await
    }

    /// A group with this many messages, delivered to `member`.
    async fn delivered(&mut self, count: usize, member: &str) {
        self.line("XGROUP CREATE shop:{a} g 0 MKSTREAM").await;
        for n in 1..=count {
            self.line(&format!(
                "XADD shop:{{a}} {n}-1 {}",
                fields(&format!("d{n}"))
            ))
            .await;
        }
        self.line(&format!("XREADGROUP GROUP g {member} STREAMS shop:{{a}} >"))
            .await;
    }
}

const A: &str = "shop:{a}";
const DELAY: &str = "shop:{a}:delay:g";
const HEAD: [&str; 4] = ["g", "ada", "10000", "60000"];

fn ones(list: &[i64]) -> Value {
    Value::List(list.iter().map(|n| Value::Integer(*n)).collect())
}

#[tokio::test]
async fn the_first_settlement_wins_with_its_outputs() {
    let mut both = Both::start().await;
    both.delivered(3, "ada").await;
    let keys = [A, DELAY, "shop:{inbox.x}", "shop:{b}"];
    let reply = ["3", "1", "r1", "greet", "d1", "", "", "answer"];
    let output = ["4", "0", "o1", "next", "", "inbox.x", "{}", "output"];
    let first = [
        &HEAD[..],
        &["C", "1-1", "2"],
        &reply,
        &output,
        &["C", "2-1", "0"],
    ]
    .concat();
    assert_eq!(both.eval(SETTLE, &keys, &first).await, ones(&[1, 1]));
    assert_eq!(both.eval(SETTLE, &keys, &first).await, ones(&[0, 0]));
    // One that was not settled before, among those that were.
    let mixed = [
        &HEAD[..],
        &["C", "1-1", "1"],
        &reply,
        &["C", "3-1", "1"],
        &reply,
    ]
    .concat();
    assert_eq!(both.eval(SETTLE, &keys, &mixed).await, ones(&[0, 1]));
    assert_eq!(both.line("XLEN shop:{inbox.x}").await, Value::Integer(2));
    assert_eq!(both.line("XLEN shop:{b}").await, Value::Integer(1));
    both.line("XPENDING shop:{a} g").await;
    for wire in [&mut both.real, &mut both.ours] {
        let entries = wire.line("XRANGE shop:{b} - +").await.list();
        let stored = entries[0].clone().list()[1].clone();
        let expected = "id o1 type next corr '' reply inbox.x meta {} data output";
        let expected: Vec<Value> = crate::wire::words(expected)
            .into_iter()
            .map(|word| Value::Bulk(word.into()))
            .collect();
        assert_eq!(stored, Value::List(expected));
    }
}

#[tokio::test]
async fn a_retry_is_only_for_the_holder() {
    let mut both = Both::start().await;
    both.delivered(2, "ada").await;
    let stranger = ["g", "bob", "1", "1", "R", "1-1", "0"];
    assert_eq!(both.eval(SETTLE, &[A, DELAY], &stranger).await, ones(&[0]));
    let holder = [
        "g", "ada", "1", "1", "R", "1-1", "3600000", "R", "9-9", "0", "C", "2-1", "0",
    ];
    assert_eq!(
        both.eval(SETTLE, &[A, DELAY], &holder).await,
        ones(&[1, 0, 1])
    );
    both.line(&format!("TYPE {DELAY}")).await;
    assert_eq!(
        both.line(&format!("ZCARD {DELAY}")).await,
        Value::Integer(1)
    );
    both.line(&format!("ZRANGE {DELAY} 0 -1")).await;
    both.line(&format!("EXISTS {DELAY}")).await;
    // It may still be settled, and then is not tried again.
    let settled = ["g", "bob", "1", "1", "C", "1-1", "0"];
    assert_eq!(both.eval(SETTLE, &[A, DELAY], &settled).await, ones(&[1]));
    assert_eq!(
        both.line(&format!("ZCARD {DELAY}")).await,
        Value::Integer(0)
    );
}

#[tokio::test]
async fn a_group_that_is_gone_is_told_from_a_fence() {
    let mut both = Both::start().await;
    let complete = ["g", "ada", "1", "1", "C", "1-1", "0"];
    for prepare in [
        "PING",
        "XADD shop:{a} 1-1 id i type t corr '' reply '' meta '' data x",
    ] {
        both.line(prepare).await;
        let answer = both.eval(SETTLE, &[A, DELAY], &complete).await;
        assert!(answer.text().starts_with("NOGROUP "), "{answer:?}");
        let retry = ["g", "ada", "1", "1", "R", "1-1", "5"];
        both.eval(SETTLE, &[A, DELAY], &retry).await;
        both.eval(CLAIM, &[A, DELAY], &["g", "ada", "5", "10", "-"])
            .await;
        both.eval(LEAVE, &[A, DELAY], &["g", "ada"]).await;
        both.eval(EXTEND, &[A], &["g", "ada", "1-1"]).await;
    }
}

#[tokio::test]
async fn an_output_that_is_no_stream_is_refused_before_anything_happens() {
    let mut both = Both::start().await;
    both.delivered(2, "ada").await;
    let retry = ["g", "ada", "1", "1", "R", "2-1", "3600000"];
    both.eval(SETTLE, &[A, DELAY], &retry).await;
    let output = ["3", "0", "o", "t", "", "", "", "x"];
    let complete = [&HEAD[..], &["C", "1-1", "1"], &output].concat();
    let keys = [A, DELAY, DELAY];
    for wire in [&mut both.real, &mut both.ours] {
        let answer = wire
            .call(&[&["EVAL", SETTLE, "3"], &keys[..], &complete].concat())
            .await;
        assert!(answer.text().starts_with("WRONGTYPE "), "{answer:?}");
    }
    both.line("XPENDING shop:{a} g").await;
}

#[tokio::test]
async fn what_was_given_back_is_claimed_and_what_is_silent() {
    let mut both = Both::start().await;
    both.delivered(4, "ada").await;
    let claim = |lease: &'static str, most: &'static str| ["g", "bob", lease, most, "-"];
    // Nobody was silent for an hour, and nothing was given back.
    both.eval(CLAIM, &[A, DELAY], &claim("3600000", "10")).await;
    let given_back = ["g", "ada", "1", "1", "R", "2-1", "0"];
    both.eval(SETTLE, &[A, DELAY], &given_back).await;
    let claimed = both
        .eval(CLAIM, &[A, DELAY], &claim("3600000", "10"))
        .await
        .list();
    let entries = claimed[1].clone().list();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        entries[0].clone().list()[..2],
        [Value::Bulk("2-1".into()), Value::Integer(2)]
    );
    // With no lease at all, everybody is silent, but what is to be tried in an hour waits.
    let later = ["g", "bob", "1", "1", "R", "2-1", "3600000"];
    both.eval(SETTLE, &[A, DELAY], &later).await;
    for wire in [&mut both.real, &mut both.ours] {
        let call = [&["EVAL", CLAIM, "2", A, DELAY][..], &claim("0", "10")].concat();
        let claimed = wire.call(&call).await.list();
        assert_eq!(claimed[1].clone().list().len(), 3);
        assert_eq!(
            (&claimed[0], &claimed[2]),
            (&Value::Bulk("-".into()), &Value::Integer(0))
        );
        let Value::Integer(wait) = claimed[3] else {
            panic!("{claimed:?}");
        };
        assert!((3_500_000..=3_600_000).contains(&wait), "{wait}");
    }
    for wire in [&mut both.real, &mut both.ours] {
        let pending = wire.line("XPENDING shop:{a} g - + 10").await.list();
        let attempts: Vec<Value> = pending
            .into_iter()
            .map(|row| row.list()[3].clone())
            .collect();
        assert_eq!(attempts, [2, 2, 2, 2].map(Value::Integer));
    }
}

#[tokio::test]
async fn a_sign_of_life_is_only_for_the_holder() {
    let mut both = Both::start().await;
    both.delivered(3, "ada").await;
    both.line("XCLAIM shop:{a} g bob 0 2-1 JUSTID").await;
    let extend = ["g", "ada", "1-1", "2-1", "3-1", "9-9"];
    assert_eq!(both.eval(EXTEND, &[A], &extend).await, Value::Integer(2));
    for wire in [&mut both.real, &mut both.ours] {
        let pending = wire.line("XPENDING shop:{a} g - + 10").await.list();
        let holders: Vec<String> = pending
            .into_iter()
            .map(|row| row.list()[1].text().into())
            .collect();
        assert_eq!(holders, ["ada", "bob", "ada"]);
    }
}

#[tokio::test]
async fn who_leaves_gives_everything_back() {
    let mut both = Both::start().await;
    both.delivered(3, "ada").await;
    both.line("XCLAIM shop:{a} g bob 0 2-1 JUSTID").await;
    assert_eq!(
        both.eval(LEAVE, &[A, DELAY], &["g", "ada"]).await,
        Value::Integer(2)
    );
    assert_eq!(
        both.eval(LEAVE, &[A, DELAY], &["g", "ada"]).await,
        Value::Integer(0)
    );
    let claim = ["g", "cyd", "3600000", "10", "-"];
    let claimed = both.eval(CLAIM, &[A, DELAY], &claim).await.list();
    assert_eq!(claimed[1].clone().list().len(), 2);
}

#[tokio::test]
async fn scripts_are_called_by_their_digest() {
    let mut both = Both::start().await;
    both.delivered(1, "ada").await;
    for script in [SETTLE, CLAIM, LEAVE, EXTEND] {
        let digest = both.call(&["SCRIPT", "LOAD", script]).await;
        let known = both.call(&["SCRIPT", "EXISTS", digest.text()]).await;
        assert_eq!(known, ones(&[1]));
    }
    let digest = both.call(&["SCRIPT", "LOAD", EXTEND]).await;
    let call = ["EVALSHA", digest.text(), "1", A, "g", "ada", "1-1"];
    assert_eq!(both.call(&call).await, Value::Integer(1));
    both.line("SCRIPT FLUSH").await;
    let gone = both.call(&call).await;
    assert!(gone.text().starts_with("NOSCRIPT"), "{gone:?}");
}

#[tokio::test]
async fn damaged_calls_are_refused() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    wire.line("XGROUP CREATE shop:{a} g 0 MKSTREAM").await;
    let keys = ["3", A, DELAY, "shop:{b}"];
    for arguments in [
        &[][..],
        &["g"],
        &["g", "ada"],
        &["g", "ada", "1"],
        &["g", "ada", "1", "1", "X", "1-1", "0"],
        &["g", "ada", "1", "1", "C"],
        &["g", "ada", "1", "1", "C", "x", "0"],
        &["g", "ada", "1", "1", "C", "1-1", "9223372036854775807"],
        &["g", "ada", "1", "1", "C", "1-1", "1", "3", "0", "i"],
        &[
            "g", "ada", "1", "1", "C", "1-1", "1", "1", "0", "i", "t", "", "", "", "",
        ],
        &[
            "g", "ada", "1", "1", "C", "1-1", "1", "9", "0", "i", "t", "", "", "", "",
        ],
        &["g", "ada", "1", "1", "R", "1-1"],
        &["g", "ada", "1", "1", "R", "1-1", "x"],
        &["g", "a b", "1", "1"],
    ] {
        let call = [&["EVAL", SETTLE], &keys[..], arguments].concat();
        let answer = wire.call(&call).await;
        assert!(answer.is_error(), "{arguments:?}: {answer:?}");
    }
    for script in [CLAIM, LEAVE, EXTEND, SETTLE] {
        assert!(wire.call(&["EVAL", script, "0"]).await.is_error());
        assert!(
            wire.call(&["EVAL", script, "1", "foo", "g", "ada"])
                .await
                .is_error()
        );
    }
}
