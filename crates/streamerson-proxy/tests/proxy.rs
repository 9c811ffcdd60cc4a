//! The faults of the proxy, each seen from both sides.

use std::future::Future;
use std::time::{Duration, Instant};

use streamerson_proxy::{Direction, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long to watch that nothing arrives; only a proxy that is wrong makes it matter.
const SILENCE: Duration = Duration::from_millis(50);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

struct Pair {
    proxy: Proxy,
    client: TcpStream,
    served: TcpStream,
    server: TcpListener,
}

/// A client and a server, connected through a proxy.
async fn connected() -> Pair {
    let server = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a working loopback interface");
    let proxy = Proxy::start(server.local_addr().expect("a working loopback interface"))
        .await
        .expect("a working loopback interface");
    let client = TcpStream::connect(proxy.address())
        .await
        .expect("a working loopback interface");
    let (served, _) = soon(server.accept())
        .await
        .expect("a working loopback interface");
    Pair {
        proxy,
        client,
        served,
        server,
    }
}

async fn says(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes())
        .await
        .expect("a working loopback interface");
    let mut heard = vec![0; text.len()];
    soon(to.read_exact(&mut heard))
        .await
        .expect("a working loopback interface");
    assert_eq!(heard, text.as_bytes());
}

async fn ended(stream: &mut TcpStream) -> bool {
    matches!(soon(stream.read(&mut [0; 16])).await, Ok(0) | Err(_))
}

async fn silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(SILENCE, stream.read(&mut [0; 16]))
        .await
        .is_err()
}

#[tokio::test]
async fn without_faults_both_sides_hear_each_other_and_the_end() {
    let mut pair = connected().await;
    says(&mut pair.client, &mut pair.served, "ping").await;
    says(&mut pair.served, &mut pair.client, "pong").await;
    assert_eq!(pair.proxy.open(), 1);
    pair.client.shutdown().await.unwrap();
    assert!(ended(&mut pair.served).await);
    says(&mut pair.served, &mut pair.client, "still talking").await;
}

#[tokio::test]
async fn a_cut_ends_both_sides_and_new_connections_are_welcome() {
    let mut pair = connected().await;
    assert_eq!(pair.proxy.cut(), 1);
    assert!(ended(&mut pair.client).await);
    assert!(ended(&mut pair.served).await);
    let mut client = TcpStream::connect(pair.proxy.address()).await.unwrap();
    let (mut served, _) = soon(pair.server.accept()).await.unwrap();
    says(&mut client, &mut served, "back").await;
    soon(pair.proxy.accepted_at_least(2)).await;
    assert_eq!(pair.proxy.accepted(), 2);
}

#[tokio::test]
async fn refusing_keeps_what_is_connected_and_ends_by_healing() {
    let mut pair = connected().await;
    pair.proxy.refuse().await;
    assert!(TcpStream::connect(pair.proxy.address()).await.is_err());
    says(&mut pair.client, &mut pair.served, "still here").await;
    pair.proxy.heal();
    let connect = async {
        loop {
            match TcpStream::connect(pair.proxy.address()).await {
                Ok(client) => return client,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut client = soon(connect).await;
    let (mut served, _) = soon(pair.server.accept()).await.unwrap();
    says(&mut client, &mut served, "welcome").await;
}

#[tokio::test]
async fn a_black_hole_is_silent_without_closing_and_delivers_when_healed() {
    let mut pair = connected().await;
    pair.proxy.black_hole();
    pair.client.write_all(b"anyone?").await.unwrap();
    pair.served.write_all(b"hello?").await.unwrap();
    assert!(silent(&mut pair.served).await);
    assert!(silent(&mut pair.client).await);
    pair.proxy.heal();
    says(&mut pair.client, &mut pair.served, "").await;
    let mut heard = [0; 7];
    soon(pair.served.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"anyone?");
}

#[tokio::test]
async fn a_black_hole_one_way_lets_the_other_way_pass() {
    let mut pair = connected().await;
    pair.proxy.black_hole_one_way(Direction::ToClient);
    says(&mut pair.client, &mut pair.served, "request").await;
    pair.served.write_all(b"answer").await.unwrap();
    assert!(silent(&mut pair.client).await);
}

#[tokio::test]
async fn a_silent_connection_can_be_cut() {
    let mut pair = connected().await;
    pair.proxy.black_hole();
    pair.client.write_all(b"lost").await.unwrap();
    pair.proxy.cut();
    assert!(ended(&mut pair.client).await);
    assert!(ended(&mut pair.served).await);
}

#[tokio::test]
async fn delayed_data_arrives_late_and_whole() {
    let mut pair = connected().await;
    let delay = Duration::from_millis(60);
    pair.proxy.delay(delay);
    let sent = Instant::now();
    says(&mut pair.client, &mut pair.served, "late").await;
    assert!(sent.elapsed() >= delay);
}

#[tokio::test]
async fn a_cut_after_some_bytes_lets_exactly_these_through_and_happens_once() {
    let mut pair = connected().await;
    pair.proxy.cut_after(Direction::ToServer, 5);
    says(&mut pair.client, &mut pair.served, "123").await;
    pair.client.write_all(b"456789").await.unwrap();
    let mut heard = Vec::new();
    let _ = soon(pair.served.read_to_end(&mut heard)).await;
    assert_eq!(heard, b"45");
    assert!(ended(&mut pair.client).await);

    let mut client = TcpStream::connect(pair.proxy.address()).await.unwrap();
    let (mut served, _) = soon(pair.server.accept()).await.unwrap();
    says(&mut client, &mut served, "1234567890").await;
}

#[tokio::test]
async fn new_connections_follow_a_server_that_moves() {
    let mut pair = connected().await;
    let moved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    pair.proxy.point_to(moved.local_addr().unwrap());
    let mut client = TcpStream::connect(pair.proxy.address()).await.unwrap();
    let (mut served, _) = soon(moved.accept()).await.unwrap();
    says(&mut client, &mut served, "here").await;
    says(&mut pair.client, &mut pair.served, "and there").await;
}

#[tokio::test]
async fn a_closed_proxy_lets_nobody_through() {
    let mut pair = connected().await;
    soon(pair.proxy.close()).await;
    assert_eq!(pair.proxy.open(), 0);
    assert!(ended(&mut pair.client).await);
    assert!(ended(&mut pair.served).await);
    assert!(TcpStream::connect(pair.proxy.address()).await.is_err());
}

#[tokio::test]
async fn a_dropped_proxy_ends_its_connections() {
    let mut pair = connected().await;
    drop(pair.proxy);
    assert!(ended(&mut pair.client).await);
}

#[tokio::test]
async fn without_a_server_connections_end_at_once() {
    let mut pair = connected().await;
    drop(pair.server);
    let mut client = TcpStream::connect(pair.proxy.address()).await.unwrap();
    assert!(ended(&mut client).await);
    says(&mut pair.client, &mut pair.served, "old ones stay").await;
}
