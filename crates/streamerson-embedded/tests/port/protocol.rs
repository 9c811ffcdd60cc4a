//! Versions of the protocol: which are spoken, when, and that RESP3 has the forms that Redis gives it.

use streamerson_embedded::port::Options;

use crate::scripts::{
    APPEND, Both, CLAIM, DIVIDE, EXTEND, JOIN, LEASE, LEAVE, PENDING, REMOVE, SEEK, SETTLE, TAKE,
};
use crate::server::Server;
use crate::wire::{Value, encode, fields, words};

const A: &str = "shop:{a}";
const DELAY: &str = "shop:{a}:delay:g";

#[tokio::test]
async fn other_versions_are_refused_with_the_ones_that_are_spoken() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    for version in ["0", "1", "4", "-3"] {
        let refused = wire.call(&["HELLO", version]).await;
        assert_eq!(
            refused,
            Value::Error("NOPROTO unsupported protocol version: 2 and 3 are spoken here".into()),
        );
    }
    assert_eq!(wire.line("CLIENT GETNAME").await, Value::Nil);
}

#[tokio::test]
async fn each_answer_of_a_batch_is_in_the_version_asked_for_before_it() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let add = format!("XADD shop:{{a}} * {}", fields("x"));
    let read = "XREAD STREAMS shop:{none} 0";
    let batch = [read, &add, "HELLO 3", read, &add, read, "HELLO 2", read];
    let batch: Vec<u8> = batch.iter().flat_map(|line| encode(&words(line))).collect();
    wire.write(&batch).await;
    let mut forms = Vec::new();
    for _ in 0..8 {
        forms.push(wire.receive().await.form());
    }
    let [two, three] = ["*($$$$$:$:$$$$$*())", "%($$$$$:$:$$$$$*())"];
    assert_eq!(forms, ["*-1", "$", three, "_", "$", "_", two, "*-1"]);
}

#[tokio::test]
async fn a_stranger_may_choose_the_version_with_the_password() {
    let options = Options {
        password: Some("open sesame".into()),
        ..Options::default()
    };
    let server = Server::with(options).await;
    let mut wire = server.connect().await;
    assert!(wire.line("HELLO 3").await.text().starts_with("NOAUTH"));
    let wrong = wire.line("HELLO 3 AUTH default wrong").await;
    assert!(wrong.text().starts_with("WRONGPASS"));
    let hello = ["HELLO", "3", "AUTH", "default", "open sesame"];
    let hello = [&hello[..], &["SETNAME", "ada"]].concat();
    assert_eq!(wire.call(&hello).await.map().len(), 7);
    assert_eq!(wire.line("CLIENT GETNAME").await, Value::Bulk("ada".into()));
    assert_eq!(wire.line("XREAD STREAMS shop:{a} 0").await, Value::Null);
    assert_eq!(wire.line("RESET").await, Value::Simple("RESET".into()));
    assert!(wire.line("HELLO").await.text().starts_with("NOAUTH"));
    assert_eq!(wire.call(&["AUTH", "open sesame"]).await, Value::ok());
    assert_eq!(wire.line("XREAD STREAMS shop:{a} 0").await, Value::NilList);
}

#[tokio::test]
async fn others_see_which_version_a_client_speaks() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    for (line, version) in [("PING", 2), ("HELLO 3", 3), ("RESET", 2)] {
        wire.line(line).await;
        let list = wire.line("CLIENT LIST").await;
        let expected = format!(" resp={version} ");
        assert!(list.text().contains(&expected), "{line}: {list:?}");
    }
}

/// A real Redis and a port that are told the same in RESP3, and answer in the same forms.
struct Alike(Both);

impl Alike {
    async fn start() -> Alike {
        let mut alike = Alike(Both::start().await);
        alike.line("HELLO 3").await;
        alike
    }

    async fn call(&mut self, words: &[&str]) -> Value {
        let real = self.0.real.call(words).await;
        let ours = self.0.ours.call(words).await;
        assert_eq!(
            ours.form(),
            real.form(),
            "{:?}: {ours:?} from the port (left) and {real:?} from Redis (right) differ in form",
            &words[words.len().min(1)..]
        );
        ours
    }

    async fn line(&mut self, line: &str) -> Value {
        self.call(&words(line)).await
    }

    async fn eval(&mut self, script: &str, keys: &[&str], arguments: &[&str]) -> Value {
        let digest = self.call(&["SCRIPT", "LOAD", script]).await;
        let count = keys.len().to_string();
        let call = ["EVALSHA", digest.text(), &count];
        self.call(&[&call, keys, arguments].concat()).await
    }
}

