//! A process that has run out of file descriptors recovers without a restart. Alone in its process, because the limit is the process's.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use streamerson_core::memory::MemoryBroker;
use streamerson_gateway::{Config, Gateway, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

#[tokio::test]
async fn connections_are_accepted_again_once_there_are_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(256);
    setrlimit(Resource::Nofile, limit).unwrap();

    let mut config = Config::default();
    config.serve_every_topic();
    let gateway = Gateway::open(Arc::new(MemoryBroker::new()), &config)
        .await
        .unwrap();
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), "", &config.gateway.limits).unwrap();
    let address = server.local_addr();
    let serving = tokio::spawn(server.serve(gateway, std::future::pending(), || ()));

    let client = TcpSocket::new_v4().unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    assert!(hoard.len() > 100, "the limit was reached too early");
    // The system takes the connection; the server cannot.
    let mut stream = client.connect(address).await.unwrap();
    stream
        .write_all(b"OPTIONS /a/b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    let early =
        tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut answer)).await;
    assert!(early.is_err(), "there was a descriptor left");

    drop(hoard);
    let late = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await;
    late.expect("no answer after descriptors are there again")
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204");
    serving.abort();
}
