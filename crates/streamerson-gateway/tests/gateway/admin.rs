//! The admin address.

use http::{Method, Request};
use http_body_util::BodyExt;
use streamerson_gateway::Admin;
use tower::ServiceExt;

use crate::support::{Edge, Fault, get, metrics, post};

async fn ask(admin: &Admin, method: Method, path: &str) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(())
        .unwrap();
    let Ok(response) = admin.clone().oneshot(request).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn status(admin: &Admin, path: &str) -> u16 {
    ask(admin, Method::GET, path).await.0
}

#[tokio::test]
async fn a_gateway_is_ready_while_it_serves_and_its_broker_is_there() {
    let edge = Edge::serve("").await;
    assert_eq!(
        status(&Admin::new(edge.gateway.clone()), "/readyz").await,
        200
    );
    for fault in [Fault::Away, Fault::Silent] {
        edge.broker.set(fault);
        let admin = Admin::new(edge.gateway.clone());
        assert_eq!(status(&admin, "/readyz").await, 503, "{fault:?}");
        assert_eq!(status(&admin, "/livez").await, 200);
    }
    edge.broker.set(None);
    let admin = Admin::new(edge.gateway.clone());
    assert_eq!(status(&admin, "/readyz").await, 200);
    edge.gateway.drain();
    assert_eq!(
        ask(&admin, Method::GET, "/readyz").await,
        (503, "draining\n".into())
    );
    assert_eq!(status(&admin, "/livez").await, 200);
}

#[tokio::test(start_paused = true)]
async fn the_broker_is_asked_rarely_however_often_health_is() {
    let edge = Edge::serve("").await;
    let admin = Admin::new(edge.gateway.clone());
    assert_eq!(status(&admin, "/readyz").await, 200);
    edge.broker.set(Fault::Away);
    assert_eq!(status(&admin, "/readyz").await, 200);
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert_eq!(status(&admin, "/readyz").await, 503);
}

#[tokio::test]
async fn routes_are_listed() {
    let edge =
        Edge::serve("[[route]]\npath = \"/o/{id}\"\ntopic = \"orders\"\ntype = \"order.create\"")
            .await;
    let (status, body) = ask(&Admin::new(edge.gateway.clone()), Method::GET, "/routes").await;
    let routes: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &routes[0]["path"], &routes[0]["topic"]),
        (200, &"/o/{id}".into(), &"orders".into())
    );
    assert_eq!(routes[0]["timeout_ms"], 30_000);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status_never_by_path() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    for n in 0..3 {
        edge.post(&format!("/hello/greet{n}"), "{}").await;
        edge.send(get(&format!("/nowhere{n}"))).await;
    }
    edge.send(post("/hello/greet", "{}").replace("POST", "BREW"))
        .await;
    let metrics = metrics(&edge).await;
    for line in [
        r#"strm_gateway_request_duration_seconds_count{route="/{topic}/{type}",code="200"} 3"#,
        r#"strm_gateway_request_duration_seconds_count{route="unmatched",code="404"} 3"#,
        r#"strm_gateway_request_duration_seconds_count{route="unmatched",code="405"} 1"#,
        r#"strm_gateway_requests_in_flight{route="/{topic}/{type}",stage="waiting"} 0"#,
        "strm_client_replies_total 3",
        "strm_build_info{version=",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(
        !metrics.contains("greet") && !metrics.contains("nowhere"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let edge = Edge::serve("").await;
    let admin = Admin::new(edge.gateway.clone());
    assert_eq!(status(&admin, "/debug").await, 404);
    assert_eq!(ask(&admin, Method::POST, "/metrics").await.0, 405);
    assert_eq!(
        ask(&admin, Method::HEAD, "/metrics").await,
        (200, String::new())
    );
}
