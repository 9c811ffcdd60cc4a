//! One topic, read in order.

use streamerson_core::{Broker, Entry, Error, ErrorKind, Reader, Result, Start, Topic};

use crate::backoff::Backoff;

/// The most entries taken at once.
const BATCH: usize = 256;

/// One topic being read.
pub(super) struct Source {
    pub(super) topic: Topic,
    reader: Box<dyn Reader>,
}

impl Source {
    /// Begins at `start`; waits for the broker when it is away.
    pub(super) async fn open(broker: &dyn Broker, topic: Topic, start: Start) -> Result<Source> {
        let mut backoff = Backoff::new();
        loop {
            match broker.read(&topic, start).await {
                Err(error) if is_away(&error) => wait(&topic, &error, &mut backoff).await,
                reader => {
                    let reader = reader?;
                    return Ok(Source { topic, reader });
                }
            }
        }
    }

    /// The next entries; waits for them, and for the broker when it is away.
    pub(super) async fn read(&mut self) -> Result<Vec<Entry>> {
        let mut backoff = Backoff::new();
        loop {
            match self.reader.next(BATCH).await {
                Err(error) if is_away(&error) => wait(&self.topic, &error, &mut backoff).await,
                read => return read,
            }
        }
    }
}

/// Whether to ask again after `error`.
pub(super) fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown)
}

async fn wait(topic: &Topic, error: &Error, backoff: &mut Backoff) {
    tracing::warn!(%topic, %error, "the topic cannot be read at the moment");
    backoff.wait().await;
}
