//! Reads the answers.

use std::sync::Arc;

use streamerson_core::{Message, Reader};
use tokio_util::sync::CancellationToken;

use super::replies::Replies;
use crate::backoff::Backoff;

/// The most answers taken at once. Every one wakes a task; the run queue of a Tokio thread has 256 places, and what does not
/// fit goes to a queue that is looked at so rarely that those callers would wait for a hundred times as long as others.
const BATCH: usize = 128;

/// Hands every answer to who waits for it, until `stop`. When the broker is away, requests in flight keep waiting, until their deadlines.
pub(super) async fn run(
    mut reader: Box<dyn Reader>,
    replies: Arc<Replies>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new();
    loop {
        let entries = tokio::select! {
            entries = reader.next(BATCH) => entries,
            () = stop.cancelled() => return,
        };
        match entries {
            Ok(entries) => {
                backoff.reset();
                let total = entries.len();
                let messages: Vec<Message> = entries
                    .into_iter()
                    .filter_map(|entry| entry.message.ok())
                    .collect();
                // What is not a message can be nobody's answer.
                replies.counters.late.add(total - messages.len());
                replies.complete(messages);
                if total == BATCH {
                    // More is waiting: those who were just woken go first.
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "answers cannot be read at the moment");
                tokio::select! {
                    () = backoff.wait() => (),
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}
