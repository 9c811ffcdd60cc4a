//! One topic, read in order.

use std::sync::Arc;

use futures::future::BoxFuture;
use streamerson_core::{Broker, Entry, Error, ErrorKind, Position, Reader, Result, Start, Topic};

use crate::backoff::Backoff;

/// The most entries taken at once.
const BATCH: usize = 256;

/// One topic being read.
pub(super) struct Source {
    pub(super) topic: Topic,
    broker: Arc<dyn Broker>,
    /// Up to here it has been read.
    after: Position,
    reader: Option<Box<dyn Reader>>,
}

impl Source {
    /// Begins after a position.
    pub(super) fn new(broker: Arc<dyn Broker>, topic: Topic, after: Position) -> Source {
        Source {
            topic,
            broker,
            after,
            reader: None,
        }
    }

    /// The next entries; waits for them, and for the broker when it is away. Safe to cancel.
    pub(super) async fn read(&mut self) -> Result<Vec<Entry>> {
        let Source {
            topic,
            broker,
            after,
            reader,
        } = self;
        let mut backoff = Backoff::new();
        let entries = loop {
            let read = match reader {
                Some(reader) => reader.next(BATCH).await,
                None => match broker.read(topic, Start::After(*after)).await {
                    Ok(opened) => reader.insert(opened).next(BATCH).await,
                    Err(error) => Err(error),
                },
            };
            match read {
                Err(error) if is_away(&error) => wait(topic, &error, &mut backoff).await,
                read => break read?,
            }
        };
        self.seen(entries)
    }

    /// The next entries up to `end`; none when there is no more.
    pub(super) async fn rest(&mut self, end: Position) -> Result<Vec<Entry>> {
        let Source {
            topic,
            broker,
            after,
            ..
        } = self;
        let range = patiently(topic, || broker.range(topic, *after, BATCH));
        let mut entries = range.await?;
        entries.retain(|entry| entry.position <= end);
        self.seen(entries)
    }

    fn seen(&mut self, entries: Vec<Entry>) -> Result<Vec<Entry>> {
        if let Some(last) = entries.last() {
            self.after = last.position;
        }
        Ok(entries)
    }
}

/// What the broker answers about `topic`, as soon as it is there.
pub(super) async fn patiently<'a, T>(
    topic: &Topic,
    ask: impl Fn() -> BoxFuture<'a, Result<T>>,
) -> Result<T> {
    let mut backoff = Backoff::new();
    loop {
        match ask().await {
            Err(error) if is_away(&error) => wait(topic, &error, &mut backoff).await,
            answer => return answer,
        }
    }
}

async fn wait(topic: &Topic, error: &Error, backoff: &mut Backoff) {
    tracing::warn!(%topic, %error, "the topic cannot be read at the moment");
    backoff.wait().await;
}

/// Whether to ask again after `error`.
pub(super) fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown)
}
