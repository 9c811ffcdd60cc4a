//! Readers of a topic.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use super::shared::{Look, Shared};
use crate::broker::{Entry, Reader};
use crate::{Position, Result, Topic};

pub(super) struct MemoryReader {
    pub(super) shared: Arc<Shared>,
    pub(super) topic: Topic,
    pub(super) cursor: Position,
}

impl Reader for MemoryReader {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Entry>>> {
        async move {
            let cursor = self.cursor;
            let entries = self.shared.wait_for(&self.topic, |state, _| {
                let entries = state.entries_after(cursor, max.max(1));
                Ok(match entries.is_empty() {
                    false => Look::Found(entries),
                    true => Look::Nothing { next: None },
                })
            });
            let entries = entries.await?;
            if let Some(last) = entries.last() {
                self.cursor = last.position;
            }
            Ok(entries)
        }
        .boxed()
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        if self.topic.is_inbox() {
            self.shared.with_all(|topics, _| topics.remove(&self.topic));
        }
    }
}
