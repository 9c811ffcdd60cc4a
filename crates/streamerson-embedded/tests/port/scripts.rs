//! Our scripts: in Lua on a real Redis, and in their native form on the port. The answers must be the same.

use streamerson_testkit::redis::RedisServer;

use crate::server::Server;
use crate::wire::{Value, Wire, fields};

pub(crate) const JOIN: &str = include_str!("../../../../spec/scripts/join.lua");
pub(crate) const SETTLE: &str = include_str!("../../../../spec/scripts/settle.lua");
pub(crate) const CLAIM: &str = include_str!("../../../../spec/scripts/claim.lua");
pub(crate) const LEAVE: &str = include_str!("../../../../spec/scripts/leave.lua");
pub(crate) const EXTEND: &str = include_str!("../../../../spec/scripts/extend.lua");
pub(crate) const APPEND: &str = include_str!("../../../../spec/scripts/append.lua");
pub(crate) const TAKE: &str = include_str!("../../../../spec/scripts/take.lua");
pub(crate) const LEASE: &str = include_str!("../../../../spec/scripts/lease.lua");
pub(crate) const PENDING: &str = include_str!("../../../../spec/scripts/pending.lua");
pub(crate) const SEEK: &str = include_str!("../../../../spec/scripts/seek.lua");
pub(crate) const REMOVE: &str = include_str!("../../../../spec/scripts/remove.lua");
pub(crate) const DIVIDE: &str = include_str!("../../../../spec/scripts/divide.lua");

/// A real Redis and a port, given the same commands.
pub(crate) struct Both {
    _redis: RedisServer,
    _server: Server,
    pub(crate) real: Wire,
    pub(crate) ours: Wire,
}

