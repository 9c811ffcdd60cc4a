//! A worker in a NATS queue group, which answers what `axum-nats` asks.

use futures::StreamExt as _;
use streamerson_bench::{Outcome, arguments, greet};

#[tokio::main]
async fn main() -> Outcome {
    let [nats] = arguments(["NATS_URL"])?;
    let client = async_nats::connect(nats).await?;
    let mut requests = client
        .queue_subscribe("hello.greet", "hello".into())
        .await?;
    while let Some(request) = requests.next().await {
        if let Some(inbox) = request.reply {
            let howdy = greet(serde_json::from_slice(&request.payload)?);
            client
                .publish(inbox, serde_json::to_vec(&howdy)?.into())
                .await?;
        }
    }
    Ok(())
}
