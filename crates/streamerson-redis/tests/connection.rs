//! Ways to connect, and connections that break: nothing acknowledged is lost, nothing is sent twice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use streamerson_core::{Append, Broker, Durability, ErrorKind, Message, Position, Result, Start};
use streamerson_redis::RedisBroker;
use streamerson_testkit::proxy::{Direction, Proxy};
use streamerson_testkit::redis::RedisServer;
use support::{
    all, appends, connect, eventually, join, message, one, recovered, refusal, send, start, text,
    texts, topic, try_send, within,
};
use tokio::time::Instant;

async fn behind_a_proxy(server: &RedisServer) -> (Proxy, RedisBroker) {
    let address = format!("127.0.0.1:{}", server.port()).parse().unwrap();
    let proxy = Proxy::start(address).await.unwrap();
    let broker = connect(&format!("redis://{}", proxy.address())).await;
    (proxy, broker)
}

async fn works(broker: &RedisBroker) {
    let orders = topic("orders");
    send(broker, &orders, &["a"]).await;
    let mut member = join(broker, &orders, "ada", Duration::from_secs(60)).await;
    assert_eq!(text(&one(&mut member).await.message), "a");
    member.leave().await.unwrap();
    assert_eq!(texts(broker, &orders).await, ["a"]);
}

