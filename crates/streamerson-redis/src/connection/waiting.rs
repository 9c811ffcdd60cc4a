//! A connection for reads that wait. It belongs to one reader, because on a shared one everything behind the read
//! would wait too.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::poll;
use streamerson_core::{ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::socket::Socket;
use super::{Commands, Connector, PATIENCE, Pace};
use crate::error::{self, READ_ONLY};
use crate::wire::{Item, Request, Scan, Walk};

/// How long Redis holds a read for which there is nothing. Long, because each expiry costs a round trip.
const HOLD: Duration = Duration::from_secs(10);
/// What an answer may take beyond that.
const GRACE: Duration = Duration::from_secs(5);
/// How long an answer to a read that was called back may take before it is called back again.
const RECALL: Duration = Duration::from_millis(20);
const RECALLS: usize = 10;
const READ_AHEAD: usize = 64 * 1024;

/// The one reply to a read.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) walk: Walk,
    /// Redis had not answered before this.
    pub(crate) since: Instant,
}

/// Asks, waits, and connects again. Every future here is safe to cancel: what was asked stays asked, and its answer
/// is what the next call answers.
pub(crate) struct Waiting {
    connector: Arc<Connector>,
    pace: Pace,
    line: Option<Line>,
}

impl Waiting {
    pub(crate) fn new(connector: Arc<Connector>) -> Waiting {
        Waiting {
            connector,
            pace: Pace::new(),
            line: None,
        }
    }

    /// Milliseconds for BLOCK.
    pub(crate) fn hold() -> u64 {
        HOLD.as_millis() as u64
    }

    /// Connects, so that what is wrong with the connection is known at once.
    pub(crate) async fn connect(&mut self) -> Result<()> {
        let (socket, id) = self.connector.open_known().await?;
        self.line = Some(Line::new(socket, id));
        Ok(())
    }

    /// Whether an answer is due.
    pub(crate) fn is_asked(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.asked.is_some())
    }

    /// The answer to what was asked before, or to `command`. `command` must bear being asked again when the connection
    /// is lost. A refusal `about` the command slows the next call down, so that no caller spins.
    pub(crate) async fn ask(
        &mut self,
        about: &str,
        command: impl Fn() -> Request,
    ) -> Result<Arrival> {
        let mut give_up = Instant::now() + PATIENCE;
        loop {
            let line = self.line(give_up).await?;
            if line.asked.is_none() {
                line.send(command());
            }
            match line.answer().await {
                Ok((bytes, since)) => return self.judge(about, bytes, since),
                Err(reason) => {
                    self.line = None;
                    self.pace.failed();
                    give_up = Instant::now() + PATIENCE;
                    tracing::warn!(broker = %self.connector.target(), %reason, "connection of a reader lost");
                }
            }
        }
    }

    /// Ends the read that waits, through another connection, and answers what it was given until then. `None`: nothing waits, or it
    /// goes on waiting, because this Redis does not let us.
    pub(crate) async fn recall(
        &mut self,
        commands: &Commands,
        about: &str,
    ) -> Option<Result<Arrival>> {
        let line = self.line.as_mut().filter(|line| line.asked.is_some())?;
        let id = line.id?.to_string();
        for _ in 0..RECALLS {
            let unblock = Request::of(&["CLIENT", "UNBLOCK", &id]);
            let mut told = commands.call(unblock, 1).await.ok()?;
            told.next("CLIENT UNBLOCK").ok()?;
            // It may have been too early: the read was still on its way.
            match timeout(RECALL, line.answer()).await {
                Ok(Ok((bytes, since))) => return Some(self.judge(about, bytes, since)),
                Ok(Err(_)) => {
                    self.line = None;
                    return None;
                }
                Err(_) => continue,
            }
        }
        None
    }

    /// Closes, and waits until Redis has noticed: what it gave out before then has been given out.
    pub(crate) async fn close(mut self) {
        if let Some(mut line) = self.line.take() {
            let farewell = async {
                line.socket.shutdown().await?;
                while line.socket.read_buf(&mut line.arrived).await? > 0 {
                    line.arrived.clear();
                }
                io::Result::Ok(())
            };
            let _ = timeout(PATIENCE, farewell).await;
        }
    }

    async fn line(&mut self, give_up: Instant) -> Result<&mut Line> {
        // What is already asked needs no pause: its answer may be here.
        if !self.is_asked() && self.pace.not_before() > Instant::now() {
            sleep_until(self.pace.not_before()).await;
        }
        while self.line.is_none() {
            match self.connector.open_known().await {
                Ok((socket, id)) => self.line = Some(Line::new(socket, id)),
                Err(error) => {
                    let next = self.pace.failed();
                    if error.kind() != ErrorKind::Unavailable || next >= give_up {
                        return Err(error);
                    }
                    sleep_until(next).await;
                }
            }
        }
        self.line
            .as_mut()
            .ok_or_else(|| error::unreachable(self.connector.target(), "it was closed"))
    }

    fn judge(&mut self, about: &str, bytes: Bytes, since: Instant) -> Result<Arrival> {
        let walk = Walk::new(bytes);
        if let Ok(Item::Error(refusal)) = walk.clone().item() {
            self.pace.failed();
            let error = error::refused(&refusal, about);
            if error.code() == READ_ONLY {
                self.line = None;
            }
            return Err(error);
        }
        self.pace.succeeded();
        Ok(Arrival { walk, since })
    }
}

