//! Divided topics, and workers that work on them as a whole: nothing of what is sent to the partitions comes to them, so
//! that they must not go on as if all were well.

use std::time::Duration;

use streamerson_core::{Broker, Error, ErrorKind, Result, Topic};

/// The longest time between two looks: within this time producers learn of a division too.
const LOOK: Duration = Duration::from_secs(10);

/// Refuses a topic that is divided.
pub(super) async fn check(broker: &dyn Broker, topic: &Topic) -> Result<()> {
    match broker.partitions(topic).await? {
        0 => Ok(()),
        partitions => Err(refusal(topic, partitions)),
    }
}

/// Waits until `topic` is divided, and answers the refusal then. Looks once a lease: one small call.
pub(super) async fn later(broker: &dyn Broker, topic: &Topic, lease: Duration) -> Error {
    loop {
        tokio::time::sleep(lease.min(LOOK)).await;
        // A broker that cannot be asked now is asked again.
        if let Ok(partitions @ 1..) = broker.partitions(topic).await {
            return refusal(topic, partitions);
        }
    }
}

fn refusal(topic: &Topic, partitions: u32) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "topic-divided",
        format!(
            "{topic} is divided into {partitions} partitions, and who works on it as a whole gets nothing of what is sent there: \
             use .ordered_topic(\"{topic}\", {partitions})"
        ),
    )
}
