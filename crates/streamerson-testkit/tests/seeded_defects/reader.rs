//! A reader, broken in one way.

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::retention::Retention;
use streamerson_core::{Broker, Entry, Reader, Result, Start, Topic};

use crate::broker::Broken;
use crate::defect::Defect;

pub(crate) struct BrokenReader {
    broker: Broken,
    topic: Topic,
    /// Absent until the first wait, where that is the defect.
    inner: Option<Box<dyn Reader>>,
}

impl BrokenReader {
    pub(crate) fn new(
        broker: Broken,
        topic: Topic,
        inner: Option<Box<dyn Reader>>,
    ) -> BrokenReader {
        BrokenReader {
            broker,
            topic,
            inner,
        }
    }

    async fn next_badly(&mut self, max: usize) -> Result<Vec<Entry>> {
        let Broken {
            inner: broker,
            defect,
            connection,
            ..
        } = &self.broker;
        let reader = match &mut self.inner {
            Some(reader) => reader,
            none => none.insert(broker.read(&self.topic, Start::Latest).await?),
        };
        let max = match defect {
            Defect::MaxIsIgnored => 1000,
            _ => max,
        };
        let _shared = match defect {
            Defect::WaitersShareAConnection => Some(connection.lock().await),
            _ => None,
        };
        let mut entries = match defect {
            Defect::ReadersDoNotWake => match reader.next(max).now_or_never() {
                Some(entries) => entries?,
                None => std::future::pending().await,
            },
            _ => reader.next(max).await?,
        };
        match defect {
            Defect::ReadersSkip if entries.len() > 1 => {
                entries.remove(1);
            }
            Defect::ReadingConsumes => {
                let everything = Retention {
                    max_len: Some(0),
                    force: true,
                    ..Retention::default()
                };
                broker.trim(&self.topic, everything).await?;
            }
            // What was taken is lost when the wait ends here.
            Defect::CancellingLoses => tokio::task::yield_now().await,
            Defect::RepliesAreReversed if self.topic.is_inbox() => entries.reverse(),
            _ => {}
        }
        Ok(entries)
    }
}

impl Reader for BrokenReader {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Entry>>> {
        self.next_badly(max).boxed()
    }
}
