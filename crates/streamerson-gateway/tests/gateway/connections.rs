//! What connections may do, and for how long: with real sockets, and clients that do not behave.

use std::time::Duration;

use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use streamerson_core::Broker;
use streamerson_gateway::Server;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{Edge, get, in_flight, metrics, post, soon, until};

type Body = Full<bytes::Bytes>;

fn h2c() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let mut connection = edge.connect().await;
    for n in 0..3 {
        connection.write(post("/hello/greet", &n.to_string())).await;
        assert_eq!(connection.answer().await.body, n.to_string());
    }
    // Two at once, answered in order.
    connection
        .write(post("/hello/greet", "a") + &post("/hello/greet", "b"))
        .await;
    assert_eq!(connection.answer().await.body, "a");
    assert_eq!(connection.answer().await.body, "b");
}

#[tokio::test]
async fn http2_is_served_by_prior_knowledge() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let client = h2c();
    let asked = (0..50).map(|n| {
        let uri = format!("http://{}/hello/greet", edge.address);
        let request = Request::post(uri).body(Body::from(n.to_string())).unwrap();
        let client = &client;
        async move {
            let response = soon("an answer", client.request(request)).await.unwrap();
            assert_eq!(
                (response.status().as_u16(), response.version()),
                (200, Version::HTTP_2)
            );
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, n.to_string());
        }
    });
    futures::future::join_all(asked).await;
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_read() {
    let edge = Edge::serve("").await;
    let mut connection = edge.connect().await;
    connection.write("POST /hello/greet HTTP/1.1\r\nhost: a\r\ncontent-length: 10485760\r\nexpect: 100-continue\r\n\r\n").await;
    let answer = connection.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "body-too-large")
    );
    assert!(edge.is_untouched("hello").await);
}

/// A client that sends all before it reads must still get to read why it was refused.
#[tokio::test]
async fn a_client_that_sends_a_large_body_all_the_same_reads_why_it_was_refused() {
    let edge = Edge::serve("").await;
    for framing in ["content-length: 10485760", "transfer-encoding: chunked"] {
        let mut connection = edge.connect().await;
        connection
            .write(format!(
                "POST /hello/greet HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n"
            ))
            .await;
        let chunk = vec![b'x'; 64 << 10];
        for _ in 0..160 {
            if framing.starts_with("transfer") {
                connection.write(format!("{:x}\r\n", chunk.len())).await;
            }
            connection.write(&chunk).await;
            if framing.starts_with("transfer") {
                connection.write("\r\n").await;
            }
        }
        let answer = connection.answer().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (413, "body-too-large"),
            "{framing}"
        );
        assert_eq!(connection.rest().await, "");
    }
    assert!(edge.is_untouched("hello").await);
}

#[tokio::test]
async fn a_body_as_large_as_the_limit_arrives_whole() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let body: String = (0..1 << 20)
        .map(|n| char::from(b'a' + (n % 23) as u8))
        .collect();
    assert_eq!(edge.post("/hello/greet", &body).await.body, body);
    let mut chunked =
        String::from("POST /hello/greet HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    for piece in body.as_bytes().chunks(1000) {
        chunked += &format!(
            "{:x}\r\n{}\r\n",
            piece.len(),
            std::str::from_utf8(piece).unwrap()
        );
    }
    assert_eq!(edge.send(chunked + "0\r\n\r\n").await.body, body);
    let refused = edge.post("/hello/greet", &(body + "x")).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (413, "body-too-large")
    );
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    for request in [
        &b"POST /hello/greet HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"[..],
        b"POST /hello/greet HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na",
        b"POST /hello/greet HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\na",
        b"POST /hello/greet HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\na",
        b"POST /hello/greet HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /hello/greet HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET /hello/greet HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n",
        b"GET /hello/greet HTTP/1.1\r\nhost: a\r\naccept: a\x00b\r\n\r\n",
        b"GET /hello/greet HTTP/1.1\r\nhost: a\r\naccept: a\x01b\r\n\r\n",
        b"GET /hello/greet HTTP/1.1\r\nhost: a\r\naccept: a\x7fb\r\n\r\n",
        b"GET /hello/greet HTTP/1.1\r\nhost: a\r\naccept: a\rb\r\n\r\n",
        b"GET /hello/gr\x01eet HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /hello/greet HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET /hello/greet HTTP/1.1\r\naccept: a\r\n\r\n",
        b"GET /hello/greet HTTP/9.9\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let answer = edge.send(request).await;
        assert_eq!(answer.status, 400, "{}", request.escape_ascii());
    }
    assert!(
        edge.broker
            .memory
            .stats(&topic("hello"))
            .await
            .unwrap()
            .length
            == 0
    );
}

