//! What Redis refuses, as the caller sees it: each made to happen on a real server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::time::Duration;

use streamerson_core::ErrorKind::{self, Internal, Invalid, NotFound, Unavailable};
use streamerson_core::retention::Retention;
use streamerson_core::{Broker, Error, Settlement, Start};
use streamerson_testkit::redis::RedisServer;
use support::{
    connect, eventually, join, one, recovered, refusal, send, start, topic, try_send, within,
};

#[track_caller]
fn assert_error(error: Error, kind: ErrorKind, code: &str) {
    assert_eq!((error.kind(), error.code()), (kind, code), "{error}");
    assert!(
        kind == Internal || error.detail().contains(';'),
        "names a remedy: {error}"
    );
}

/// What an append to a server is told after `command`.
async fn refused_after(command: &[&str]) -> Error {
    let (server, broker) = start().await;
    assert_eq!(server.cli(command), "OK");
    let error = try_send(&broker, &topic("orders")).await.unwrap_err();
    drop(server);
    error
}

#[tokio::test]
async fn out_of_memory() {
    let error = refused_after(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_error(error, Unavailable, "broker-out-of-memory");
}

#[tokio::test]
async fn a_replica() {
    let error = refused_after(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_error(error, Unavailable, "broker-read-only");
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_and_a_primary_again() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    let mut member = join(&broker, &orders, "ada", Duration::from_secs(60)).await;
    let demoting = async {
        eventually(async || {
            let clients = server.cli(&["INFO", "clients"]);
            clients.contains("blocked_clients:1").then_some(())
        })
        .await;
        server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    };
    let (told, ()) = tokio::join!(within(member.next(1)), demoting);
    assert_error(told.unwrap_err(), Unavailable, "broker-read-only");
    let error = try_send(&broker, &orders).await.unwrap_err();
    assert_error(error, Unavailable, "broker-read-only");

    server.cli(&["REPLICAOF", "NO", "ONE"]);
    recovered(async || try_send(&broker, &orders).await).await;
    let work = recovered(async || within(member.next(1)).await).await;
    assert_eq!(work.len(), 1);
    // It is asked on new connections, because the name of the server may lead elsewhere now.
    assert!(broker.incidents().reconnects >= 1);
}

#[tokio::test]
async fn a_replica_without_its_primary() {
    let server = RedisServer::builder()
        .arg("replica-serve-stale-data", "no")
        .start()
        .await;
    let broker = connect(&server.url()).await;
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let mut reader = broker.read(&topic("orders"), Start::Earliest).await;
    let error = match &mut reader {
        Ok(reader) => within(reader.next(1)).await.unwrap_err(),
        Err(error) => error.clone(),
    };
    assert_error(error, Unavailable, "broker-read-only");
}

#[tokio::test]
async fn too_few_replicas() {
    let error = refused_after(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    assert_error(error, Unavailable, "broker-without-replicas");
}

#[tokio::test]
async fn a_disk_that_cannot_be_written() {
    let server = RedisServer::builder().arg("save", "3600 1").start().await;
    let broker = connect(&server.url()).await;
    // A folder stands where the snapshot is to go.
    std::fs::create_dir_all(server.folder().join("dump.rdb/taken")).unwrap();
    server.cli(&["BGSAVE"]);
    eventually(async || {
        let info = server.cli(&["INFO", "persistence"]);
        info.contains("rdb_last_bgsave_status:err").then_some(())
    })
    .await;
    let error = try_send(&broker, &topic("orders")).await.unwrap_err();
    assert_error(error, Unavailable, "broker-cannot-persist");
}

#[tokio::test]
async fn a_script_that_does_not_end() {
    let server = RedisServer::builder()
        .arg("lua-time-limit", "1")
        .start()
        .await;
    let broker = connect(&server.url()).await;
    let endless = async {
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("EVAL")
            .arg("while true do end")
            .arg(0)
            .query_async::<()>(&mut connection)
            .await
    };
    let asking = async {
        let error = eventually(async || try_send(&broker, &topic("orders")).await.err()).await;
        assert_error(error, Unavailable, "broker-busy");
        // A new connection is told the same.
        assert_error(refusal(&server.url()).await, Unavailable, "broker-busy");
        server.cli(&["SCRIPT", "KILL"]);
    };
    let _ = tokio::join!(endless, asking);
}

#[tokio::test]
async fn a_server_that_reads_its_data() {
    let mut settings = RedisServer::builder().arg("key-load-delay", "10");
    let plain = RedisServer::start().await;
    // Redis 6 needs no permission for this, and looks at its clients only every 2 MB.
    if !plain
        .cli(&["CONFIG", "GET", "enable-debug-command"])
        .is_empty()
    {
        settings = settings
            .arg("enable-debug-command", "yes")
            .arg("loading-process-events-interval-bytes", "1024");
    }
    let server = settings.start().await;
    let broker = connect(&server.url()).await;
    server.cli(&["DEBUG", "POPULATE", "200000", "key", "500"]);
    let reloading = tokio::task::spawn_blocking({
        let socket = server.socket();
        move || {
            let mut cli = std::process::Command::new("redis-cli");
            cli.arg("-s").arg(socket).args(["DEBUG", "RELOAD"]).output()
        }
    });
    let error = eventually(async || try_send(&broker, &topic("orders")).await.err()).await;
    assert_error(error, Unavailable, "broker-loading");
    assert_error(refusal(&server.url()).await, Unavailable, "broker-loading");
    server.cli(&["CONFIG", "SET", "key-load-delay", "0"]);
    drop(server);
    let _ = reloading.await;
}

#[tokio::test]
async fn a_key_of_another_type() {
    let (server, broker) = start().await;
    server.cli(&["SET", "test:{orders}", "taken"]);
    let orders = topic("orders");
    let mut errors = vec![try_send(&broker, &orders).await.unwrap_err()];
    let mut reader = broker.read(&orders, Start::Earliest).await.unwrap();
    errors.push(within(reader.next(1)).await.unwrap_err());
    errors.extend(broker.read(&orders, Start::Latest).await.err());
    errors.push(broker.stats(&orders).await.unwrap_err());
    errors.push(
        broker
            .trim(&orders, Retention::default())
            .await
            .unwrap_err(),
    );
    let membership = streamerson_core::Membership::new(
        orders.clone(),
        support::name("group"),
        support::name("ada"),
    );
    errors.extend(broker.join(membership).await.err());
    assert_eq!(errors.len(), 6);
    for error in errors {
        assert!(error.detail().contains("orders"), "{error}");
        assert_error(error, Invalid, "wrong-type");
    }
}

#[tokio::test]
async fn an_output_to_a_key_of_another_type_leaves_the_delivery_as_it_was() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    server.cli(&["SET", "test:{next}", "taken"]);
    let mut member = join(&broker, &orders, "ada", Duration::from_secs(60)).await;
    let delivery = one(&mut member).await;
    let outputs = support::appends(&topic("next"), &["b"]);
    let settlement = Settlement::complete_with(delivery.receipt, outputs);
    let mut settled = member.settler().settle(vec![settlement]).await;
    assert_error(settled.remove(0).unwrap_err(), Invalid, "wrong-type");
    assert_eq!(broker.stats(&orders).await.unwrap().groups[0].pending, 1);
}

#[tokio::test]
async fn a_group_that_was_deleted_is_not_a_fence() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a", "b"]).await;
    let mut member = join(&broker, &orders, "ada", Duration::from_secs(60)).await;
    let (a, b) = (one(&mut member).await, one(&mut member).await);
    server.cli(&["XGROUP", "DESTROY", "test:{orders}", "group"]);
    let settler = member.settler();
    let positions = [a.receipt.position()];
    let batch = vec![
        Settlement::complete_with(a.receipt, support::appends(&topic("next"), &["c"])),
        Settlement::retry(b.receipt, Duration::ZERO),
    ];
    for settled in settler.settle(batch).await {
        assert_error(settled.unwrap_err(), NotFound, "group-lost");
    }
    assert_error(
        settler.extend(&positions).await.unwrap_err(),
        NotFound,
        "group-lost",
    );
    assert_eq!(server.cli(&["EXISTS", "test:{next}"]), "0");
}

#[tokio::test]
async fn no_password_and_a_wrong_one() {
    let server = RedisServer::builder().password("secret7").start().await;
    let bare = format!("redis://127.0.0.1:{}", server.port());
    assert_error(refusal(&bare).await, Invalid, "authentication-required");
    let wrong = format!("redis://:guess7@127.0.0.1:{}", server.port());
    let error = refusal(&wrong).await;
    assert!(!error.to_string().contains("guess7"), "{error}");
    assert_error(error, Invalid, "authentication-failed");
    connect(&server.url()).await;
}

#[tokio::test]
async fn a_password_where_there_is_none() {
    let server = RedisServer::start().await;
    let url = format!("redis://:secret7@127.0.0.1:{}", server.port());
    assert_error(refusal(&url).await, Invalid, "authentication-failed");
}

#[tokio::test]
async fn a_user_with_too_few_rights() {
    let server = RedisServer::start().await;
    server.cli(&["ACL", "SETUSER", "ada", "on", ">pass", "~other:*", "+@all"]);
    let url = format!("redis://ada:pass@127.0.0.1:{}", server.port());
    let broker = connect(&url).await;
    let error = try_send(&broker, &topic("orders")).await.unwrap_err();
    assert_error(error, Invalid, "permission-denied");

    server.cli(&["ACL", "SETUSER", "bob", "on", ">pass", "~*", "+ping"]);
    let url = format!("redis://bob:pass@127.0.0.1:{}", server.port());
    assert_error(refusal(&url).await, Invalid, "permission-denied");
}

#[tokio::test]
async fn too_many_clients() {
    let server = RedisServer::start().await;
    let _broker = connect(&server.url()).await;
    server.cli(&["CONFIG", "SET", "maxclients", "1"]);
    assert_error(refusal(&server.url()).await, Unavailable, "broker-full");
}

#[tokio::test]
async fn a_database_that_does_not_exist() {
    let server = RedisServer::start().await;
    let error = refusal(&format!("{}/99", server.url())).await;
    assert_error(error, Invalid, "invalid-database");
}

#[tokio::test]
async fn a_cluster() {
    let server = RedisServer::builder()
        .arg("cluster-enabled", "yes")
        .start()
        .await;
    let error = refusal(&server.url()).await;
    assert_error(error, Invalid, "broker-cluster");
}

#[tokio::test]
async fn a_disabled_command() {
    let server = RedisServer::builder()
        .arg("rename-command", "XADD \"\"")
        .start()
        .await;
    let broker = connect(&server.url()).await;
    let error = try_send(&broker, &topic("orders")).await.unwrap_err();
    assert_error(error, Invalid, "broker-too-old");
}

#[tokio::test]
async fn nothing_listens() {
    let mut server = RedisServer::start().await;
    server.stop().await;
    let error = refusal(&server.url()).await;
    assert_eq!(
        (error.kind(), error.code()),
        (Unavailable, "broker-unreachable")
    );
    assert!(
        error.detail().contains(&server.port().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn something_else_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer)
            .await
            .unwrap();
        stream
    };
    let (error, _stream) = tokio::join!(refusal(&url), answering);
    assert_eq!((error.kind(), error.code()), (Internal, "unexpected-reply"));
}
