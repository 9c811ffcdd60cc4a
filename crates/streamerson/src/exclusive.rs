//! The lease of something that one at a time has: taken, kept for as long as it is needed, and left.

use std::sync::Arc;
use std::time::Duration;

use streamerson_core::{Broker, ErrorKind, Name, Result, Topic};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

/// Added to the time a lease has left, so that it has ended for sure.
const MARGIN: Duration = Duration::from_millis(20);

/// What one at a time may have.
#[derive(Debug, Clone)]
pub(crate) struct Exclusive {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) topic: Topic,
    /// The name of the lease.
    pub(crate) name: Name,
    pub(crate) holder: Name,
    pub(crate) lease: Duration,
}

/// Who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// We have, at this epoch.
    Ours(u64),
    /// Somebody else has. After this time it is free, unless its holder renews it.
    Theirs(Duration),
}

impl Exclusive {
    /// Takes it if it is free; waits for the broker when it is away.
    pub(crate) async fn take(&self) -> Result<Taken> {
        let mut backoff = Backoff::new();
        loop {
            match self.acquire().await {
                Err(error)
                    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) =>
                {
                    tracing::warn!(topic = %self.topic, lease = %self.name, %error, "the lease cannot be taken at the moment");
                    backoff.wait().await;
                }
                taken => return taken,
            }
        }
    }

    /// Keeps it for as long as this runs; cancels `lost` when somebody else has it.
    pub(crate) async fn keep(self, lost: CancellationToken) {
        loop {
            tokio::time::sleep(self.lease / 3).await;
            match self.acquire().await {
                Ok(Taken::Ours(_)) => (),
                Ok(Taken::Theirs(_)) => return lost.cancel(),
                Err(error) => {
                    tracing::warn!(topic = %self.topic, lease = %self.name, %error, "the lease cannot be kept at the moment");
                }
            }
        }
    }

    /// Leaves it to others, at once.
    pub(crate) async fn leave(&self) -> Result<()> {
        let release = self.broker.release(&self.topic, &self.name, &self.holder);
        release.await.map(drop)
    }

    /// Takes or renews it now.
    pub(crate) async fn acquire(&self) -> Result<Taken> {
        let Exclusive {
            broker,
            topic,
            name,
            holder,
            lease,
        } = self;
        let lease = broker.acquire(topic, name, holder, *lease).await?;
        Ok(match lease.holder == *holder {
            true => Taken::Ours(lease.epoch),
            false => Taken::Theirs(lease.remaining + MARGIN),
        })
    }
}
