//! What a consumer sees, as a stream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::future::{BoxFuture, FutureExt, select_all};
use futures::stream::{FuturesUnordered, StreamExt};
use streamerson_core::{Entry, Error, Position, Result, Topic};

use super::Received;
use super::cursor::Cursor;
use super::source::{Source, is_away};
use crate::backoff::Backoff;

/// Everything in the topics of a [`Consumer`](super::Consumer), as a `Stream` or with [`next`](Entries::next).
///
/// While the broker is away it waits and tries again. An error is one that ends it.
pub struct Entries {
    reading: FuturesUnordered<BoxFuture<'static, Batch>>,
    ready: VecDeque<Received>,
    /// The topic that `ready` is of.
    current: usize,
    tracks: Vec<Track>,
    lost: Option<BoxFuture<'static, Error>>,
    ended: bool,
}

/// How far a topic is.
struct Track {
    topic: Topic,
    /// The position handed out last.
    seen: Option<Position>,
    cursor: Option<Cursor>,
}

/// What a source has read.
struct Batch {
    index: usize,
    source: Source,
    read: Result<Vec<Entry>>,
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topics = self.tracks.iter().map(|track| &track.topic);
        f.debug_list().entries(topics).finish()
    }
}

impl Entries {
    pub(super) fn new(sources: Vec<(Source, Option<Cursor>)>) -> Entries {
        let reading = FuturesUnordered::new();
        let mut tracks = Vec::with_capacity(sources.len());
        let mut lost = Vec::new();
        for (index, (source, cursor)) in sources.into_iter().enumerate() {
            lost.extend(cursor.as_ref().map(|cursor| cursor.lost().boxed()));
            tracks.push(Track {
                topic: source.topic.clone(),
                seen: None,
                cursor,
            });
            reading.push(read(index, source));
        }
        let lost = (!lost.is_empty()).then(|| {
            let first = select_all(lost);
            async move { first.await.0 }.boxed()
        });
        Entries {
            reading,
            ready: VecDeque::new(),
            current: 0,
            tracks,
            lost,
            ended: false,
        }
    }

    /// The next entry; waits for it. `None` only after an error. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Received>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Everything handed out so far is handled: a consumer with the same [`cursor`](super::Consumer::cursor) goes on after
    /// it. Without a cursor it does nothing.
    ///
    /// Fails with [`Fenced`](crate::core::ErrorKind::Fenced) when another consumer has the cursor. After a failure of another kind it can
    /// be asked again. Safe to cancel.
    pub async fn commit(&mut self) -> Result<()> {
        for track in &mut self.tracks {
            if let (Some(seen), Some(cursor)) = (track.seen, &mut track.cursor) {
                cursor.commit(seen).await?;
            }
        }
        Ok(())
    }

    /// Hands every entry to `handler`, one after the other, and commits whenever it has caught up with what was read
    /// together. Ends with the first failure, also of the handler, and [closes](Entries::close); what was not committed
    /// comes again then. Dropped, it ends as a crash would end it.
    ///
    /// ```
    /// use streamerson::core::Start;
    /// use streamerson::{Client, Consumer, Error, connect};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> streamerson::Result<()> {
    /// let broker = connect("memory:").await?;
    /// Client::open(broker.clone()).await?.send("orders", "order.created").json(&7).await?;
    ///
    /// let consumer = Consumer::new(broker).topic("orders").start(Start::Earliest).cursor("projection");
    /// let ended: Result<(), Error> = consumer.open().await?.for_each(async |received| {
    ///     let message = received.message.map_err(|foreign| Error::invalid("foreign", foreign.reason))?;
    ///     assert_eq!(&message.data[..], b"7");
    ///     Err(Error::closed("seen enough"))
    /// }).await;
    /// assert!(ended.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn for_each<E: From<Error>>(
        mut self,
        handler: impl AsyncFnMut(Received) -> Result<(), E>,
    ) -> Result<(), E> {
        let ended = self.drive(handler).await;
        if let Err(error) = self.close().await {
            tracing::warn!(%error, "the cursor could not be left in order");
        }
        ended
    }

    async fn drive<E: From<Error>>(
        &mut self,
        mut handler: impl AsyncFnMut(Received) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(received) = self.next().await {
            handler(received?).await?;
            if self.ready.is_empty() {
                self.commit_patiently().await?;
            }
        }
        Ok(())
    }

    async fn commit_patiently(&mut self) -> Result<()> {
        let mut backoff = Backoff::new();
        loop {
            match self.commit().await {
                Err(error) if is_away(&error) => {
                    tracing::warn!(%error, "the cursor cannot be committed at the moment");
                    backoff.wait().await;
                }
                committed => return committed,
            }
        }
    }

    /// Ends, and lets the next consumer have the cursor at once. What was not committed comes again there.
    pub async fn close(self) -> Result<()> {
        for track in self.tracks {
            if let Some(cursor) = track.cursor {
                cursor.leave().await?;
            }
        }
        Ok(())
    }

    fn hand_out(&mut self) -> Option<Received> {
        let received = self.ready.pop_front()?;
        if let Some(track) = self.tracks.get_mut(self.current) {
            track.seen = Some(received.position);
        }
        Some(received)
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        match self.lost.as_mut()?.poll_unpin(cx) {
            Poll::Ready(error) => Some(error),
            Poll::Pending => None,
        }
    }

    fn fill(&mut self, index: usize, source: Source, entries: Vec<Entry>) {
        self.current = index;
        let topic = source.topic.clone();
        self.ready.extend(entries.into_iter().map(|entry| Received {
            topic: topic.clone(),
            position: entry.position,
            message: entry.message,
        }));
        self.reading.push(read(index, source));
    }
}

fn read(index: usize, mut source: Source) -> BoxFuture<'static, Batch> {
    async move {
        let read = source.read().await;
        Batch {
            index,
            source,
            read,
        }
    }
    .boxed()
}

impl Stream for Entries {
    type Item = Result<Received>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(error) = self.poll_lost(cx) {
            self.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            if let Some(received) = self.hand_out() {
                return Poll::Ready(Some(Ok(received)));
            }
            match self.reading.poll_next_unpin(cx) {
                Poll::Ready(Some(Batch {
                    index,
                    source,
                    read: Ok(entries),
                })) => self.fill(index, source, entries),
                Poll::Ready(Some(Batch {
                    read: Err(error), ..
                })) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
