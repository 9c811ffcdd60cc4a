//! How the port ends.

use std::time::Duration;

use streamerson_embedded::port::Options;

use crate::server::Server;
use crate::wire::{Value, encode};

const PATIENCE: Duration = Duration::from_secs(20);

async fn ended(server: &mut Server) {
    tokio::time::timeout(PATIENCE, server.ended())
        .await
        .expect("the port does not end");
}

#[tokio::test]
async fn idle_and_waiting_clients_do_not_hold_it_up() {
    let mut server = Server::with(Options {
        // So that a client that is only cut off at the end would be noticed.
        drain: Duration::from_secs(3600),
        ..Options::default()
    })
    .await;
    let mut idle = server.connect().await;
    assert_eq!(idle.line("PING").await, Value::Simple("PONG".into()));
    let mut waiting = server.connect().await;
    waiting
        .send(&["XREAD", "BLOCK", "0", "STREAMS", "shop:{a}", "$"])
        .await;
    server.shut_down();
    ended(&mut server).await;
    idle.closed().await;
    waiting.closed().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let mut server = Server::with(Options {
        drain: Duration::from_millis(50),
        ..Options::default()
    })
    .await;
    let mut wire = server.connect().await;
    let data = "x".repeat(8 << 20);
    let add = format!("XADD shop:{{a}} * {}", crate::wire::fields(&data));
    wire.line(&add).await;
    wire.write(&encode(&["XRANGE", "shop:{a}", "-", "+"]).repeat(10))
        .await;
    server.shut_down();
    ended(&mut server).await;
}

#[tokio::test]
async fn the_address_is_free_again() {
    let mut server = Server::start().await;
    let mut wire = server.connect().await;
    assert_eq!(wire.line("PING").await, Value::Simple("PONG".into()));
    server.shut_down();
    ended(&mut server).await;
    let namespace = streamerson_core::Name::new("shop").unwrap();
    let port =
        streamerson_embedded::port::Port::bind(server.address, server.broker.clone(), namespace);
    assert!(port.is_ok(), "{port:?}");
}
