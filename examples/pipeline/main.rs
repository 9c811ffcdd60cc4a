//! A pipeline of three stages, answered to the original caller: check → price → ship.
//!
//! Each stage is a topic with a group of its own, so each scales on its own. A stage that returns `Forward` does not
//! answer; the last one does, and so does any stage that fails. The caller sees one request and one answer.
//!
//! ```sh
//! streamerson dev
//! cargo run -p streamerson-examples --bin pipeline                 # all stages; or one of: check, price, ship
//! curl http://127.0.0.1:8080/checkout/order -d '{"item":"tea","count":3}'
//! ```

mod check;
mod price;
mod ship;

use std::sync::Arc;

use streamerson::core::Broker;
use streamerson::{Error, Router, Worker, connect, shutdown_signal};

async fn run(broker: Arc<dyn Broker>, topic: &str, router: Router) -> Result<(), Error> {
    Worker::new(broker)
        .topic(topic)
        .group("workers")
        .serve(router)
        .with_graceful_shutdown(shutdown_signal())
        .await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("STREAMERSON_BROKER").unwrap_or("redis://127.0.0.1:6380".into());
    let broker = connect(&url).await?;
    let check = || run(broker.clone(), "checkout", check::router());
    let price = || run(broker.clone(), "pricing", price::router());
    let ship = || run(broker.clone(), "shipping", ship::router());
    match std::env::args().nth(1).as_deref() {
        Some("check") => check().await,
        Some("price") => price().await,
        Some("ship") => ship().await,
        _ => tokio::try_join!(check(), price(), ship()).map(|_| ()),
    }
}