#[tokio::test]
async fn http_1_0_needs_no_host() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let answer = edge
        .send("POST /hello/greet HTTP/1.0\r\ncontent-length: 1\r\n\r\n1")
        .await;
    assert_eq!((answer.status, &*answer.body), (200, "1"));
}

/// Both lengths are given: the one that counts is the chunked one, and what follows is no request.
#[tokio::test]
async fn a_smuggled_request_is_not_served() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let smuggled = get("/hello/smuggled");
    for head in [
        "POST /hello/greet HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST /hello/greet HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
    ] {
        let mut connection = edge.connect().await;
        connection.write(format!("{head}0\r\n\r\n{smuggled}")).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(connection.rest().await, "");
    }
    let stats = edge.broker.memory.stats(&topic("hello")).await.unwrap();
    assert_eq!(stats.length, 2);
}

#[tokio::test]
async fn too_many_headers_and_too_large_ones_are_431() {
    let edge = Edge::serve("").await;
    let many: String = (0..101).map(|n| format!("x-{n}: y\r\n")).collect();
    assert_eq!(
        edge.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"))
            .await
            .status,
        431
    );
    let large = "y".repeat(17 << 10);
    assert_eq!(
        edge.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {large}\r\n\r\n"))
            .await
            .status,
        431
    );
}

#[tokio::test]
async fn a_head_that_drips_in_is_given_up() {
    let edge = Edge::serve("[gateway]\nheader_read_timeout = \"100ms\"").await;
    let begun = Instant::now();
    for opening in ["", "GET /hel"] {
        let mut connection = edge.connect().await;
        connection.write(opening).await;
        // Each byte is in time, the head is not.
        until("the connection to be closed", async || {
            connection.try_write("x").await.is_err()
        })
        .await;
    }
    // The begin of what could become HTTP/2.
    let mut connection = edge.connect().await;
    connection.write("PRI * HTTP/2.0\r\n").await;
    assert_eq!(connection.rest().await, "");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(
        metrics(&edge)
            .await
            .contains("strm_gateway_connections_timed_out_total 3")
    );
}

