//! A gateway with a worker of the framework behind it: what handlers answer is what clients get.

use std::future::IntoFuture;

use http::StatusCode;
use serde_json::{Value, json};
use streamerson::{Json, Path, Problem, Query, Router, Worker};

use crate::support::{Edge, get, post};

const ROUTES: &str = r#"
    [[route]]
    method = ["GET", "POST"]
    path = "/orders/{id}"
    topic = "orders"
    type = "order"

    [[route]]
    path = "/panics"
    topic = "orders"
    type = "panics"

    [[route]]
    path = "/fails"
    topic = "orders"
    type = "fails"

    [[route]]
    path = "/parses"
    topic = "orders"
    type = "parses"

    [[route]]
    path = "/unknown"
    topic = "orders"
    type = "unknown"
    "#;

async fn order(Path(id): Path<String>, Query(query): Query<Value>) -> (StatusCode, Json<Value>) {
    (
        StatusCode::CREATED,
        Json(json!({ "id": id, "query": query })),
    )
}

async fn panics() -> Json<Value> {
    panic!("on purpose")
}

async fn fails() -> Result<Json<Value>, Problem> {
    Err(Problem::conflict("out-of-stock", "there is none left"))
}

async fn parses(Json(number): Json<u32>) -> Json<u32> {
    Json(number + 1)
}

#[tokio::test]
async fn what_handlers_answer_is_what_clients_get() {
    let edge = Edge::serve(ROUTES).await;
    let router = Router::new()
        .on("order", order)
        .on("panics", panics)
        .on("fails", fails)
        .on("parses", parses);
    let worker = Worker::new(edge.broker.clone())
        .topic("orders")
        .group("shop");
    let serving = tokio::spawn(worker.serve(router).into_future());

    let answer = edge.send(get("/orders/a%2Fb?q=1")).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json(), json!({ "id": "a/b", "query": { "q": "1" } }));

    // Also when a client knows nothing of content types.
    let form =
        post("/parses", "7").replace("application/json", "application/x-www-form-urlencoded");
    assert_eq!(edge.send(form).await.body, "8");

    for (path, body, status, code) in [
        ("/panics", "", 500, "handler-panicked"),
        ("/fails", "", 409, "out-of-stock"),
        ("/parses", "seven", 400, "invalid-payload"),
        ("/unknown", "", 404, "unknown-type"),
    ] {
        let answer = edge.post(path, body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{path}"
        );
        assert_eq!(answer.json()["origin"], "worker");
    }
    assert_eq!(edge.post("/parses", "1").await.body, "2");
    serving.abort();
}