#[tokio::test]
async fn over_tls() {
    let server = RedisServer::builder()
        .tls()
        .password("secret7")
        .start()
        .await;
    let ca = server.certificate_authority();
    let broker = connect(&format!("{}?ca={}", server.url(), ca.display())).await;
    works(&broker).await;
    assert!(!format!("{broker:?}").contains("secret7"));
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused() {
    let server = RedisServer::builder().tls().start().await;
    let other = RedisServer::builder().tls().start().await;
    let ca = other.certificate_authority();
    let error = refusal(&format!("{}?ca={}", server.url(), ca.display())).await;
    assert_eq!(error.code(), "certificate-not-trusted");
    assert!(error.detail().contains("?ca=FILE"), "{error}");

    let error = refusal(&format!("{}?ca=/nowhere.pem", server.url())).await;
    assert_eq!(error.code(), "invalid-tls-setting");
    let plain = format!("redis://127.0.0.1:{}", server.port());
    assert_eq!(refusal(&plain).await.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let server = RedisServer::builder().tls().arg("tls-auth-clients", "yes");
    let server = server.start().await;
    let trusting = format!(
        "{}?ca={}",
        server.url(),
        server.certificate_authority().display()
    );
    let error = refusal(&trusting).await;
    assert_eq!(error.code(), "certificate-not-trusted");
    assert!(error.detail().contains("?cert=FILE&key=FILE"), "{error}");

    let other = RedisServer::builder().tls().start().await;
    let with = |(cert, key): (PathBuf, PathBuf)| {
        format!("{trusting}&cert={}&key={}", cert.display(), key.display())
    };
    let error = refusal(&with(other.certificate())).await;
    assert!(error.detail().contains("?cert= names"), "{error}");
    works(&connect(&with(server.certificate())).await).await;
}

#[tokio::test]
async fn over_a_unix_socket() {
    let server = RedisServer::builder().password("secret7").start().await;
    works(&connect(&server.unix_url()).await).await;
    let socket = server.socket();
    works(
        &connect(&format!(
            "redis+unix://{}?db=3&pass=secret7",
            socket.display()
        ))
        .await,
    )
    .await;
}

#[tokio::test]
async fn as_a_user_with_the_rights_that_the_error_names() {
    let server = RedisServer::start().await;
    server.cli(&[
        "ACL",
        "SETUSER",
        "ada",
        "on",
        ">p@ss",
        "~test:*",
        "+@stream",
        "+@scripting",
        "+@keyspace",
        "+@sortedset",
        "+@hash",
        "+@string",
        "+@connection",
        "+info",
        "+time",
    ]);
    let url = format!("redis://ada:p%40ss@127.0.0.1:{}", server.port());
    let broker = connect(&url).await;
    works(&broker).await;
    assert_eq!(broker.topics().await.unwrap(), [topic("orders")]);
    // CONFIG was not allowed.
    let capabilities = broker.capabilities();
    assert_eq!(capabilities.durability, Durability::Memory);
}

#[tokio::test]
async fn databases_are_apart() {
    let server = RedisServer::start().await;
    let first = connect(&server.url()).await;
    let second = connect(&format!("{}/5", server.url())).await;
    send(&second, &topic("orders"), &["a"]).await;
    assert_eq!(first.topics().await.unwrap(), []);
    assert_eq!(texts(&second, &topic("orders")).await, ["a"]);
}

#[tokio::test]
async fn the_server_tells_what_it_promises() {
    for (fsync, durability) in [("always", Durability::Disk), ("everysec", Durability::Os)] {
        let server = RedisServer::builder().appendonly(fsync).start().await;
        let broker = connect(&server.url()).await;
        let capabilities = broker.capabilities();
        assert_eq!(capabilities.durability, durability);
        assert_eq!(capabilities.warnings, Vec::<String>::new());
        let mut words = capabilities.broker.split(' ');
        assert!(
            matches!(words.next(), Some("redis" | "valkey")),
            "{capabilities:?}"
        );
        assert!(
            words
                .next()
                .unwrap()
                .starts_with(|c: char| c.is_ascii_digit())
        );
    }
    let server = RedisServer::builder()
        .arg("maxmemory", "100mb")
        .arg("maxmemory-policy", "allkeys-lru")
        .start()
        .await;
    let broker = connect(&server.url()).await;
    let capabilities = broker.capabilities();
    assert_eq!(capabilities.durability, Durability::Memory);
    assert_eq!(capabilities.warnings.len(), 2, "{capabilities:?}");
}

#[tokio::test]
async fn what_is_stored_is_what_others_read() {
    let (server, broker) = start().await;
    let mut message = Message::new("order.create", "{}");
    message.meta = "{\"exp\":1}".into();
    message.reply = "inbox.x".into();
    let append = Append::new(topic("orders"), message.clone());
    let position = broker.append(vec![append]).await.remove(0).unwrap();
    let read = server.cli(&["XRANGE", "test:{orders}", "-", "+"]);
    let expected = format!(
        "{position}\nid\n{}\ntype\norder.create\ncorr\n\nreply\ninbox.x\nmeta\n{{\"exp\":1}}\ndata\n{{}}",
        message.id
    );
    assert_eq!(read, expected);
}

#[tokio::test]
async fn an_inbox_expires_and_is_bounded() {
    let (server, broker) = start().await;
    let inbox = broker.inbox().await.unwrap();
    let key = format!("test:{{{}}}", inbox.address.as_str());
    send(&broker, &inbox.address, &["a"]).await;
    let expires = |server: &RedisServer| server.cli(&["PTTL", &key]).parse::<i64>().unwrap();
    assert!((1..=60_000).contains(&expires(&server)));

    server.cli(&["PERSIST", &key]);
    send(&broker, &topic("orders"), &["a"]).await;
    let mut member = join(&broker, &topic("orders"), "ada", Duration::from_secs(60)).await;
    let delivery = one(&mut member).await;
    let reply = Append::new(inbox.address.clone(), delivery.message.answer("b"));
    let settlement = streamerson_core::Settlement::complete_with(delivery.receipt, vec![reply]);
    member
        .settler()
        .settle(vec![settlement])
        .await
        .remove(0)
        .unwrap();
    assert!((1..=60_000).contains(&expires(&server)));
}

#[tokio::test]
async fn a_call_without_a_connection_is_refused_soon() {
    let mut server = RedisServer::start().await;
    let broker = connect(&server.url()).await;
    let mut reader = broker
        .read(&topic("orders"), Start::Earliest)
        .await
        .unwrap();
    server.kill().await;
    let error = eventually(async || {
        let error = try_send(&broker, &topic("orders")).await.unwrap_err();
        // Until the end of the connection is noticed, something may have been sent.
        (error.kind() == ErrorKind::Unavailable).then_some(error)
    })
    .await;
    assert_eq!(error.code(), "broker-unreachable");
    let asked = Instant::now();
    let error = try_send(&broker, &topic("orders")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    let error = within(reader.next(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    server.start_again().await;
    recovered(async || try_send(&broker, &topic("orders")).await).await;
    let entries = recovered(async || within(reader.next(10)).await).await;
    assert_eq!(entries.len(), 1);
    assert!(broker.incidents().reconnects >= 1);
}

#[tokio::test]
async fn a_password_that_changes_meanwhile_is_waited_out() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    let mut reader = broker.read(&orders, Start::Earliest).await.unwrap();
    server.cli(&["CONFIG", "SET", "requirepass", "zzz"]);
    let auth = ["-a", "zzz", "--no-auth-warning"];
    server.cli(&[&auth[..], &["CLIENT", "KILL", "TYPE", "normal"]].concat());
    let error = within(reader.next(1)).await.unwrap_err();
    assert_eq!(error.code(), "authentication-required");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = refusal(&server.url()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "at the start");

    server.cli(&[&auth[..], &["CONFIG", "SET", "requirepass", ""]].concat());
    recovered(async || try_send(&broker, &orders).await).await;
    assert_eq!(
        recovered(async || within(reader.next(1)).await).await.len(),
        1
    );
}

#[tokio::test]
async fn a_short_interruption_is_waited_out() {
    let server = RedisServer::start().await;
    let (proxy, broker) = behind_a_proxy(&server).await;
    send(&broker, &topic("orders"), &["a"]).await;
    let before = proxy.accepted();
    proxy.cut();
    within(proxy.accepted_at_least(before + 1)).await;
    // Whether the new connection is ready or not: nothing of this was sent on the old one.
    send(&broker, &topic("orders"), &["b"]).await;
    assert_eq!(texts(&broker, &topic("orders")).await, ["a", "b"]);
}

#[tokio::test]
async fn a_pipeline_whose_answers_are_cut_off_is_known_up_to_there() {
    let server = RedisServer::start().await;
    let (proxy, broker) = behind_a_proxy(&server).await;
    let orders = topic("orders");
    let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    proxy.cut_after(Direction::ToClient, 5_000);
    let results = broker.append(appends(&orders, &names)).await;
    let known = results.iter().take_while(|result| result.is_ok()).count();
    assert!((1..1000).contains(&known), "{known}");
    for result in &results[known..] {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    }
    // Nothing was repeated, and nothing that was answered is missing.
    let stored = texts(&broker, &orders).await;
    assert!(known <= stored.len());
    assert!(stored == names[..stored.len()]);
    let positions: Vec<Position> = all(&broker, &orders)
        .await
        .iter()
        .map(|entry| entry.position)
        .collect();
    let answered: Vec<Position> = results
        .into_iter()
        .take(known)
        .map(Result::unwrap)
        .collect();
    assert_eq!(answered, positions[..known]);
}

#[tokio::test]
async fn a_pipeline_that_is_cut_off_on_its_way_is_not_repeated() {
    let server = RedisServer::start().await;
    let (proxy, broker) = behind_a_proxy(&server).await;
    let orders = topic("orders");
    let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    proxy.cut_after(Direction::ToServer, 50_000);
    let results = broker.append(appends(&orders, &names)).await;
    assert!(results.iter().any(Result::is_err));
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Unknown);
    }
    let stored = texts(&broker, &orders).await;
    assert!(stored == names[..stored.len()]);
    let answered = results.iter().filter(|result| result.is_ok()).count();
    assert!(answered <= stored.len() && stored.len() < 1000);
}

#[tokio::test]
async fn a_network_that_goes_silent_is_given_up() {
    let server = RedisServer::start().await;
    let (proxy, broker) = behind_a_proxy(&server).await;
    proxy.black_hole();
    let error = within(try_send(&broker, &topic("orders")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    proxy.cut();
    proxy.heal();
    recovered(async || try_send(&broker, &topic("orders")).await).await;
}

#[tokio::test]
async fn calls_that_are_cancelled_again_and_again_do_not_keep_a_dead_connection() {
    let server = RedisServer::start().await;
    let (proxy, broker) = behind_a_proxy(&server).await;
    let orders = topic("orders");
    let mut reader = broker.read(&orders, Start::Earliest).await.unwrap();
    let brief = Duration::from_millis(100);
    assert!(tokio::time::timeout(brief, reader.next(1)).await.is_err());
    proxy.black_hole();
    let before = proxy.accepted();
    within(async {
        // Nothing else is asked for meanwhile: only the reader can come back.
        while proxy.accepted() < before + 1 {
            let _ = tokio::time::timeout(brief, reader.next(1)).await;
        }
    })
    .await;
    proxy.cut();
    proxy.heal();
    recovered(async || try_send(&broker, &orders).await).await;
    assert_eq!(within(reader.next(1)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_dropped_append_is_stored_nevertheless() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    {
        let append = broker.append(appends(&orders, &["a"]));
        // Polled once, and dropped.
        let _ = futures::poll!(append);
    }
    send(&broker, &orders, &["b"]).await;
    assert_eq!(texts(&broker, &orders).await, ["a", "b"]);
}

#[tokio::test]
async fn a_large_payload_among_small_ones_arrives_whole() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    let large = "x".repeat(5_000_000);
    send(&broker, &orders, &["a", &large, "b"]).await;
    assert!(texts(&broker, &orders).await == ["a", &large, "b"]);
}

#[tokio::test]
async fn a_message_that_redis_would_not_take_harms_no_other() {
    let (_server, broker) = start().await;
    let orders = topic("orders");
    let too_large = bytes::Bytes::from(vec![0; 257 * 1024 * 1024]);
    let batch = vec![
        Append::new(orders.clone(), message("a")),
        Append::new(orders.clone(), Message::new("test", too_large)),
        Append::new(orders.clone(), message("b")),
    ];
    let results = broker.append(batch).await;
    assert_eq!(results[1].as_ref().unwrap_err().code(), "message-too-large");
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!(texts(&broker, &orders).await, ["a", "b"]);
}

/// What became of every message that was sent while the server was killed and started again.
#[derive(Default)]
struct Ledger {
    acknowledged: HashMap<String, Position>,
    refused: HashSet<String>,
}

async fn keep_sending(broker: RedisBroker, task: usize, stop: Arc<AtomicBool>) -> Ledger {
    let mut ledger = Ledger::default();
    let orders = topic("orders");
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let names: Vec<String> = (0..20).map(|n| format!("{task}.{round}.{n}")).collect();
        let batch: Vec<&str> = names.iter().map(String::as_str).collect();
        let results = broker.append(appends(&orders, &batch)).await;
        for (name, result) in names.into_iter().zip(results) {
            match result {
                Ok(position) => assert_eq!(ledger.acknowledged.insert(name, position), None),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    ledger.refused.insert(name);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unknown, "{error}"),
            }
        }
    }
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_load_loses_and_repeats_nothing_acknowledged() {
    let mut server = RedisServer::builder().appendonly("always").start().await;
    let broker = connect(&server.url()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..8)
        .map(|task| tokio::spawn(keep_sending(broker.clone(), task, stop.clone())))
        .collect();
    let orders = topic("orders");
    let mut before = 0;
    for _ in 0..3 {
        before = eventually(async || {
            let length = broker.stats(&orders).await.ok()?.length;
            (length > before + 1000).then_some(length)
        })
        .await;
        server.kill().await;
        server.start_again().await;
    }
    recovered(async || try_send(&broker, &topic("other")).await).await;
    stop.store(true, Ordering::Relaxed);

    let mut stored: HashMap<String, Vec<Position>> = HashMap::new();
    let mut ledgers = Vec::new();
    for sender in senders {
        ledgers.push(sender.await.unwrap());
    }
    for entry in all(&broker, &orders).await {
        let name = text(&entry.message.unwrap());
        stored.entry(name).or_default().push(entry.position);
    }
    assert!(
        stored.values().all(|positions| positions.len() == 1),
        "nothing twice"
    );
    for ledger in &ledgers {
        assert!(!ledger.acknowledged.is_empty());
        for (name, position) in &ledger.acknowledged {
            assert_eq!(
                stored.get(name),
                Some(&vec![*position]),
                "{name} was acknowledged"
            );
        }
        for name in &ledger.refused {
            assert_eq!(stored.get(name), None, "{name} was refused");
        }
    }
    assert!(broker.incidents().reconnects >= 3);
}
