//! Who may use the port, and for what.

use std::time::Duration;

use streamerson_core::{Durability, ErrorKind, Name};
use streamerson_embedded::EmbeddedBroker;
use streamerson_embedded::port::{Options, Port};
use tokio::net::TcpListener;

use crate::server::Server;
use crate::wire::{Value, encode, fields, words};

fn guarded() -> Options {
    Options {
        password: Some("open sesame".into()),
        ..Options::default()
    }
}

fn bind(address: &str, options: Options) -> streamerson_core::Result<Port> {
    let broker = EmbeddedBroker::in_memory();
    Port::bind_with(
        address.parse().expect("valid"),
        broker,
        Name::new("shop").expect("valid"),
        options,
    )
}

#[tokio::test]
async fn an_open_port_is_refused() {
    let refused = bind("0.0.0.0:0", Options::default()).unwrap_err();
    assert_eq!(
        (refused.kind(), refused.code()),
        (ErrorKind::Invalid, "password-required")
    );
    assert!(refused.detail().contains("0.0.0.0:0") && refused.detail().contains("password"));
    assert!(bind("0.0.0.0:0", guarded()).is_ok());
    let empty = Options {
        password: Some(String::new()),
        ..Options::default()
    };
    assert_eq!(
        bind("127.0.0.1:0", empty).unwrap_err().code(),
        "empty-password"
    );
}

#[tokio::test]
async fn a_busy_address_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = bind(&address, Options::default()).unwrap_err();
    assert_eq!(
        (refused.kind(), refused.code()),
        (ErrorKind::Unavailable, "address-in-use")
    );
    assert!(refused.detail().contains(&address) && refused.detail().contains("another port"));
}

#[tokio::test]
async fn nothing_goes_without_the_password() {
    let server = Server::with(guarded()).await;
    let mut wire = server.connect().await;
    for line in [
        "PING",
        "XLEN shop:{a}",
        "INFO",
        "COMMAND",
        "CLIENT ID",
        "EVAL x 0",
    ] {
        let answer = wire.line(line).await;
        assert_eq!(
            answer,
            Value::Error("NOAUTH Authentication required.".into()),
            "{line}"
        );
    }
    assert!(
        wire.line("HELLO 2")
            .await
            .text()
            .starts_with("NOAUTH HELLO must be called")
    );
    for line in [
        "AUTH wrong",
        "AUTH default wrong",
        "AUTH somebody",
        "HELLO 2 AUTH default wrong",
    ] {
        let answer = wire.line(line).await;
        assert!(answer.text().starts_with("WRONGPASS"), "{line}: {answer:?}");
    }
    assert!(wire.line("XLEN shop:{a}").await.is_error());
    assert_eq!(wire.call(&["AUTH", "open sesame"]).await, Value::ok());
    assert_eq!(wire.line("XLEN shop:{a}").await, Value::Integer(0));
    assert_eq!(wire.line("RESET").await, Value::Simple("RESET".into()));
    assert!(
        wire.line("XLEN shop:{a}")
            .await
            .text()
            .starts_with("NOAUTH")
    );
    let hello = wire
        .call(&["HELLO", "2", "AUTH", "default", "open sesame"])
        .await;
    assert_eq!(hello.list().len(), 14);
    assert_eq!(wire.line("XLEN shop:{a}").await, Value::Integer(0));
}

#[tokio::test]
async fn password_and_commands_may_come_together() {
    let server = Server::with(guarded()).await;
    let mut wire = server.connect().await;
    let large = "x".repeat(100_000);
    let mut batch = encode(&["AUTH", "open sesame"]);
    batch.extend(encode(&words(&format!(
        "XADD shop:{{a}} 1-1 {}",
        fields(&large)
    ))));
    wire.write(&batch).await;
    assert_eq!(wire.receive().await, Value::ok());
    assert_eq!(wire.receive().await, Value::Bulk("1-1".into()));
}

#[tokio::test]
async fn strangers_cannot_send_much() {
    let server = Server::with(guarded()).await;
    let mut wire = server.connect().await;
    wire.write(b"*2\r\n$4\r\nAUTH\r\n$1000000\r\n").await;
    let answer = wire.receive().await;
    assert!(answer.text().contains("invalid bulk length"), "{answer:?}");
    wire.closed().await;
}

#[tokio::test]
async fn keys_of_others_are_refused_with_the_names_of_ours() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let entry = format!("XADD other:{{a}} * {}", fields("x"));
    for line in [
        "XLEN foo",
        "EXISTS other:{a}",
        "TYPE foo",
        "DEL foo",
        "XREAD STREAMS foo 0",
        "XGROUP CREATE foo g 0",
        "XINFO STREAM foo",
        "PTTL foo",
        &entry,
    ] {
        let answer = wire.line(line).await;
        assert!(answer.text().contains("shop:{TOPIC}"), "{line}: {answer:?}");
    }
}

#[tokio::test]
async fn topics_are_not_deleted() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    wire.line(&format!("XADD shop:{{a}} 1-1 {}", fields("x")))
        .await;
    wire.line(&format!("XADD shop:{{inbox.b}} 1-1 {}", fields("x")))
        .await;
    let answer = wire.line("DEL shop:{inbox.b} shop:{a}").await;
    assert!(answer.text().contains("XTRIM"), "{answer:?}");
    assert!(wire.line("EXPIRE shop:{a} 1").await.is_error());
    assert_eq!(
        wire.line("EXISTS shop:{a} shop:{inbox.b}").await,
        Value::Integer(2)
    );
    assert_eq!(wire.line("DEL shop:{inbox.b}").await, Value::Integer(1));
}

