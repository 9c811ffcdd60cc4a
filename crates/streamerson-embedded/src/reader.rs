//! Readers: everything in one topic, in order. The owner of an inbox reads it with one, too.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{Entry, Position, Reader, Result, Start, Topic};
use tokio::sync::Notify;

use crate::engine::{Body, Direction, Engine};

/// Entries looked at in one go, whatever is asked for.
const MOST: usize = 10_000;

/// Bytes answered in one go, apart from the last entry.
const BYTES: usize = 8 << 20;

type Found = Vec<(Position, Option<Body>)>;

type Pending = BoxFuture<'static, Result<Found>>;

/// Sees everything in one topic.
pub(crate) struct EmbeddedReader {
    engine: Engine,
    topic: Topic,
    changed: Arc<Notify>,
    cursor: Position,
    /// Whether it owns the inbox it reads: what it received is dropped, and the inbox goes with it.
    owner: bool,
    /// A read from the log that is under way; kept here so that cancelling loses nothing.
    loading: Option<Pending>,
}

/// What stands after a position, without waiting.
pub(crate) async fn range(
    engine: &Engine,
    topic: &Topic,
    after: Position,
    max: usize,
) -> Result<Vec<Entry>> {
    let (from, to) = (after.successor(0), Position::new(u64::MAX, u64::MAX));
    let found = engine.find(topic, from, to, max.min(MOST), Direction::Forward);
    Ok(entries(found.load(BYTES).await?))
}

fn entries(found: Found) -> Vec<Entry> {
    let entry = |(position, body): (Position, Option<Body>)| {
        let message = body?.into_message();
        Some(Entry { position, message })
    };
    found.into_iter().filter_map(entry).collect()
}

impl EmbeddedReader {
    /// Begins to read `topic` at `start`.
    pub(crate) fn open(engine: Engine, topic: Topic, start: Start, owner: bool) -> EmbeddedReader {
        let cursor = engine.begin_reading(&topic, start);
        EmbeddedReader {
            changed: engine.changed(&topic),
            engine,
            topic,
            cursor,
            owner,
            loading: None,
        }
    }

    fn look(&mut self, max: usize) -> Result<Found, Pending> {
        let from = self.cursor.successor(0);
        let to = Position::new(u64::MAX, u64::MAX);
        let found = self
            .engine
            .find(&self.topic, from, to, max, Direction::Forward);
        match found.is_here() {
            true => Ok(found.here(BYTES)),
            false => Err(found.load(BYTES).boxed()),
        }
    }

    async fn read(&mut self, max: usize) -> Result<Found> {
        loop {
            if let Some(loading) = &mut self.loading {
                let loaded = loading.await;
                self.loading = None;
                return loaded;
            }
            let changed = self.changed.clone();
            let notified = changed.notified();
            tokio::pin!(notified);
            // Registered before looking, so that an append in between is not missed.
            notified.as_mut().enable();
            match self.look(max) {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => notified.await,
                Err(loading) => self.loading = Some(loading),
            }
        }
    }
}

impl Reader for EmbeddedReader {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Entry>>> {
        async move {
            let found = self.read(max.clamp(1, MOST)).await?;
            if let Some((last, _)) = found.last() {
                self.cursor = *last;
                if self.owner {
                    self.engine.received(&self.topic, *last);
                }
            }
            Ok(entries(found))
        }
        .boxed()
    }
}

impl Drop for EmbeddedReader {
    fn drop(&mut self) {
        self.engine.end_reading(&self.topic);
        if self.owner {
            self.engine.close_inbox(&self.topic);
        }
    }
}
