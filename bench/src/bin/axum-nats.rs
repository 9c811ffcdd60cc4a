//! The gateway people write today: axum passes the body to a worker by NATS request-reply.
//!
//! As the documentation of async-nats recommends, all requests share one client, whose single
//! inbox subscription routes the replies.

use async_nats::Client;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use streamerson_bench::{Outcome, PATH, arguments, serve};

#[tokio::main]
async fn main() -> Outcome {
    let [listen, nats] = arguments(["LISTEN", "NATS_URL"])?;
    let client = async_nats::connect(nats).await?;
    serve(
        &listen,
        Router::new().route(PATH, post(hello)).with_state(client),
    )
    .await
}

async fn hello(State(nats): State<Client>, body: Bytes) -> Response {
    match nats.request("hello.greet", body).await {
        Ok(reply) => ([(header::CONTENT_TYPE, "application/json")], reply.payload).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}
