//! One live connection that many requests share: what is to be written, and what is to be answered, in order.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use streamerson_core::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Answer;
use super::socket::Socket;
use crate::wire::Scan;

const READ_AHEAD: usize = 64 * 1024;
const MOST_SLICES: usize = 64;

/// A request on its way to the socket.
pub(super) struct Outgoing {
    chunks: VecDeque<Bytes>,
    replies: usize,
    answer: oneshot::Sender<Result<Answer>>,
    pub(super) give_up: Instant,
    /// Whether the socket may have passed on some of it: from then on it must not be repeated.
    begun: bool,
}

impl Outgoing {
    pub(super) fn new(
        chunks: Vec<Bytes>,
        replies: usize,
        give_up: Instant,
    ) -> (Outgoing, oneshot::Receiver<Result<Answer>>) {
        let (answer, receiver) = oneshot::channel();
        let outgoing = Outgoing {
            chunks: chunks.into(),
            replies,
            answer,
            give_up,
            begun: false,
        };
        (outgoing, receiver)
    }

    pub(super) fn fail(self, error: Error) {
        // The caller may have gone.
        let _ = self.answer.send(Err(error));
    }
}

struct InFlight {
    scan: Scan,
    answer: oneshot::Sender<Result<Answer>>,
}

/// A connected socket with the requests written to it and not yet answered.
pub(super) struct Live {
    socket: Socket,
    arrived: BytesMut,
    in_flight: VecDeque<InFlight>,
    /// When something was last written or read.
    pub(super) progress: Instant,
}

impl Live {
    pub(super) fn new(socket: Socket) -> Live {
        Live {
            socket,
            arrived: BytesMut::new(),
            in_flight: VecDeque::new(),
            progress: Instant::now(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Reads and answers whatever has arrived. Ready only when the connection is of no more use.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            if let Err(error) = self.answer() {
                return Poll::Ready(error);
            }
            let wanting = self.in_flight.front().map_or(0, |next| next.scan.wanting());
            self.arrived
                .reserve(wanting.clamp(READ_AHEAD / 4, 64 * READ_AHEAD));
            match pin!(self.socket.read_buf(&mut self.arrived)).poll(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(_)) => self.progress = Instant::now(),
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn answer(&mut self) -> io::Result<()> {
        while let Some(next) = self.in_flight.front_mut() {
            let complete = next.scan.advance(&self.arrived);
            let Some(end) = complete.map_err(|_| unexpected())? else {
                return Ok(());
            };
            let bytes = self.arrived.split_to(end).freeze();
            if let Some(done) = self.in_flight.pop_front() {
                let _ = done.answer.send(Ok(Answer::whole(bytes)));
            }
        }
        // With nothing in flight, nothing may arrive.
        if self.arrived.is_empty() {
            Ok(())
        } else {
            Err(unexpected())
        }
    }

    /// Writes as much of `unsent` as the socket takes.
    pub(super) fn poll_write(
        &mut self,
        unsent: &mut VecDeque<Outgoing>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !unsent.is_empty() {
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let chunks = unsent.iter().flat_map(|request| &request.chunks);
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(chunks) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            let writing = Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..used]);
            match writing {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.sent(unsent, written),
                Poll::Ready(Err(error)) => {
                    offered(unsent, used);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => break,
            }
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn sent(&mut self, unsent: &mut VecDeque<Outgoing>, mut written: usize) {
        self.progress = Instant::now();
        while let Some(request) = unsent.front_mut() {
            while let Some(chunk) = request.chunks.front_mut() {
                if written < chunk.len() {
                    if written > 0 {
                        request.begun = true;
                        chunk.advance(written);
                    }
                    return;
                }
                written -= chunk.len();
                request.begun = true;
                request.chunks.pop_front();
            }
            if let Some(request) = unsent.pop_front() {
                self.in_flight.push_back(InFlight {
                    scan: Scan::of(request.replies),
                    answer: request.answer,
                });
            }
        }
    }

    /// The connection is lost: every request of which something was written gets what arrived of its answer, and
    /// `lost` for the rest. What was not begun stays in `unsent`.
    pub(super) fn abandon(self, unsent: &mut VecDeque<Outgoing>, lost: &Error) {
        let mut arrived = self.arrived.freeze();
        for waiting in self.in_flight {
            let bytes = std::mem::take(&mut arrived);
            let _ = waiting
                .answer
                .send(Ok(Answer::partial(bytes, lost.clone())));
        }
        while unsent.front().is_some_and(|request| request.begun) {
            if let Some(request) = unsent.pop_front() {
                request.fail(lost.clone());
            }
        }
    }
}

/// What the first `chunks` chunks belong to may have left, even though the socket failed: TLS sends what it can.
fn offered(unsent: &mut VecDeque<Outgoing>, mut chunks: usize) {
    for request in unsent {
        if chunks == 0 {
            return;
        }
        request.begun = true;
        chunks = chunks.saturating_sub(request.chunks.len());
    }
}

fn unexpected() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it sent what is not the Redis protocol",
    )
}
