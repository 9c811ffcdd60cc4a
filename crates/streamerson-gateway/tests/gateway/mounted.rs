//! A gateway inside an axum app.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use http_body_util::BodyExt;
use streamerson_gateway::Server;
use tower::ServiceExt;

use crate::support::{Connection, Edge, post};

async fn ask(app: &Router, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "a")
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn an_app_serves_its_own_routes_and_leaves_the_rest_to_the_gateway() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let app = Router::new()
        .route("/about", get(|| async { "about" }))
        .fallback_service(edge.gateway.clone());
    assert_eq!(ask(&app, "GET", "/about", "").await, (200, "about".into()));
    assert_eq!(
        ask(&app, "POST", "/hello/greet", "[1]").await,
        (200, "[1]".into())
    );
    assert_eq!(ask(&app, "POST", "/nowhere", "").await.0, 404);
    let large = "x".repeat(2 << 20);
    assert_eq!(ask(&app, "POST", "/hello/greet", &large).await.0, 413);
}

#[tokio::test]
async fn a_gateway_below_a_prefix_sees_the_path_without_it() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let app = Router::new().nest_service("/api", edge.gateway.clone());
    assert_eq!(
        ask(&app, "POST", "/api/hello/greet", "[1]").await,
        (200, "[1]".into())
    );
    let http = edge
        .written("hello")
        .await
        .parse_meta()
        .unwrap()
        .http
        .unwrap();
    assert_eq!(http.path, "/hello/greet");
}

#[tokio::test]
async fn an_app_is_served_by_our_server() {
    let edge = Edge::serve("").await;
    edge.echo("hello").await;
    let app = Router::new().fallback_service(edge.gateway.clone());
    let limits = crate::support::config("").gateway.limits;
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), "", &limits).unwrap();
    let address = server.local_addr();
    let serving = tokio::spawn(server.serve(app, std::future::pending(), || ()));
    let mut connection = Connection::to(address).await;
    connection.write(post("/hello/greet", "[2]")).await;
    assert_eq!(connection.answer().await.body, "[2]");
    serving.abort();
}
