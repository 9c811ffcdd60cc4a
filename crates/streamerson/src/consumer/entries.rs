//! What a consumer sees, as a stream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use streamerson_core::{Error, Position, Result, Topic};

use super::Received;
use super::cursor::Cursor;
use super::opening::{Opened, Part};
use super::source::{Source, is_away};
use super::whole::{Read, Whole};
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
    lost: FuturesUnordered<BoxFuture<'static, Error>>,
    ended: bool,
}

/// How far a topic is.
struct Track {
    topic: Topic,
    /// The position handed out last.
    seen: Option<Position>,
    cursor: Option<Cursor>,
    /// There will be no more: it is divided, and its partitions are read.
    ended: bool,
}

/// What is being read.
enum Reading {
    Whole(Box<Whole>),
    Part(Source),
}

/// What was read there.
struct Batch {
    index: usize,
    reading: Reading,
    read: Result<Read>,
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topics = self.tracks.iter().map(|track| &track.topic);
        f.debug_list().entries(topics).finish()
    }
}

impl Entries {
    pub(super) fn new(topics: Vec<Opened>) -> Entries {
        let mut entries = Entries {
            reading: FuturesUnordered::new(),
            ready: VecDeque::new(),
            current: 0,
            tracks: Vec::new(),
            lost: FuturesUnordered::new(),
            ended: false,
        };
        for opened in topics {
            let whole = opened.whole.map(|whole| Reading::Whole(Box::new(whole)));
            entries.begin(opened.topic, opened.cursor, whole);
            entries.begin_parts(opened.parts);
        }
        entries
    }

    fn begin(&mut self, topic: Topic, cursor: Option<Cursor>, reading: Option<Reading>) {
        self.lost
            .extend(cursor.as_ref().map(|cursor| cursor.lost().boxed()));
        let index = self.tracks.len();
        self.tracks.push(Track {
            topic,
            seen: None,
            cursor,
            ended: false,
        });
        self.reading
            .extend(reading.map(|reading| read(index, reading)));
    }

    fn begin_parts(&mut self, parts: Vec<Part>) {
        for Part { source, cursor } in parts {
            let topic = source.topic.clone();
            self.begin(topic, cursor, Some(Reading::Part(source)));
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
            let Some(cursor) = &mut track.cursor else {
                continue;
            };
            if let Some(seen) = track.seen {
                cursor.commit(seen).await?;
            }
            if track.ended {
                // Not before the partitions have cursors of their own: the next consumer goes by that.
                cursor.finish().await?;
                track.seen = None;
                track.ended = false;
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
        match self.lost.poll_next_unpin(cx) {
            Poll::Ready(error) => error,
            Poll::Pending => None,
        }
    }

    fn fill(&mut self, index: usize, reading: Reading, found: Read) {
        match found {
            Read::Entries(entries) => {
                self.current = index;
                let topic = self.tracks[index].topic.clone();
                self.ready.extend(entries.into_iter().map(|entry| Received {
                    topic: topic.clone(),
                    position: entry.position,
                    message: entry.message,
                }));
                self.reading.push(read(index, reading));
            }
            Read::Parts { parts, ended } => {
                self.begin_parts(parts);
                match ended {
                    true => self.tracks[index].ended = true,
                    false => self.reading.push(read(index, reading)),
                }
            }
        }
    }
}

fn read(index: usize, mut reading: Reading) -> BoxFuture<'static, Batch> {
    async move {
        let read = match &mut reading {
            Reading::Whole(whole) => whole.read().await,
            Reading::Part(source) => source.read().await.map(Read::Entries),
        };
        Batch {
            index,
            reading,
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
                Poll::Ready(Some(batch)) => match batch.read {
                    Ok(found) => self.fill(batch.index, batch.reading, found),
                    Err(error) => {
                        self.ended = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