#[tokio::test]
async fn what_differs_in_content_has_the_form_of_redis_in_resp3() {
    let mut both = Alike::start().await;
    for line in [
        "INFO",
        "INFO server",
        "CLIENT INFO",
        "CLIENT LIST",
        "CLIENT ID",
        "COMMAND COUNT",
        "COMMAND DOCS no-such-command",
        "COMMAND INFO ping no-such-command xlen",
        "TIME",
        "DBSIZE",
        "WAIT 0 0",
        "SCRIPT EXISTS 0123456789012345678901234567890123456789",
    ] {
        both.line(line).await;
    }
}

#[tokio::test]
async fn a_worker_in_resp3_gets_answers_in_the_forms_of_redis() {
    let mut both = Alike::start().await;
    let keys = [A, DELAY];
    both.eval(JOIN, &keys, &["g", "ada", "0", "", "", "0"])
        .await;
    for n in 1..=4 {
        let add = format!("XADD {A} {n}-1 {}", fields(&format!("d{n}")));
        both.line(&add).await;
    }
    let taken = both
        .line("XREADGROUP GROUP g ada COUNT 3 BLOCK 1000 STREAMS shop:{a} >")
        .await;
    let taken = taken.map();
    assert_eq!(taken[0].0, Value::Bulk(A.into()));
    assert_eq!(taken[0].1.clone().list().len(), 3);

    let head = ["g", "ada", "10000", "60000", "", ""];
    let settle = [
        "C", "1-1", "0", "R", "2-1", "0", "1", "R", "3-1", "60000", "1",
    ];
    let settled = both
        .eval(SETTLE, &keys, &[&head[..], &settle].concat())
        .await;
    assert_eq!(settled, Value::List(vec![Value::Integer(1); 3]));

    let scores = both.line("ZRANGE shop:{a}:delay:g 0 -1 WITHSCORES").await;
    assert_eq!(scores.form(), "*(*($,)*($,))");
    both.line("ZRANGE shop:{a}:delay:g 0 -1").await;
    both.line("ZSCORE shop:{a}:delay:g 3-1").await;
    both.line("ZSCORE shop:{a}:delay:g 9-9").await;

    let claim = ["g", "ada", "5000", "64", "-", "", "", ""];
    let claimed = both.eval(CLAIM, &keys, &claim).await.list();
    let again = claimed[1].clone().list();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].form(), "*($:*($$$$$$$$$$$$))");
    for (script, keys, arguments) in [
        (PENDING, &keys[..], &["g", "-", "10"][..]),
        (EXTEND, &[A], &["g", "ada", "", "", "2-1"]),
        (LEASE, &[A], &["list"]),
        (LEASE, &[A], &["acquire", "l", "ada", "60000"]),
        (LEASE, &[A], &["list"]),
        (LEASE, &[A], &["release", "l", "ada"]),
        (APPEND, &[A], &["1", "0", "i", "t", "", "", "", "d"]),
        (TAKE, &[A], &["1-1", "10000", "60000"]),
        (SEEK, &[A], &["other", "0"]),
        (REMOVE, &[A], &["group", "other"]),
        (REMOVE, &[A], &["members", "g", "60000"]),
        (DIVIDE, &[A], &["0"]),
    ] {
        both.eval(script, keys, arguments).await;
    }
    for line in [
        "XPENDING shop:{a} g",
        "XPENDING shop:{a} g - + 10",
        "XINFO STREAM shop:{a}",
        "XINFO CONSUMERS shop:{a} g",
        "XAUTOCLAIM shop:{a} g ada 60000 0",
    ] {
        both.line(line).await;
    }
    let settle = [&head[..], &["C", "1-1", "0"]].concat();
    let fenced = both.eval(SETTLE, &keys, &settle).await;
    assert_eq!(fenced, Value::List(vec![Value::Integer(0)]));
    both.line("XREADGROUP GROUP g ada STREAMS shop:{a} >").await;
    let nothing = both
        .line("XREADGROUP GROUP g ada BLOCK 10 STREAMS shop:{a} >")
        .await;
    assert_eq!(nothing, Value::Null);
    both.line("XREADGROUP GROUP g ada STREAMS shop:{a} 0").await;
    both.eval(LEAVE, &keys, &["g", "ada"]).await;
}
