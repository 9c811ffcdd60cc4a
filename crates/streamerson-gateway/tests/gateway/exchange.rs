//! From HTTP to a message and back, over real sockets.

use crate::support::{Edge, Fault, get, in_flight, metrics, post, soon, until};
use serde_json::json;
use streamerson_core::{Append, Broker, Position, Topic, Upkeep, partition};

#[tokio::test]
async fn a_request_is_answered_with_the_reply() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let answer = edge.post("/hello/greet", r#"{"name":"Ada"}"#).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.body, r#"{"name":"Ada"}"#);

    let message = edge.written("hello").await;
    assert_eq!(message.kind, "greet");
    assert_eq!(answer.header("streamerson-request-id"), Some(&*message.id));
    let meta = message.parse_meta().unwrap();
    assert!(
        meta.exp
            .is_some_and(|exp| exp > streamerson_core::time::unix_ms())
    );
    let http = meta.http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str()),
        ("POST", "/hello/greet")
    );
    assert!(http.params.is_empty() && http.query.is_empty());
}

#[tokio::test]
async fn a_client_that_knows_nothing_of_content_types_is_served() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let curl = "POST /hello/greet HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/8\r\nAccept: */*\r\nContent-Length: 2\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n{}";
    assert_eq!(edge.send(curl).await.status, 200);
    let meta = edge.written("hello").await.parse_meta().unwrap();
    assert_eq!(
        meta.ctype.as_deref(),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(meta.hdr.get("user-agent"), Some("curl/8"));
}

#[tokio::test]
async fn a_configured_route_passes_on_parameters_query_and_its_own_headers() {
    let edge = Edge::serve(
        r#"
        [[route]]
        method = ["PUT", "GET"]
        path = "/orders/{id}/items/{*rest}"
        topic = "orders"
        type = "order.put"
        headers = ["authorization"]
        "#,
    )
    .await;
    edge.echo("orders").await;
    let request = "PUT /orders/a%2Fb/items/1/%C3%A4?q=%20x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer x\r\ncookie: y\r\n\
                   user-agent: z\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(edge.send(request).await.status, 200);
    let message = edge.written("orders").await;
    assert_eq!(message.kind, "order.put");
    let meta = message.parse_meta().unwrap();
    assert_eq!(
        meta.hdr.iter().collect::<Vec<_>>(),
        [("authorization", "Bearer x")]
    );
    let http = meta.http.unwrap();
    assert_eq!(http.params["id"], "a/b");
    assert_eq!(http.params["rest"], "1/ä");
    assert_eq!(http.query, "q=%20x");
    assert_eq!(http.path, "/orders/a%2Fb/items/1/%C3%A4");
}

#[tokio::test]
async fn get_reaches_a_default_route_and_head_has_no_body() {
    let edge = Edge::serve("").await;
    edge.answer("hello", |message| Some(message.answer("[1,2]")))
        .await;
    assert_eq!(edge.send(get("/hello/list")).await.body, "[1,2]");

    let mut connection = edge.connect().await;
    connection
        .write("HEAD /hello/list HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    let head = connection.head().await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("5"))
    );
    // The connection is in step: the next answer is not preceded by a body.
    connection.write(get("/hello/list")).await;
    assert_eq!(connection.answer().await.body, "[1,2]");
    let http = edge
        .written("hello")
        .await
        .parse_meta()
        .unwrap()
        .http
        .unwrap();
    assert_eq!(http.method, "GET");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_named() {
    let edge = Edge::serve(
        r#"
        [[route]]
        path = "/orders"
        topic = "orders"
        type = "order.create"
        "#,
    )
    .await;
    let answer = edge.post("/order", "{}").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "route-not-found")
    );
    assert_eq!(answer.json()["outcome"], "rejected");
    let id = answer.header("streamerson-request-id").unwrap();
    assert_eq!(answer.json()["instance"], format!("urn:uuid:{id}"));

    let answer = edge.send(get("/orders")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (405, "method-not-allowed")
    );
    assert_eq!(answer.header("allow"), Some("OPTIONS, POST"));

    let answer = edge
        .send("OPTIONS /orders HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (204, Some("OPTIONS, POST"))
    );

    let answer = edge.send("BREW /orders HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer.status, 405);
    assert!(edge.is_untouched("orders").await);
}

#[tokio::test]
async fn clients_write_neither_to_inboxes_nor_to_dead_letters() {
    let edge = Edge::serve("").await;
    for path in [
        "/inbox.0190/greet",
        "/hello:dlq/greet",
        "/hello%3Adlq/greet",
        "/%69nbox.0190/greet",
        "/a%20b/greet",
        "/hello/gr%20eet",
        "/hello/",
        "/hello",
        "//greet",
        "/",
        "/hello/greet/more",
    ] {
        let answer = edge.post(path, "{}").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, "route-not-found"),
            "{path}"
        );
    }
    assert_eq!(edge.broker.memory.topics().await.unwrap(), []);
}