#[tokio::test]
async fn entries_have_the_six_fields() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    for line in [
        "XADD shop:{a} * name Ada",
        "XADD shop:{a} * id 1 type t corr '' reply '' meta ''",
        "XADD shop:{a} * id 1 type t corr '' reply '' meta '' data x more y",
        "XADD shop:{a} * id 1 type t corr '' reply '' meta '' id x",
    ] {
        let answer = wire.line(line).await;
        assert!(
            answer.text().contains("id type corr reply meta data"),
            "{line}: {answer:?}"
        );
    }
    let shuffled = "XADD shop:{a} 1-1 data x meta '' reply '' corr '' type t id 1";
    assert_eq!(wire.line(shuffled).await, Value::Bulk("1-1".into()));
    assert_eq!(wire.line("XLEN shop:{a}").await, Value::Integer(1));
}

#[tokio::test]
async fn transactions_and_foreign_scripts_are_refused_with_a_reason() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    for line in ["MULTI", "EXEC", "WATCH shop:{a}"] {
        assert!(
            wire.line(line).await.text().contains("no transactions"),
            "{line}"
        );
    }
    let answer = wire.call(&["EVAL", "return 1", "0"]).await;
    assert!(answer.text().contains("streamerson:settle:2"), "{answer:?}");
    assert!(wire.call(&["SCRIPT", "LOAD", "return 1"]).await.is_error());
}

#[tokio::test]
async fn trimming_by_length_spares_what_a_group_has_not_processed() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    wire.line("XGROUP CREATE shop:{a} g 0 MKSTREAM").await;
    for n in 1..=4 {
        wire.line(&format!("XADD shop:{{a}} {n}-1 {}", fields("x")))
            .await;
    }
    wire.line("XREADGROUP GROUP g ada COUNT 3 STREAMS shop:{a} >")
        .await;
    wire.line("XACK shop:{a} g 1-1 2-1").await;
    assert_eq!(
        wire.line("XTRIM shop:{a} MAXLEN 0").await,
        Value::Integer(2)
    );
    wire.line(&format!("XADD shop:{{a}} MAXLEN 1 5-1 {}", fields("x")))
        .await;
    assert_eq!(wire.line("XLEN shop:{a}").await, Value::Integer(3));
    // Who names an id means it.
    assert_eq!(
        wire.line("XTRIM shop:{a} MINID 4-1").await,
        Value::Integer(1)
    );
}

#[tokio::test]
async fn more_clients_than_allowed_are_told_so() {
    let server = Server::with(Options {
        max_clients: 2,
        ..Options::default()
    })
    .await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    one.line("PING").await;
    two.line("PING").await;
    let mut three = server.connect().await;
    let answer = three.receive().await;
    assert_eq!(
        answer,
        Value::Error("ERR max number of clients reached".into())
    );
    three.closed().await;
    drop(one);
    // There is room again as soon as the port has noticed.
    loop {
        let mut wire = server.connect().await;
        if wire.try_write(&encode(&["PING"])).await
            && wire.try_receive().await == Some(Value::Simple("PONG".into()))
        {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn idle_clients_are_closed_when_told_to() {
    let server = Server::with(Options {
        idle: Some(Duration::from_secs(1)),
        ..Options::default()
    })
    .await;
    let mut idle = server.connect().await;
    idle.closed().await;
    // One that waits for news is not idle.
    let mut blocked = server.connect().await;
    let answer = blocked.line("XREAD BLOCK 1500 STREAMS shop:{a} $").await;
    assert_eq!(answer, Value::NilList);
}

#[tokio::test]
async fn a_client_that_stops_amidst_a_command_is_closed() {
    let server = Server::with(Options {
        stall: Duration::from_millis(20),
        ..Options::default()
    })
    .await;
    let mut wire = server.connect().await;
    wire.write(b"*2\r\n$4\r\nEC").await;
    wire.closed().await;
}

#[tokio::test]
async fn a_browser_is_shown_the_door() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let request = "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 30\r\n\r\nXADD shop:{a} * id 1 type t corr x reply x meta x data x\r\n";
    wire.write(request.as_bytes()).await;
    wire.closed().await;
    let mut wire = server.connect().await;
    assert_eq!(wire.line("EXISTS shop:{a}").await, Value::Integer(0));
}

#[tokio::test]
async fn clients_are_listed_and_may_be_ended() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let mut other = server.connect().await;
    other.line("CLIENT SETNAME worker-7").await;
    other.line("CLIENT SETINFO LIB-NAME redis-rs").await;
    let Value::Integer(id) = other.line("CLIENT ID").await else {
        panic!("no id");
    };
    let list = wire.line("CLIENT LIST").await;
    assert_eq!(list.text().lines().count(), 2);
    assert!(list.text().contains("name=worker-7") && list.text().contains("lib-name=redis-rs"));
    assert_eq!(
        wire.line(&format!("CLIENT KILL ID {id}")).await,
        Value::Integer(1)
    );
    other.closed().await;
}

#[tokio::test]
async fn full_memory_is_told_as_redis_tells_it() {
    let broker = EmbeddedBroker::open(
        // Class memory opens no directory.
        "unused",
        streamerson_embedded::Options {
            durability: Durability::Memory,
            memory_bytes: 10_000,
            ..Default::default()
        },
    );
    let server = Server::on(broker.unwrap(), Options::default()).await;
    let mut wire = server.connect().await;
    let entry = format!("XADD shop:{{a}} * {}", fields(&"x".repeat(4000)));
    assert!(!wire.line(&entry).await.is_error());
    wire.line(&entry).await;
    let answer = wire.line(&entry).await;
    assert!(answer.text().starts_with("OOM "), "{answer:?}");
    assert!(!wire.line("XTRIM shop:{a} MAXLEN 0").await.is_error());
    assert!(!wire.line(&entry).await.is_error());
}