struct Line {
    socket: Socket,
    /// The number by which Redis knows this connection.
    id: Option<u64>,
    unsent: VecDeque<Bytes>,
    arrived: BytesMut,
    asked: Option<Asked>,
}

struct Asked {
    scan: Scan,
    since: Instant,
    due: Instant,
    extended: bool,
}

impl Line {
    fn new(socket: Socket, id: Option<u64>) -> Line {
        Line {
            socket,
            id,
            unsent: VecDeque::new(),
            arrived: BytesMut::new(),
            asked: None,
        }
    }

    fn send(&mut self, request: Request) {
        let now = Instant::now();
        self.unsent = request.into_chunks().into();
        self.asked = Some(Asked {
            scan: Scan::of(1),
            since: now,
            due: now + HOLD + GRACE,
            extended: false,
        });
    }

    async fn answer(&mut self) -> io::Result<(Bytes, Instant)> {
        let Line {
            socket,
            unsent,
            arrived,
            asked,
            ..
        } = self;
        let Some(waiting) = asked else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        while let Some(chunk) = unsent.front_mut() {
            let written = socket.write(chunk).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            chunk.advance(written);
            if chunk.is_empty() {
                unsent.pop_front();
            }
        }
        socket.flush().await?;
        // Whoever comes back late after a cancelled call gets the chance to read what came meanwhile. Once: calls that are
        // cancelled again and again must not keep a dead connection.
        let now = Instant::now();
        if waiting.due <= now && !waiting.extended {
            waiting.due = now + PATIENCE;
            waiting.extended = true;
        }
        loop {
            let complete = waiting.scan.advance(arrived);
            if let Some(end) = complete.map_err(|_| io::ErrorKind::InvalidData)? {
                let since = waiting.since;
                *asked = None;
                return Ok((arrived.split_to(end).freeze(), since));
            }
            let begins = arrived.is_empty();
            arrived.reserve(waiting.scan.wanting().clamp(READ_AHEAD, 64 * READ_AHEAD));
            let mut reading = std::pin::pin!(socket.read_buf(arrived));
            let read = match poll!(reading.as_mut()) {
                std::task::Poll::Ready(read) => read,
                std::task::Poll::Pending => {
                    if begins {
                        waiting.since = Instant::now();
                    }
                    let read = timeout_at(waiting.due, reading).await?;
                    if begins {
                        waiting.since = Instant::now();
                    }
                    read
                }
            };
            if read? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
