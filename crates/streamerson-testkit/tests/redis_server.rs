//! The private Redis servers themselves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use streamerson_testkit::redis::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn ping(server: &RedisServer) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut reply = [0; 64];
    let length = stream.read(&mut reply).await?;
    Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
}

#[tokio::test]
async fn answers_as_soon_as_it_is_started() {
    let server = RedisServer::start().await;
    assert_eq!(ping(&server).await.unwrap(), "+PONG\r\n");
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
}

#[tokio::test]
async fn two_servers_do_not_share_anything() {
    let (one, two) = tokio::join!(RedisServer::start(), RedisServer::start());
    assert_ne!(one.port(), two.port());
    assert_eq!(one.cli(&["SET", "key", "value"]), "OK");
    assert_eq!(two.cli(&["EXISTS", "key"]), "0");
}

#[tokio::test]
async fn a_stopped_and_a_killed_server_refuse_connections_and_come_back_with_their_data() {
    let mut server = RedisServer::builder().appendonly("always").start().await;
    server.cli(&["SET", "key", "value"]);
    let (port, pid) = (server.port(), server.pid());
    server.stop().await;
    assert!(ping(&server).await.is_err());
    server.start_again().await;
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    server.kill().await;
    assert!(ping(&server).await.is_err());
    server.start_again().await;
    assert_eq!(server.cli(&["GET", "key"]), "value");
    server.restart().await;
    assert_eq!(ping(&server).await.unwrap(), "+PONG\r\n");
}

#[tokio::test]
async fn a_panicking_test_leaves_neither_process_nor_files() {
    let server = RedisServer::start().await;
    let (pid, folder) = (server.pid(), server.folder().to_owned());
    assert!(folder.exists());
    let outcome = catch_unwind(AssertUnwindSafe(move || {
        let _server = server;
        panic!("a test fails");
    }));
    assert!(outcome.is_err());
    assert!(!folder.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn settings_arrive() {
    let server = RedisServer::builder()
        .arg("maxmemory", "10mb")
        .password("secret")
        .start()
        .await;
    assert!(ping(&server).await.unwrap().starts_with("-NOAUTH"));
    assert_eq!(
        server.cli(&["CONFIG", "GET", "maxmemory"]),
        "maxmemory\n10485760"
    );
    assert_eq!(
        server.url(),
        format!("redis://:secret@127.0.0.1:{}", server.port())
    );
}

#[tokio::test]
async fn a_paused_server_is_silent_until_resumed() {
    let mut server = RedisServer::start().await;
    server.pause();
    let silent = tokio::time::timeout(Duration::from_millis(50), ping(&server)).await;
    assert!(silent.is_err());
    server.resume();
    assert_eq!(ping(&server).await.unwrap(), "+PONG\r\n");
}

#[tokio::test]
async fn tls_is_served_with_a_certificate_of_the_authority() {
    let server = RedisServer::builder().tls().start().await;
    assert_eq!(
        server.url(),
        format!("rediss://127.0.0.1:{}", server.port())
    );
    let mut cli = std::process::Command::new("redis-cli");
    cli.args([
        "-h",
        "127.0.0.1",
        "-p",
        &server.port().to_string(),
        "--tls",
        "--cacert",
    ])
    .arg(server.certificate_authority())
    .arg("PING");
    assert_eq!(
        String::from_utf8_lossy(&cli.output().unwrap().stdout),
        "PONG\n"
    );
}

#[tokio::test]
#[should_panic(expected = "apt-get install redis-server")]
async fn a_missing_program_says_how_to_install_it() {
    RedisServer::builder()
        .program("/nonexistent/redis-server")
        .start()
        .await;
}

#[tokio::test]
#[should_panic(expected = "no-such-setting")]
async fn a_refused_configuration_shows_the_log() {
    RedisServer::builder()
        .arg("no-such-setting", "1")
        .start()
        .await;
}