#[tokio::test]
async fn the_next_head_may_come_late_but_not_slowly() {
    let edge =
        Edge::serve("[gateway]\nheader_read_timeout = \"500ms\"\nkeep_alive = \"10m\"").await;
    edge.echo("hello").await;
    let mut connection = edge.connect().await;
    connection.write(post("/hello/greet", "1")).await;
    assert_eq!(connection.answer().await.status, 200);
    // Not a wait for something, but the thing itself: idleness beyond the time for a head.
    tokio::time::sleep(Duration::from_millis(800)).await;
    connection.write(post("/hello/greet", "2")).await;
    assert_eq!(connection.answer().await.body, "2");
    connection.write("GET /hel").await;
    assert_eq!(connection.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let edge = Edge::serve("[gateway]\nkeep_alive = \"100ms\"").await;
    edge.echo("hello").await;
    let mut connection = edge.connect().await;
    connection.write(post("/hello/greet", "1")).await;
    assert_eq!(connection.answer().await.status, 200);
    assert_eq!(connection.rest().await, "");

    let client = h2c();
    let uri = format!("http://{}/hello/greet", edge.address);
    let response = client
        .request(Request::post(uri).body(Body::from("x")).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    until("all connections to be closed", async || {
        metrics(&edge).await.contains("strm_gateway_connections 0")
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let edge = Edge::serve("[gateway]\nkeep_alive = \"100ms\"\nmax_body = \"64MiB\"").await;
    edge.answer("hello", |message| {
        Some(message.answer(vec![b'x'; 32 << 20]))
    })
    .await;
    let mut connection = edge.connect().await;
    connection.write(get("/hello/greet")).await;
    until("the connection to be cut", async || {
        metrics(&edge).await.contains("strm_gateway_connections 0")
    })
    .await;
    drop(connection);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_and_closed() {
    let edge = Edge::serve("[gateway]\nmax_connections = 1").await;
    edge.echo("hello").await;
    let mut first = edge.connect().await;
    first.write(post("/hello/greet", "1")).await;
    assert_eq!(first.answer().await.status, 200);
    let mut second = edge.connect().await;
    let answer = second.head().await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(second.rest().await, "");
    first.write(post("/hello/greet", "2")).await;
    assert_eq!(first.answer().await.body, "2");
    drop(first);
    // The place is free again once the server has seen the end.
    until("a place", async || {
        metrics(&edge).await.contains("strm_gateway_connections 0")
    })
    .await;
    assert_eq!(edge.post("/hello/greet", "3").await.status, 200);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_progress_and_takes_nothing_new() {
    let edge = Edge::serve("").await;
    let address = edge.address;
    let mut idle = edge.connect().await;
    idle.write("OPTIONS /a/b HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 204);
    let mut silent = edge.connect().await;
    let mut working = edge.connect().await;
    working.write(post("/hello/greet", "1")).await;
    let client = h2c();
    let uri = format!("http://{address}/hello/greet");
    let multiplexed =
        tokio::spawn(client.request(Request::post(uri).body(Body::from("2")).unwrap()));
    until("both to be in progress", async || {
        in_flight(&edge).await == 2
    })
    .await;

    edge.stop();
    assert_eq!(idle.rest().await, "");
    assert_eq!(silent.rest().await, "");
    until("new connections to be refused", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;

    edge.echo("hello").await;
    let answer = working.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "1"));
    assert_eq!(working.rest().await, "");
    let response = soon("the answer over HTTP/2", multiplexed)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "2"
    );
    assert_eq!(edge.drained().await.cut, 0);
}

#[tokio::test]
async fn a_drain_ends_in_time_and_tells_what_it_cut() {
    let edge = Edge::serve("[gateway]\ndrain_timeout = \"50ms\"").await;
    let mut connection = edge.connect().await;
    connection
        .write("POST /hello/greet HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n1")
        .await;
    until("half of the request to be there", async || {
        metrics(&edge).await.contains(r#"stage="receiving"} 1"#)
    })
    .await;
    edge.stop();
    assert_eq!(connection.rest().await, "");
    assert_eq!(edge.drained().await.cut, 1);
}

#[tokio::test]
async fn what_waits_when_the_time_to_drain_is_over_is_told_that_its_outcome_is_unknown() {
    let edge = Edge::serve("[gateway]\ndrain_timeout = \"50ms\"").await;
    let mut connection = edge.connect().await;
    connection.write(post("/hello/greet", "1")).await;
    let client = h2c();
    let uri = format!("http://{}/hello/greet", edge.address);
    let multiplexed =
        tokio::spawn(client.request(Request::post(uri).body(Body::from("2")).unwrap()));
    until("both to be in progress", async || {
        in_flight(&edge).await == 2
    })
    .await;

    edge.stop();

    let answer = connection.answer().await;
    assert_eq!(answer.status, 504, "{}", answer.body);
    assert!(answer.body.contains("no-reply-in-time"), "{}", answer.body);
    assert!(answer.body.contains("shuts down"), "{}", answer.body);
    let response = multiplexed.await.unwrap().unwrap();
    assert_eq!(response.status(), 504);
    drop(response);
    assert_eq!(connection.rest().await, "");
    drop(connection);
    assert_eq!(edge.drained().await.cut, 0);
}

#[tokio::test]
async fn an_address_in_use_names_what_to_change() {
    let edge = Edge::serve("").await;
    let limits = crate::support::config("").gateway.limits;
    let error = Server::bind(edge.address, "--listen or gateway.listen", &limits).unwrap_err();
    assert_eq!(error.code(), "address-in-use");
    assert!(
        error.detail().contains(&edge.address.to_string()),
        "{error}"
    );
    assert!(
        error.detail().contains("--listen or gateway.listen"),
        "{error}"
    );
}

fn topic(name: &str) -> streamerson_core::Topic {
    streamerson_core::Topic::new(name).unwrap()
}