#[tokio::test]
async fn clients_do_not_write_to_partitions_past_the_key() {
    let edge = Edge::serve("").await;
    let ledger = Topic::new("ledger").unwrap();
    edge.broker.memory.divide(&ledger, 2).await.unwrap();
    for part in ["ledger.0", "ledger.1"] {
        let answer = edge.post(&format!("/{part}/step"), "{}").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, "route-not-found"),
            "{part}"
        );
        assert!(edge.is_untouched(part).await);
    }
}

#[tokio::test]
async fn messages_of_a_route_have_its_key() {
    let route = "[[route]]\npath = \"/accounts/{id}/steps\"\nkey = \"{id}\"\ntopic = \"ledger\"\ntype = \"step\"\nmode = \"send\"\n";
    let edge = Edge::serve(route).await;
    let ledger = Topic::new("ledger").unwrap();
    edge.broker.memory.divide(&ledger, 8).await.unwrap();
    for n in ["1", "2"] {
        assert_eq!(edge.post("/accounts/a%2F7/steps", n).await.status, 202);
    }
    let part = partition::topic(&ledger, partition::of("a/7", 8)).unwrap();
    let stored = edge.broker.memory.range(&part, Position::ZERO, 9).await;
    let stored = stored.unwrap().into_iter().map(|entry| {
        let message = entry.message.unwrap();
        (message.parse_meta().unwrap().key, message.data)
    });
    let key = || Some("a/7".to_owned());
    let expected = [(key(), "1".into()), (key(), "2".into())];
    assert_eq!(stored.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn paths_that_mean_more_than_they_say_are_refused() {
    let edge = Edge::serve("").await;
    for path in [
        "/hello/..",
        "/hello/../admin",
        "/hello/%2e%2e",
        "/x%2F..%2Fadmin/greet",
        "/hello/a%00b",
        "/hello/a%0d%0ab",
        "/hello/%zz",
        "/hello/%ff",
    ] {
        let answer = edge.post(path, "{}").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid-path"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_target_that_is_too_long_is_refused() {
    let edge = Edge::serve("").await;
    let answer = edge
        .send(get(&format!("/hello/greet?{}", "x".repeat(8 << 10))))
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (414, "uri-too-long")
    );
}

#[tokio::test]
async fn a_json_route_takes_nothing_else() {
    let edge = Edge::serve(
        r#"
        [[route]]
        path = "/orders"
        topic = "orders"
        type = "order.create"
        body = "json"
        "#,
    )
    .await;
    edge.echo("orders").await;
    for body in ["{", "", "{} x", "{'a':1}"] {
        let answer = edge.post("/orders", body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid-json"),
            "{body}"
        );
    }
    let answer = edge.send("POST /orders HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (415, "unsupported-media-type")
    );
    let orders = Topic::new("orders").unwrap();
    assert_eq!(edge.broker.memory.stats(&orders).await.unwrap().length, 0);

    for ctype in [
        "application/json; charset=utf-8",
        "application/merge-patch+json",
    ] {
        let request = format!(
            "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-type: {ctype}\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        assert_eq!(edge.send(request).await.status, 200, "{ctype}");
    }
}

#[tokio::test]
async fn a_header_that_a_worker_cannot_see_as_text_is_refused() {
    let edge = Edge::serve("").await;
    let answer = edge
        .send(b"GET /hello/greet HTTP/1.1\r\nhost: a\r\naccept: caf\xe9\r\n\r\n")
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "invalid-header")
    );
}

#[tokio::test]
async fn a_sent_message_is_confirmed_once_it_is_stored() {
    let toml = r#"
        [[route]]
        path = "/events"
        topic = "events"
        type = "event"
        mode = "send"

        [[route]]
        path = "/impatient"
        topic = "events"
        type = "event"
        mode = "send"
        timeout = "50ms"
        "#;
    let edge = Edge::serve(toml).await;
    let answer = edge.post("/events", "[1]").await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("streamerson-durability"), Some("memory"));
    let message = edge.written("events").await;
    assert_eq!(answer.json()["id"], *message.id);
    assert!(
        answer.json()["position"]
            .as_str()
            .is_some_and(|position| position.contains('-'))
    );
    assert_eq!(message.data, "[1]");
    assert_eq!(message.reply, "");
    // Nobody waits for it, so it does not expire.
    assert_eq!(message.parse_meta().unwrap().exp, None);

    edge.broker.set(Fault::Away);
    let answer = edge.post("/events", "[2]").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "broker-unavailable")
    );
    edge.broker.set(Fault::Silent);
    let answer = edge.post("/impatient", "[3]").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (504, "outcome-unknown")
    );
}