impl Both {
    pub(crate) async fn start() -> Both {
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

const ALL: [&str; 12] = [
    JOIN, SETTLE, CLAIM, LEAVE, EXTEND, APPEND, TAKE, LEASE, PENDING, SEEK, REMOVE, DIVIDE,
];

const A: &str = "shop:{a}";
const DELAY: &str = "shop:{a}:delay:g";
const HEAD: [&str; 6] = ["g", "ada", "10000", "60000", "", ""];

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
    let stranger = ["g", "bob", "1", "1", "", "", "R", "1-1", "0", "1"];
    assert_eq!(both.eval(SETTLE, &[A, DELAY], &stranger).await, ones(&[0]));
    // Nor for one who holds it again since.
    let before = ["g", "ada", "1", "1", "", "", "R", "1-1", "0", "2"];
    assert_eq!(both.eval(SETTLE, &[A, DELAY], &before).await, ones(&[0]));
    let holder = [
        "g", "ada", "1", "1", "", "", "R", "1-1", "3600000", "1", "R", "9-9", "0", "1", "C", "2-1",
        "0",
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
    let settled = ["g", "bob", "1", "1", "", "", "C", "1-1", "0"];
    assert_eq!(both.eval(SETTLE, &[A, DELAY], &settled).await, ones(&[1]));
    assert_eq!(
        both.line(&format!("ZCARD {DELAY}")).await,
        Value::Integer(0)
    );
}

#[tokio::test]
async fn a_group_that_is_gone_is_told_from_a_fence() {
    let mut both = Both::start().await;
    let complete = ["g", "ada", "1", "1", "", "", "C", "1-1", "0"];
    for prepare in [
        "PING",
        "XADD shop:{a} 1-1 id i type t corr '' reply '' meta '' data x",
    ] {
        both.line(prepare).await;
        let answer = both.eval(SETTLE, &[A, DELAY], &complete).await;
        assert!(answer.text().starts_with("NOGROUP "), "{answer:?}");
        let retry = ["g", "ada", "1", "1", "", "", "R", "1-1", "5", "1"];
        both.eval(SETTLE, &[A, DELAY], &retry).await;
        both.eval(
            CLAIM,
            &[A, DELAY],
            &["g", "ada", "5", "10", "-", "", "", ""],
        )
        .await;
        both.eval(LEAVE, &[A, DELAY], &["g", "ada"]).await;
        both.eval(EXTEND, &[A], &["g", "ada", "", "", "1-1"]).await;
    }
}

#[tokio::test]
async fn an_output_that_is_no_stream_is_refused_before_anything_happens() {
    let mut both = Both::start().await;
    both.delivered(2, "ada").await;
    let retry = ["g", "ada", "1", "1", "", "", "R", "2-1", "3600000", "1"];
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
    let claim =
        |lease: &'static str, most: &'static str| ["g", "bob", lease, most, "-", "", "", ""];
    // Nobody was silent for an hour, and nothing was given back.
    both.eval(CLAIM, &[A, DELAY], &claim("3600000", "10")).await;
    let given_back = ["g", "ada", "1", "1", "", "", "R", "2-1", "0", "1"];
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
    let later = ["g", "bob", "1", "1", "", "", "R", "2-1", "3600000", "2"];
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
    let extend = ["g", "ada", "", "", "1-1", "2-1", "3-1", "9-9"];
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
    let claim = ["g", "cyd", "3600000", "10", "-", "", "", ""];
    let claimed = both.eval(CLAIM, &[A, DELAY], &claim).await.list();
    assert_eq!(claimed[1].clone().list().len(), 2);
}

#[tokio::test]
async fn scripts_are_called_by_their_digest() {
    let mut both = Both::start().await;
    both.delivered(1, "ada").await;
    for script in ALL {
        let digest = both.call(&["SCRIPT", "LOAD", script]).await;
        let known = both.call(&["SCRIPT", "EXISTS", digest.text()]).await;
        assert_eq!(known, ones(&[1]));
    }
    let digest = both.call(&["SCRIPT", "LOAD", EXTEND]).await;
    let call = ["EVALSHA", digest.text(), "1", A, "g", "ada", "", "", "1-1"];
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
    let head = ["g", "ada", "1", "1", "", ""];
    let message = ["0", "i", "t", "", "", "", ""];
    for arguments in [
        vec![],
        vec!["g"],
        vec!["g", "ada"],
        vec!["g", "ada", "1"],
        vec!["g", "ada", "1", "1"],
        vec!["g", "ada", "1", "1", ""],
        vec!["g", "ada", "1", "1", "seat", "x"],
        vec!["g", "a b", "1", "1", "", ""],
        [&head[..], &["X", "1-1", "0"]].concat(),
        [&head[..], &["C"]].concat(),
        [&head[..], &["C", "x", "0"]].concat(),
        [&head[..], &["C", "1-1", "9223372036854775807"]].concat(),
        [&head[..], &["C", "1-1", "1", "3", "0", "i"]].concat(),
        [&head[..], &["C", "1-1", "1", "1"], &message, &["d"]].concat(),
        [&head[..], &["C", "1-1", "1", "9"], &message, &["d"]].concat(),
        [&head[..], &["E", "1-1", "key", "x", "0"]].concat(),
        [&head[..], &["E", "1-1", "key"]].concat(),
        [&head[..], &["R", "1-1"]].concat(),
        [&head[..], &["R", "1-1", "x"]].concat(),
        [&head[..], &["R", "1-1", "0"]].concat(),
    ] {
        let call = [&["EVAL", SETTLE], &keys[..], &arguments].concat();
        let answer = wire.call(&call).await;
        assert!(answer.is_error(), "{arguments:?}: {answer:?}");
    }
    for script in ALL {
        // Nothing to append is no damage.
        if script == APPEND {
            continue;
        }
        assert!(wire.call(&["EVAL", script, "0"]).await.is_error());
        assert!(
            wire.call(&["EVAL", script, "1", "foo", "g", "ada"])
                .await
                .is_error()
        );
    }
}

#[tokio::test]
async fn a_member_joins_and_its_group_is_there() {
    let mut both = Both::start().await;
    let join =
        |start: &'static str, was_there: &'static str| ["g", "ada", start, "", "", was_there];
    both.eval(JOIN, &[A, DELAY], &join("0-0", "0")).await;
    both.line("XINFO GROUPS shop:{a}").await;
    both.line(&format!("XADD {A} 5-1 {}", fields("x"))).await;
    both.line("XREADGROUP GROUP g ada STREAMS shop:{a} >").await;
    // It stays where it is.
    both.eval(JOIN, &[A, DELAY], &join("$", "0")).await;
    both.eval(JOIN, &[A, DELAY], &join("0-0", "1")).await;
    let complete = ["g", "ada", "1", "1", "", "", "C", "5-1", "0"];
    both.eval(SETTLE, &[A, DELAY], &complete).await;
    both.line(&format!("XADD {A} 6-1 {}", fields("y"))).await;
    let other = ["new", "bob", "$", "", "", "0"];
    both.eval(JOIN, &[A, "shop:{a}:delay:new"], &other).await;
}

#[tokio::test]
async fn a_group_that_was_removed_under_its_member_begins_where_all_was_settled() {
    let mut both = Both::start().await;
    both.eval(JOIN, &[A, DELAY], &["g", "ada", "0-0", "", "", "0"])
        .await;
    for n in 1..=3 {
        both.line(&format!("XADD {A} {n}-1 {}", fields("x"))).await;
    }
    both.line("XREADGROUP GROUP g ada COUNT 2 STREAMS shop:{a} >")
        .await;
    let complete = ["g", "ada", "1", "1", "", "", "C", "1-1", "0"];
    both.eval(SETTLE, &[A, DELAY], &complete).await;
    for (wire, settled) in [(&mut both.real, "0-0"), (&mut both.ours, "2-0")] {
        let call = |script, keys: &[&'static str], arguments: &[&'static str]| {
            let count = if keys.len() == 1 { "1" } else { "2" };
            [&["EVAL", script, count], keys, arguments].concat()
        };
        let removed = wire.call(&call(REMOVE, &[A], &["group", "g"])).await;
        assert_eq!(removed, Value::Integer(1));
        let refused = wire.line("XREADGROUP GROUP g ada STREAMS shop:{a} >").await;
        assert!(refused.text().starts_with("NOGROUP "), "{refused:?}");
        let again = ["g", "ada", "0-0", "", "", "1"];
        let joined = wire.call(&call(JOIN, &[A, DELAY], &again)).await.list();
        assert_eq!(joined[0], Value::Integer(1));
        // Redis knows as far as the last checkpoint, which is written once a second.
        let Value::Bulk(last) = &joined[1] else {
            panic!("{joined:?}");
        };
        assert!(
            last.as_str() <= "2-0" && last.as_str() >= settled.min("1-18446744073709551615"),
            "{last}"
        );
    }
}

#[tokio::test]
async fn an_effect_happens_once_and_later_ones_answer_as_the_first() {
    let mut both = Both::start().await;
    both.delivered(3, "ada").await;
    let keys = [A, DELAY, "shop:{inbox.x}", "shop:{b}"];
    let output = ["4", "0", "o", "next", "", "", "", "output"];
    for (id, key, said) in [
        ("1-1", "k", "one"),
        ("2-1", "k", "two"),
        ("3-1", "l", "three"),
    ] {
        let answer = ["3", "1", "r", "greet", "c", "", "{}", said];
        let call = [&HEAD[..], &["E", id, key, "60000", "2"], &answer, &output].concat();
        assert_eq!(both.eval(SETTLE, &keys, &call).await, ones(&[1]));
        assert_eq!(both.eval(SETTLE, &keys, &call).await, ones(&[0]));
    }
    assert_eq!(both.line("XLEN shop:{b}").await, Value::Integer(2));
    for wire in [&mut both.real, &mut both.ours] {
        let answers = wire.line("XRANGE shop:{inbox.x} - +").await.list();
        let said = answers.into_iter().map(|entry| {
            let fields = entry.list()[1].clone().list();
            fields[11].text().to_owned()
        });
        let said: Vec<String> = said.collect();
        assert_eq!(said, ["one", "one", "three"]);
    }
}

#[tokio::test]
async fn messages_are_appended_on_terms() {
    let mut both = Both::start().await;
    let output = |data: &'static str, due: &'static str, key: &'static str| {
        let keep = if key.is_empty() { "" } else { "60000" };
        ["1", "2", "i", "t", "", "", "", data, due, key, keep]
    };
    let far = "99999999999999";
    let batch = [
        output("later", far, ""),
        output("now", "1", ""),
        output("once", "", "k"),
        output("again", "", "k"),
        output("once later", far, "l"),
        output("again later", far, "l"),
    ]
    .concat();
    for wire in [&mut both.real, &mut both.ours] {
        let call = [&["EVAL", APPEND, "1", A][..], &batch].concat();
        let ids = wire.call(&call).await.list();
        let none = Value::Bulk("0-0".into());
        assert_eq!((&ids[0], &ids[4], &ids[5]), (&none, &none, &none));
        assert!(ids[1] != none && ids[2] != none);
        assert_eq!(ids[2], ids[3]);
    }
    assert_eq!(both.line("XLEN shop:{a}").await, Value::Integer(2));
    assert_eq!(both.line("ZCARD shop:{a}:later").await, Value::Integer(2));
    both.line("TYPE shop:{a}:later").await;
    both.line("TYPE shop:{b}:later").await;
    assert_eq!(both.eval(REMOVE, &[A], &["topic"]).await, Value::Integer(1));
    assert_eq!(both.eval(REMOVE, &[A], &["topic"]).await, Value::Integer(0));
    assert_eq!(both.line("ZCARD shop:{a}:later").await, Value::Integer(0));
}

/// Redis refuses before it writes. The port decides one by one, and says so.
#[tokio::test]
async fn what_is_done_in_part_is_answered_one_by_one() {
    let mut both = Both::start().await;
    both.delivered(3, "ada").await;
    let long = "k".repeat(513);
    let refused = |answer: &Value| answer.text().contains("invalid-once-key");

    let output = |key| ["1", "2", "i", "t", "", "", "", "data", "", key, "60000"];
    let append = [
        &["EVAL", APPEND, "1", "shop:{b}"][..],
        &output("a"),
        &output(&long),
    ]
    .concat();
    let answers = both.ours.call(&append).await.list();
    assert!(
        !answers[0].is_error() && refused(&answers[1]),
        "{answers:?}"
    );
    let append = ["EVAL", APPEND, "1", "shop:{b}"];
    let answer = both
        .ours
        .call(&[&append[..], &output(&long)].concat())
        .await;
    assert!(answer.is_error() && refused(&answer), "{answer:?}");
    assert_eq!(both.ours.line("XLEN shop:{b}").await, Value::Integer(1));

    let settle = [&["EVAL", SETTLE, "2", A, DELAY], &HEAD[..]].concat();
    let effect = ["E", "2-1", &long, "60000", "0"];
    let mixed = [&settle[..], &["C", "1-1", "0"], &effect, &["C", "3-1", "0"]].concat();
    let answers = both.ours.call(&mixed).await.list();
    assert_eq!(
        (&answers[0], &answers[2]),
        (&Value::Integer(1), &Value::Integer(1))
    );
    assert!(refused(&answers[1]), "{answers:?}");
    let answer = both.ours.call(&[&settle[..], &effect].concat()).await;
    assert!(answer.is_error() && refused(&answer), "{answer:?}");
}

#[tokio::test]
async fn an_entry_is_taken_out_once() {
    let mut both = Both::start().await;
    both.delivered(3, "ada").await;
    let output = ["2", "0", "o", "next", "", "", "", "output"];
    let take = |id: &'static str| [&[id, "10000", "60000"][..], &output].concat();
    let keys = [A, "shop:{b}"];
    assert_eq!(
        both.eval(TAKE, &keys, &take("2-1")).await,
        Value::Integer(1)
    );
    assert_eq!(
        both.eval(TAKE, &keys, &take("2-1")).await,
        Value::Integer(0)
    );
    assert_eq!(
        both.eval(TAKE, &keys, &take("9-9")).await,
        Value::Integer(0)
    );
    both.line("XLEN shop:{b}").await;
    both.line("XRANGE shop:{a} - +").await;
    both.line("XPENDING shop:{a} g").await;
    assert_eq!(both.line("XDEL shop:{a} 1-1 2-1").await, Value::Integer(1));
    both.line("XLEN shop:{a}").await;
}

#[tokio::test]
async fn leases_have_one_holder_and_fence_the_others() {
    let mut both = Both::start().await;
    both.delivered(2, "ada").await;
    for wire in [&mut both.real, &mut both.ours] {
        let lease = |arguments: &[&'static str]| [&["EVAL", LEASE, "1", A], arguments].concat();
        let acquire = |holder| lease(&["acquire", "seat", holder, "60000"]);
        let held = wire.call(&acquire("ada")).await.list();
        let names = ["seat", "ada"].map(|name| Value::Bulk(name.into()));
        assert_eq!(held[..2], names);
        let epoch = held[2].text().to_owned();
        assert_eq!(wire.call(&acquire("bob")).await.list()[..3], held[..3]);
        assert_eq!(wire.call(&acquire("ada")).await.list()[..3], held[..3]);
        let list = wire.call(&lease(&["list"])).await.list();
        assert_eq!(list.len(), 1);
        for (member, admitted) in [("bob", false), ("ada", true)] {
            let settle = [member, "1", "1", "seat", &epoch, "C", "1-1", "0"];
            let settle = [&["EVAL", SETTLE, "2", A, DELAY, "g"], &settle[..]].concat();
            let extend = ["EVAL", EXTEND, "1", A, "g", member, "seat", &epoch, "2-1"];
            let claim = [member, "3600000", "10", "-", "seat", &epoch, ""];
            let claim = [&["EVAL", CLAIM, "2", A, DELAY, "g"], &claim[..]].concat();
            let join = [member, "0-0", "seat", &epoch, "0"];
            let join = [&["EVAL", JOIN, "2", A, DELAY, "g"], &join[..]].concat();
            for call in [&settle[..], &extend, &claim, &join] {
                let answer = wire.call(call).await;
                assert_eq!(answer.is_error(), !admitted, "{member}: {answer:?}");
                assert!(
                    admitted || answer.text().starts_with("FENCED "),
                    "{answer:?}"
                );
            }
        }
        let seek = ["EVAL", SEEK, "1", A, "g", "2-1", "seat", &epoch];
        assert_eq!(wire.call(&seek).await, Value::Integer(1));
        let release = |holder| lease(&["release", "seat", holder]);
        assert_eq!(wire.call(&release("bob")).await, Value::Integer(0));
        assert_eq!(wire.call(&release("ada")).await, Value::Integer(1));
        let refused = wire.call(&seek).await;
        assert!(refused.text().starts_with("FENCED "), "{refused:?}");
        let next = wire.call(&acquire("bob")).await.list();
        let (before, after): (u64, u64) = (epoch.parse().unwrap(), next[2].text().parse().unwrap());
        assert!(after > before);
    }
}

#[tokio::test]
async fn an_owner_is_given_what_others_held_and_what_is_new() {
    let mut both = Both::start().await;
    both.delivered(2, "ada").await;
    both.line(&format!("XADD {A} 3-1 {}", fields("new"))).await;
    for wire in [&mut both.real, &mut both.ours] {
        let acquire = ["acquire", "seat", "bob", "60000"];
        let acquire = [&["EVAL", LEASE, "1", A], &acquire[..]].concat();
        let epoch = wire.call(&acquire).await.list()[2].text().to_owned();
        let claim = ["g", "bob", "3600000", "10", "-", "seat", &epoch, ""];
        let claim = [&["EVAL", CLAIM, "2", A, DELAY], &claim[..]].concat();
        let claimed = wire.call(&claim).await.list()[1].clone().list();
        let seen = claimed.into_iter().map(|entry| {
            let entry = entry.list();
            (entry[0].text().to_owned(), entry[1].clone())
        });
        let seen: Vec<(String, Value)> = seen.collect();
        let expected = [("1-1", 2), ("2-1", 2), ("3-1", 1)];
        let expected = expected.map(|(id, n)| (id.to_owned(), Value::Integer(n)));
        assert_eq!(seen, expected);
    }
}

/// More than comes in one step: it says that the search goes on, so that the next one does not only fetch what is new.
#[tokio::test]
async fn an_owner_is_told_when_a_search_left_something() {
    let mut both = Both::start().await;
    both.delivered(200, "ada").await;
    both.line(&format!("XADD {A} 201-1 {}", fields("new")))
        .await;
    for wire in [&mut both.real, &mut both.ours] {
        let acquire = ["EVAL", LEASE, "1", A, "acquire", "seat", "bob", "60000"];
        let epoch = wire.call(&acquire).await.list()[2].text().to_owned();
        let (mut steps, mut seen) = (vec!["-".to_owned()], Vec::new());
        while steps.len() == 1 || steps[steps.len() - 1] != "-" {
            let cursor = &steps[steps.len() - 1];
            let claim = ["g", "bob", "3600000", "150", cursor, "seat", &epoch, ""];
            let claim = [&["EVAL", CLAIM, "2", A, DELAY], &claim[..]].concat();
            let claimed = wire.call(&claim).await.list();
            let entries = claimed[1].clone().list().into_iter();
            seen.extend(entries.map(|entry| entry.list()[0].text().to_owned()));
            steps.push(claimed[0].text().to_owned());
        }
        assert_eq!(steps.len(), 3);
        let all: Vec<String> = (1..=201).map(|n| format!("{n}-1")).collect();
        assert_eq!(seen, all);
    }
}

#[tokio::test]
async fn what_is_pending_is_listed_and_members_that_hold_nothing_go() {
    let mut both = Both::start().await;
    both.delivered(3, "ada").await;
    both.line("XGROUP CREATECONSUMER shop:{a} g bob").await;
    let later = ["g", "ada", "1", "1", "", "", "R", "2-1", "3600000", "1"];
    both.eval(SETTLE, &[A, DELAY], &later).await;
    for wire in [&mut both.real, &mut both.ours] {
        let pending = ["EVAL", PENDING, "2", A, DELAY, "g", "(1-1", "10"];
        let rows = wire.call(&pending).await.list();
        let rows: Vec<Vec<Value>> = rows.into_iter().map(Value::list).collect();
        let ids: Vec<&str> = rows.iter().map(|row| row[0].text()).collect();
        assert_eq!(ids, ["2-1", "3-1"]);
        assert_eq!(
            (&rows[0][3], &rows[1][4]),
            (&Value::Integer(1), &Value::Integer(-1))
        );
        let Value::Integer(due) = rows[0][4] else {
            panic!("{rows:?}");
        };
        assert!((3_500_000..=3_600_000).contains(&due), "{due}");
    }
    both.eval(PENDING, &[A, "shop:{a}:delay:no"], &["no", "-", "10"])
        .await;
    both.eval(REMOVE, &[A], &["members", "g", "3600000"]).await;
    both.eval(REMOVE, &[A], &["members", "g", "0"]).await;
    both.eval(SEEK, &[A], &["g", "0-0", "", ""]).await;
    both.eval(SEEK, &[A], &["new", "$", "", ""]).await;
    both.line("XINFO GROUPS shop:{a}").await;
    for n in ["0", "8", "4", "0"] {
        both.eval(DIVIDE, &[A], &[n]).await;
    }
}
