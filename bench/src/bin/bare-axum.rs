//! The floor: axum answers by itself, with no hop. It is also what nginx proxies to.

use axum::routing::post;
use axum::{Json, Router};
use streamerson_bench::{Greet, Howdy, Outcome, PATH, arguments, greet, serve};

#[tokio::main]
async fn main() -> Outcome {
    let [listen] = arguments(["LISTEN"])?;
    serve(&listen, Router::new().route(PATH, post(hello))).await
}

async fn hello(Json(ada): Json<Greet>) -> Json<Howdy> {
    Json(greet(ada))
}
