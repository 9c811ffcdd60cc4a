//! redis-cli, as a person would use it.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::server::Server;

async fn redis_cli(server: &Server, arguments: &[&str], input: &str) -> String {
    let mut cli = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &server.address.port().to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-cli, of the package redis-tools");
    let mut stdin = cli.stdin.take().expect("stdin");
    stdin.write_all(input.as_bytes()).await.expect("write");
    drop(stdin);
    let output = cli.wait_with_output().await.expect("redis-cli");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text + &String::from_utf8_lossy(&output.stderr)
}

const MESSAGE: &[&str] = &[
    "id",
    "1",
    "type",
    "greet",
    "corr",
    "",
    "reply",
    "",
    "meta",
    "",
    "data",
    "{\"name\":\"Ada\"}",
];

#[tokio::test]
async fn a_person_may_look_around() {
    let server = Server::start().await;
    assert_eq!(redis_cli(&server, &["ping"], "").await.trim(), "PONG");
    let add = [&["XADD", "shop:{hello}", "7-1"], MESSAGE].concat();
    assert_eq!(redis_cli(&server, &add, "").await.trim(), "7-1");
    assert_eq!(
        redis_cli(&server, &["--scan"], "").await.trim(),
        "shop:{hello}"
    );
    let range = redis_cli(&server, &["XRANGE", "shop:{hello}", "-", "+"], "").await;
    assert!(range.contains("7-1") && range.contains("Ada"), "{range}");
    let info = redis_cli(&server, &["INFO"], "").await;
    for line in [
        "redis_version:7.0.15",
        "server_name:streamerson",
        "streamerson_durability:memory",
        "streamerson_namespace:shop",
        "aof_enabled:0",
    ] {
        assert!(info.contains(line), "{line} is not in {info}");
    }
}

#[tokio::test]
async fn commands_may_be_piped_in() {
    let server = Server::start().await;
    let input = "XGROUP CREATE shop:{a} g 0 MKSTREAM\nXINFO GROUPS shop:{a}\nNOSUCH\nQUIT\n";
    let output = redis_cli(&server, &[], input).await;
    assert!(output.starts_with("OK"), "{output}");
    assert!(
        output.contains("last-delivered-id") && output.contains("unknown command 'NOSUCH'"),
        "{output}"
    );
}

#[tokio::test]
async fn resp3_may_be_asked_for() {
    let server = Server::start().await;
    let ask = ["-3", "--no-raw", "CONFIG", "GET", "maxmemory"];
    let output = redis_cli(&server, &ask, "").await;
    assert_eq!(output.trim(), r#"1# "maxmemory" => "0""#);
}
