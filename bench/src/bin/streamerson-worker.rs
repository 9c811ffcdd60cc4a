//! The worker of Streamerson as a process of its own, which answers what `streamerson gateway` asks.

use streamerson::{Json, Router, Worker, connect};
use streamerson_bench::{Greet, Howdy, Outcome, arguments, greet};

#[tokio::main]
async fn main() -> Outcome {
    let [broker] = arguments(["BROKER_URL"])?;
    let router = Router::new().on("greet", hello);
    Worker::new(connect(&broker).await?)
        .topic("hello")
        .group("hello")
        .serve(router)
        .await?;
    Ok(())
}

async fn hello(Json(ada): Json<Greet>) -> Json<Howdy> {
    Json(greet(ada))
}
