//! Keeps topics bounded: what was processed long ago goes.

use std::sync::Arc;
use std::time::Duration;

use streamerson_core::retention::Retention;
use streamerson_core::{Broker, Topic};

use super::stats::{Counters, WorkerStats};

const PERIOD: Duration = Duration::from_secs(30);

/// Trims `topic` now and then, for as long as it runs.
pub(super) async fn run(
    broker: Arc<dyn Broker>,
    topic: Topic,
    retention: Retention,
    counters: Counters,
) {
    loop {
        // Spread over the period, so that the workers of a fleet do not trim all at once.
        tokio::time::sleep(PERIOD.mul_f64(0.5 + rand::random::<f64>())).await;
        match broker.trim(&topic, retention).await {
            Ok(trimmed) => {
                if trimmed.lost > 0 {
                    tracing::error!(%topic, lost = trimmed.lost, "the retention removed messages that a group had not processed");
                }
                counters.add(&WorkerStats {
                    trimmed: trimmed.removed,
                    ..WorkerStats::default()
                });
            }
            Err(error) => {
                tracing::warn!(%topic, %error, "the topic cannot be trimmed at the moment")
            }
        }
    }
}
