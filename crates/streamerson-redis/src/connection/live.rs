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

/// A request of which nothing was offered to a socket yet.
pub(super) struct Outgoing {
    chunks: Vec<Bytes>,
    replies: usize,
    answer: oneshot::Sender<Result<Answer>>,
    pub(super) give_up: Instant,
}

impl Outgoing {
    pub(super) fn new(
        chunks: Vec<Bytes>,
        replies: usize,
        give_up: Instant,
    ) -> (Outgoing, oneshot::Receiver<Result<Answer>>) {
        let (answer, receiver) = oneshot::channel();
        let outgoing = Outgoing {
            chunks,
            replies,
            answer,
            give_up,
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

/// A connected socket with the requests offered to it and not yet answered.
pub(super) struct Live {
    socket: Socket,
    /// Of requests in flight, what the socket has not taken yet.
    writing: VecDeque<Bytes>,
    arrived: BytesMut,
    in_flight: VecDeque<InFlight>,
    /// Redis has refused a write because it is a replica: what is new goes to the next connection, which may lead to
    /// the primary.
    demoted: bool,
    /// When something was last written or read.
    pub(super) progress: Instant,
}

impl Live {
    pub(super) fn new(socket: Socket) -> Live {
        Live {
            socket,
            writing: VecDeque::new(),
            arrived: BytesMut::new(),
            in_flight: VecDeque::new(),
            demoted: false,
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
            self.demoted |= bytes.starts_with(b"-READONLY");
            if let Some(done) = self.in_flight.pop_front() {
                let _ = done.answer.send(Ok(Answer::whole(bytes)));
            }
        }
        if self.demoted {
            return Err(io::Error::other("it is a replica"));
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
        loop {
            self.begin(unsent);
            if self.writing.is_empty() {
                break;
            }
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.writing) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            match Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..used]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.written(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Whether there is more to write.
    pub(super) fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// Moves on what is to be offered to the socket next. From here on it must not be repeated, and its replies may
    /// come, the first of them before all of it is written.
    fn begin(&mut self, unsent: &mut VecDeque<Outgoing>) {
        while self.writing.len() < MOST_SLICES && !self.demoted {
            let Some(request) = unsent.pop_front() else {
                return;
            };
            self.writing.extend(request.chunks);
            self.in_flight.push_back(InFlight {
                scan: Scan::of(request.replies),
                answer: request.answer,
            });
        }
    }

    fn written(&mut self, mut bytes: usize) {
        self.progress = Instant::now();
        while let Some(chunk) = self.writing.front_mut() {
            if bytes < chunk.len() {
                return chunk.advance(bytes);
            }
            bytes -= chunk.len();
            self.writing.pop_front();
        }
    }

    /// The connection is lost: every request in flight gets what arrived of its answer, and `lost` for the rest.
    pub(super) fn abandon(self, lost: &Error) {
        let mut arrived = self.arrived.freeze();
        for waiting in self.in_flight {
            let bytes = std::mem::take(&mut arrived);
            let _ = waiting
                .answer
                .send(Ok(Answer::partial(bytes, lost.clone())));
        }
    }
}

fn unexpected() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it sent what is not the Redis protocol",
    )
}
