//! What no client should send, and clients that do not read: an error or the end of the connection, never more.

use std::time::Duration;

use streamerson_embedded::port::Options;

use crate::server::Server;
use crate::wire::{Value, Wire, encode, fields};

/// Bytes, and what the port says before it closes; nothing if it waits for more.
const CORPUS: &[(&[u8], &str)] = &[
    (b"*99999999999999999999\r\n", "invalid multibulk length"),
    (b"*9223372036854775807\r\n", "invalid multibulk length"),
    (b"*65537\r\n", "invalid multibulk length"),
    (b"*x\r\n", "invalid multibulk length"),
    (b"*\r\n", "invalid multibulk length"),
    (b"*1\r\n$-1\r\n", "invalid bulk length"),
    (b"*1\r\n$-9223372036854775808\r\n", "invalid bulk length"),
    (b"*1\r\n$999999999999\r\n", "invalid bulk length"),
    (b"*1\r\n$536870912\r\n", "invalid bulk length"),
    (b"*1\r\n$x\r\n", "invalid bulk length"),
    (b"*1\r\n$\r\n", "invalid bulk length"),
    (b"*1\r\n:1\r\n", "expected '$', got ':'"),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
    (b"*1\r\n\r\n", "expected '$'"),
    (b"*1\r\n$4\r\nPINGxx", "expected CRLF after bulk"),
    (b"*1\n$4\nPING\n", "expected CRLF"),
    (
        b"*1111111111111111111111111111111111111111",
        "too big mbulk count string",
    ),
    (
        b"*1\r\n$1111111111111111111111111111111111111",
        "too big bulk count string",
    ),
    (b"\"unbalanced\r\n", "unbalanced quotes in request"),
    (b"PING \"a\"b\r\n", "unbalanced quotes in request"),
];

async fn assert_alive(server: &Server) {
    let mut wire = server.connect().await;
    assert_eq!(wire.line("PING").await, Value::Simple("PONG".into()));
}

#[tokio::test]
async fn malformed_commands_are_named_and_end_the_connection() {
    let server = Server::start().await;
    for (bytes, complaint) in CORPUS {
        let mut wire = server.connect().await;
        let shown = String::from_utf8_lossy(bytes);
        wire.write(bytes).await;
        let answer = wire.receive().await;
        let expected = format!("ERR Protocol error: {complaint}");
        assert!(
            answer.text().starts_with(&expected),
            "{shown:?}: {answer:?}"
        );
        wire.closed().await;
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn commands_before_the_damage_are_answered() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let mut bytes = encode(&["PING"]);
    bytes.extend(b"*1\r\n$x\r\n*1\r\n$4\r\nPING\r\n");
    wire.write(&bytes).await;
    assert_eq!(wire.receive().await, Value::Simple("PONG".into()));
    assert!(wire.receive().await.is_error());
    wire.closed().await;
}

#[tokio::test]
async fn a_line_without_end_is_refused() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    wire.try_write(&[b'x'; 70_000]).await;
    let answer = wire.receive().await;
    assert!(
        answer.text().contains("too big inline request"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn garbage_does_no_harm() {
    let server = Server::start().await;
    // A fixed sequence, so that a failure comes again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    const PIECES: &[&[u8]] = &[
        b"*",
        b"$",
        b"-",
        b"1",
        b"3",
        b"4294967296",
        b"\r\n",
        b"\n",
        b"\0",
        b"XADD",
        b"XREAD",
        b" ",
        b"\"",
        b"\xff\xfe",
        b"*3\r\n$4\r\nXLEN\r\n",
        b"STREAMS",
        b"EVAL",
        b"shop:{a}",
        b"0",
    ];
    for _ in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..random() % 40 {
            bytes.extend_from_slice(PIECES[random() as usize % PIECES.len()]);
        }
        let mut wire = server.connect().await;
        wire.try_write(&bytes).await;
    }
    assert_alive(&server).await;
}

/// Other tests run in this process too, so that only a multiple of what they take tells something.
const NOTICEABLE: u64 = 512;

fn resident_mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    let kibibytes = line.split_whitespace().nth(1).expect("a number");
    kibibytes.parse::<u64>().expect("a number") / 1024
}

#[tokio::test]
async fn an_announcement_costs_nothing() {
    let server = Server::start().await;
    let before = resident_mebibytes();
    let mut wires = Vec::new();
    for _ in 0..300 {
        let mut wire = server.connect().await;
        wire.write(b"*65536\r\n$16777216\r\nabc").await;
        wires.push(wire);
    }
    assert_alive(&server).await;
    let grown = resident_mebibytes().saturating_sub(before);
    assert!(
        grown < NOTICEABLE,
        "{grown} MiB for 300 announcements of 16 MiB"
    );
}

async fn stored_megabytes(server: &Server, count: usize) -> Wire {
    let mut wire = server.connect().await;
    let data = "x".repeat(1 << 20);
    for _ in 0..count {
        wire.line(&format!("XADD shop:{{a}} * {}", fields(&data)))
            .await;
    }
    wire
}

#[tokio::test]
async fn who_does_not_read_is_closed_and_costs_little() {
    let server = Server::with(Options {
        stall: Duration::from_secs(2),
        ..Options::default()
    })
    .await;
    stored_megabytes(&server, 10).await;
    let before = resident_mebibytes();
    let mut wire = server.connect().await;
    let question = encode(&["XRANGE", "shop:{a}", "-", "+"]).repeat(100);
    // Gigabytes of answers are asked for, and none is read.
    while wire.try_write(&question).await {
        let grown = resident_mebibytes().saturating_sub(before);
        assert!(
            grown < NOTICEABLE,
            "{grown} MiB for answers that nobody reads"
        );
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn who_reads_late_gets_everything() {
    let server = Server::start().await;
    stored_megabytes(&server, 4).await;
    let mut wire = server.connect().await;
    wire.write(&encode(&["XRANGE", "shop:{a}", "-", "+"]).repeat(20))
        .await;
    for _ in 0..20 {
        assert_eq!(wire.receive().await.list().len(), 4);
    }
}

#[tokio::test]
async fn an_answer_beyond_reason_is_refused() {
    let server = Server::start().await;
    let mut wire = stored_megabytes(&server, 70).await;
    let answer = wire.line("XRANGE shop:{a} - +").await;
    assert!(answer.text().contains("COUNT"), "{}", &answer.text()[..80]);
    assert_eq!(
        wire.line("XRANGE shop:{a} - + COUNT 5").await.list().len(),
        5
    );
    // Reading goes on where it stopped.
    let found = wire.line("XREAD STREAMS shop:{a} 0").await.list();
    let entries = found[0].clone().list()[1].clone().list();
    assert!((1..70).contains(&entries.len()), "{}", entries.len());
}
