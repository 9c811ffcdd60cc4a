//! Ordered topics: partitions with one owner each, and messages of a key in order.
//!
//! One task per topic owns partitions (`owner`): it keeps their leases (`leases`) and takes and gives up what
//! [`core::ownership`](streamerson_core::ownership) decides. One task per owned partition works on it as any worker does
//! (`partition`), through a member that keeps keys in order (`member`) and knows what its predecessor left (`takeover`).
//! What was sent to the topic as a whole is forwarded to its partitions (`forward`).

mod forward;
mod leases;
mod member;
mod owner;
mod partition;
mod takeover;

use std::convert::Infallible;
use std::sync::Arc;

use streamerson_core::{Broker, Error, ErrorKind, Result, Topic};
use tokio::sync::oneshot;
use tower::Service;

use super::serve::Shared;
use super::stop::Stop;
use crate::backoff::Backoff;
use crate::{Reply, Request};
use leases::OwnerLeases;
use owner::Owner;

/// Serves an ordered topic until `stop`. It is divided into `partitions`, if it is not divided yet. Whoever waits for `joined` is
/// told how that went, and otherwise it is for the worker.
pub(super) async fn serve<S>(
    shared: Arc<Shared>,
    topic: Topic,
    partitions: u32,
    service: S,
    stop: Stop,
    joined: Option<oneshot::Sender<Result<()>>>,
) -> Result<()>
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let prepared = async {
        let leases = OwnerLeases::new(&shared.settings, &topic)?;
        let divided = divide(&*shared.settings.broker, &topic, partitions).await?;
        Ok::<_, Error>((leases, divided))
    };
    let prepared = tokio::select! {
        prepared = prepared => prepared,
        () = stop.asked() => return Ok(()),
    };
    let (leases, divided) = match (prepared, joined) {
        (Ok(prepared), joined) => {
            // Whoever asked may have gone.
            joined.map(|joined| joined.send(Ok(())));
            prepared
        }
        (Err(error), None) => return Err(error),
        (Err(error), Some(joined)) => {
            let _ = joined.send(Err(error));
            return Ok(());
        }
    };
    if divided != partitions {
        tracing::warn!(%topic, asked = partitions, partitions = divided, "the topic is divided otherwise already, and stays so");
    }
    let owner = Owner::new(shared.clone(), topic, divided, leases, service, stop);
    // Handlers that keep the worker's own threads busy must not cost it its partitions.
    let (end, outcome) = oneshot::channel();
    let _owning = shared.heartbeat.spawn(async move {
        let _ = end.send(owner.run().await);
    });
    outcome.await.unwrap_or_else(|_| {
        let detail = "the task that owns the partitions failed; its log has the reason";
        Err(Error::new(ErrorKind::Internal, "worker-panicked", detail))
    })
}

/// Divides the topic, as soon as the broker lets it; answers into how many partitions it is divided.
async fn divide(broker: &dyn Broker, topic: &Topic, partitions: u32) -> Result<u32> {
    let mut backoff = Backoff::new();
    loop {
        match broker.divide(topic, partitions).await {
            Err(error) if is_passing(&error) => {
                tracing::warn!(%topic, %error, "the topic cannot be divided at the moment");
                backoff.wait().await;
            }
            divided => return divided,
        }
    }
}

fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown)
}