#[tokio::test]
async fn a_broker_that_is_away_is_503_and_tells_no_secrets() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    edge.broker.set(Fault::Away);
    let answer = edge.post("/hello/greet", "{}").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "broker-unavailable")
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.json()["outcome"], "rejected");
    assert!(!answer.body.contains("secret"), "{answer:?}");

    edge.broker.set(Fault::Unclear);
    let answer = edge.post("/hello/greet", "{}").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (504, "outcome-unknown")
    );
    assert_eq!(answer.json()["outcome"], "unknown");
    assert!(!answer.body.contains("secret"), "{answer:?}");

    edge.broker.set(Fault::Refused("permission-denied"));
    let answer = edge.post("/hello/greet", "{}").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (500, "broker-refused")
    );
    assert_eq!(answer.json()["outcome"], "rejected");
    assert!(!answer.body.contains("secret"), "{answer:?}");

    edge.broker.set(Fault::Refused("message-too-large"));
    let answer = edge.post("/hello/greet", "{}").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "body-too-large")
    );

    edge.broker.set(None);
    assert_eq!(edge.post("/hello/greet", "{}").await.status, 200);
}

#[tokio::test]
async fn without_a_reply_the_answer_is_504_and_a_late_reply_hurts_nobody() {
    let route = |name: &str| {
        format!("[[route]]\npath = \"/{name}\"\ntopic = \"{name}\"\ntype = \"greet\"\n")
    };
    let toml = route("hello") + "timeout = \"20ms\"\n" + &route("other");
    let edge = Edge::serve(&toml).await;
    let answer = edge.post("/hello", "{}").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (504, "no-reply-in-time")
    );
    assert_eq!(answer.json()["outcome"], "unknown");

    let request = edge.written("hello").await;
    let late = Append::new(request.reply_to().unwrap(), request.answer("\"late\""));
    for result in edge.broker.memory.append(vec![late]).await {
        result.unwrap();
    }
    edge.echo("other").await;
    assert_eq!(edge.post("/other", "1").await.body, "1");
    let metrics = metrics(&edge).await;
    assert!(
        metrics.contains("strm_client_late_replies_total 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_unusable_reply_is_502() {
    let edge = Edge::serve("").await;
    let metas = [
        ("status", r#"{"status":99}"#),
        ("smuggle", r#"{"hdr":{"x":"a\r\nset-cookie: b"}}"#),
        ("framing", r#"{"hdr":{"transfer-encoding":"chunked"}}"#),
        ("nonsense", "not json"),
    ];
    for (topic, meta) in metas {
        edge.answer_with_meta(topic, meta).await;
        let answer = edge.post(&format!("/{topic}/x"), "{}").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (502, "invalid-reply"),
            "{meta}"
        );
    }
}

#[tokio::test]
async fn a_failed_reply_is_a_problem_of_the_worker() {
    let edge = Edge::serve("").await;
    edge.answer_with_meta("shop", r#"{"status":409,"err":{"code":"out-of-stock","message":"none left"},"hdr":{"retry-after":"60"}}"#)
        .await;
    let answer = edge.post("/shop/buy", "{}").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (409, "out-of-stock")
    );
    assert_eq!(answer.json()["origin"], "worker");
    assert_eq!(answer.header("retry-after"), Some("60"));
}

#[tokio::test]
async fn answers_find_their_requests_whatever_their_order() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let asked = (0..100).map(|n| {
        let edge = &edge;
        async move {
            let body = json!({ "n": n }).to_string();
            assert_eq!(edge.post("/hello/greet", &body).await.body, body);
        }
    });
    futures::future::join_all(asked).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_request() {
    let edge = Edge::serve("").await;
    let mut connection = edge.connect().await;
    connection.write(post("/hello/greet", "{}")).await;
    edge.written("hello").await;
    assert_eq!(in_flight(&edge).await, 1);
    drop(connection);
    until("the request to be cancelled", async || {
        in_flight(&edge).await == 0
    })
    .await;
    let metrics = metrics(&edge).await;
    assert!(
        metrics.contains(r#"strm_gateway_requests_cancelled_total{route="/{topic}/{type}"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn beyond_the_limit_requests_are_refused_at_once() {
    let edge = Edge::serve("[gateway]\nmax_in_flight = 1").await;
    let mut first = edge.connect().await;
    first.write(post("/hello/greet", "1")).await;
    edge.written("hello").await;
    let answer = edge.post("/hello/greet", "2").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    edge.echo("hello").await;
    assert_eq!(first.answer().await.body, "1");
    assert_eq!(edge.post("/hello/greet", "3").await.status, 200);
}

#[tokio::test]
async fn a_closed_gateway_refuses_requests() {
    let edge = Edge::serve("").await;
    soon("closing", edge.gateway.close()).await;
    let answer = edge.post("/hello/greet", "{}").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "draining"));
}

#[tokio::test]
async fn the_id_of_the_caller_is_told_to_the_worker_and_back() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let answer = edge
        .send("GET /hello/greet HTTP/1.1\r\nhost: a\r\nx-request-id: abc\r\n\r\n")
        .await;
    assert_eq!(answer.header("x-request-id"), Some("abc"));
    let meta = edge.written("hello").await.parse_meta().unwrap();
    assert_eq!(meta.hdr.get("x-request-id"), Some("abc"));
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let edge = Edge::serve("[gateway]\nbody_read_timeout = \"50ms\"").await;
    let mut connection = edge.connect().await;
    connection
        .write("POST /hello/greet HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12")
        .await;
    let answer = connection.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (408, "request-timeout")
    );
    assert!(edge.is_untouched("hello").await);
}
