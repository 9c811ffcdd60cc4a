//! Hello: one handler, one worker.
//!
//! ```sh
//! streamerson dev                                                  # a gateway and a broker
//! cargo run -p streamerson-examples --bin hello                    # in another terminal
//! curl http://127.0.0.1:8080/hello/greet -d '{"name":"Ada"}'       # {"howdy":"there, Ada"}
//! ```

use serde_json::{Value, json};
use streamerson::{Error, Json, Router, Worker, connect, shutdown_signal};

async fn greet(Json(request): Json<Value>) -> Json<Value> {
    let name = request["name"].as_str().unwrap_or("stranger");
    Json(json!({ "howdy": format!("there, {name}") }))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("STREAMERSON_BROKER").unwrap_or("redis://127.0.0.1:6380".into());
    let broker = connect(&url).await?;
    let worker = Worker::new(broker).topic("hello").group("greeters");
    let (router, shutdown) = (Router::new().on("greet", greet), shutdown_signal());
    worker.serve(router).with_graceful_shutdown(shutdown).await
}
