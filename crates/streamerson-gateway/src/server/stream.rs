//! The byte stream of a connection: it tells the pace, and closes without cutting off the last answer.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::watch::Watch;

/// How long a client may go on sending a request that was refused, so that it gets to read why.
const LINGER: Duration = Duration::from_secs(2);
/// How much it may send meanwhile.
const LINGER_BYTES: usize = 64 << 20;

/// Answers up to this size are written in one piece.
const SMALL: usize = 1024;

/// A stream that is watched.
pub(super) struct WatchedStream<S> {
    inner: S,
    watch: Arc<Watch>,
    closing: Option<Lingering>,
}

/// The write side is closed; what still comes in is discarded. Closing the read side as well would make the system
/// answer it with a reset, which can overtake the answer.
struct Lingering {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> WatchedStream<S> {
    pub(super) fn new(inner: S, watch: Arc<Watch>) -> WatchedStream<S> {
        WatchedStream {
            inner,
            watch,
            closing: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.watch.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, data))?;
        self.watch.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|part| part.len()).sum();
        let mut joined = [0; SMALL];
        let written = match joined.get_mut(..length) {
            // One copy costs less than what the system does to gather the parts.
            Some(joined) => {
                let mut rest = &mut joined[..];
                for part in data {
                    let (to, after) = rest.split_at_mut(part.len());
                    to.copy_from_slice(part);
                    rest = after;
                }
                ready!(Pin::new(&mut self.inner).poll_write(cx, joined))?
            }
            None => ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, data))?,
        };
        self.watch.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if !this.watch.refused_a_body() {
                return Poll::Ready(Ok(()));
            }
        }
        let lingering = this.closing.get_or_insert_with(|| Lingering {
            until: Box::pin(sleep(LINGER)),
            left: LINGER_BYTES,
        });
        lingering.poll(&mut this.inner, cx).map(Ok)
    }
}

impl Lingering {
    fn poll(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [MaybeUninit::uninit(); 8 << 10];
        while self.left > 0 && self.until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buffer.filled().len());
                }
                // The client has closed too, or is gone.
                _ => break,
            }
        }
        Poll::Ready(())
    }
}
