//! One client's connection: reads what there is, runs all complete commands, writes all answers, and begins again.

use std::io;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::arguments::Arguments;
use super::commands::{self, Appends, Command};
use super::reply::{Output, Reply};
use super::request::{Decoder, Request};
use super::session::Session;

/// Commands run before their answers are written.
const BATCH: usize = 1024;
/// Answers are written when they reach this size, also in the middle of a batch.
const WRITE_AT: usize = 1024 * 1024;
/// Room for reading; large arguments get more as they arrive.
const READ: usize = 16 * 1024;
const READ_MOST: usize = 1024 * 1024;
/// What a client may send while it is blocked; more waits in its socket.
const BEHIND: usize = 1024 * 1024;
/// Tells of the end, and not of more to read. Elsewhere than on Linux only a connection that is reset is seen.
#[cfg(any(target_os = "linux", target_os = "android"))]
const END: Interest = Interest::PRIORITY.add(Interest::ERROR);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const END: Interest = Interest::ERROR;
/// Strangers must say the password within this time.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// A silent client is asked whether it is still there after this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// One client's connection.
pub(super) struct Connection {
    stream: TcpStream,
    session: Session,
    decoder: Decoder,
    input: BytesMut,
    output: Output,
    appends: Appends,
    since: Instant,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, session: Session) -> Connection {
        Connection {
            stream,
            session,
            decoder: Decoder::default(),
            input: BytesMut::new(),
            output: Output::default(),
            appends: Appends::default(),
            since: Instant::now(),
        }
    }

    /// Serves the client until it leaves, or the port shuts down.
    pub(super) async fn run(mut self) {
        let served = match settings(&self.stream) {
            Ok(()) => self.serve().await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::debug!(client = self.session.id(), %error, "redis port: connection ended");
        }
    }

    async fn serve(&mut self) -> io::Result<()> {
        loop {
            let (requests, malformed) = self.decode();
            let full = requests.len() >= self.batch();
            self.execute(requests).await?;
            if let Some(complaint) = malformed {
                self.answer(&Reply::Error(
                    format!("ERR Protocol error: {complaint}").into(),
                ));
                self.session.close();
            }
            self.write().await?;
            if self.session.is_closing() || self.output.is_cut() {
                return self.stream.shutdown().await;
            }
            if !full && self.read().await? == 0 {
                return Ok(());
            }
        }
    }

    /// One by one before the password was said, as it decides how much a client may send.
    fn batch(&self) -> usize {
        match self.session.is_trusted() {
            true => BATCH,
            false => 1,
        }
    }

    fn decode(&mut self) -> (Vec<Request>, Option<String>) {
        let limits = self.session.limits();
        let mut requests = Vec::new();
        while requests.len() < self.batch() {
            match self.decoder.decode(&mut self.input, &limits) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(complaint) => return (requests, Some(complaint)),
            }
        }
        (requests, None)
    }

    /// Runs commands in order. Appends that follow each other are stored together, and share one commit.
    async fn execute(&mut self, requests: Vec<Request>) -> io::Result<()> {
        for request in requests {
            match commands::find(&mut self.session, request) {
                Ok((command, arguments)) if command.is_append() => {
                    self.appends.add(&self.session, arguments);
                    continue;
                }
                Ok((command, arguments)) => {
                    self.store().await;
                    if self.output.is_cut() {
                        break;
                    }
                    let reply = self.call(command, arguments).await?;
                    self.answer(&reply);
                }
                Err(failure) => {
                    self.store().await;
                    self.answer(&failure.reply());
                }
            }
            if self.session.is_closing() || self.output.is_cut() {
                break;
            }
            if self.output.len() >= WRITE_AT {
                self.write().await?;
            }
        }
        self.store().await;
        Ok(())
    }

    /// Answers in the protocol that the client speaks by now: `HELLO` is answered in the new one.
    fn answer(&mut self, reply: &Reply) {
        self.output.push(reply, self.session.protocol());
    }

    /// Stores the appends so far: whatever comes after them must see them.
    async fn store(&mut self) {
        if self.appends.is_empty() {
            return;
        }
        for reply in self.appends.store(self.session.engine()).await {
            self.answer(&reply);
        }
    }

    async fn call(&mut self, command: &Command, arguments: Arguments) -> io::Result<Reply> {
        if !command.may_wait(&arguments) {
            return Ok(command.call(&mut self.session, arguments).await);
        }
        // What was answered before must not wait with it.
        self.write().await?;
        let ended = self.session.ended();
        let call = command.call(&mut self.session, arguments);
        tokio::pin!(call);
        tokio::select! {
            biased;
            reply = &mut call => return Ok(reply),
            () = hangup(&mut self.stream, &mut self.input) => ended.cancel(),
        }
        // Ends by itself now. It must not be dropped: what it has been granted would be lost until its lease ends.
        Ok(call.await)
    }

    async fn write(&mut self) -> io::Result<()> {
        let stall = self.session.shared().options.stall;
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 32];
            let count = self.output.pieces(&mut slices);
            let write = self.stream.write_vectored(&slices[..count]);
            let written = tokio::time::timeout(stall, write).await??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.output.written(written);
        }
        Ok(())
    }

    /// Reads what there is; 0 at the end.
    async fn read(&mut self) -> io::Result<usize> {
        let wanted = self.decoder.wanted(self.input.len());
        make_room(&mut self.input, wanted);
        let ended = self.session.ended();
        let patience = self.patience();
        let patience = async {
            match patience {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            read = self.stream.read_buf(&mut self.input) => read,
            () = ended.cancelled() => Ok(0),
            () = patience => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Until when the client may stay silent.
    fn patience(&self) -> Option<Instant> {
        let options = &self.session.shared().options;
        if !self.session.is_trusted() {
            return Some(self.since + INTRODUCTION);
        }
        let amidst = !self.input.is_empty() || self.decoder.is_amidst();
        let limit = if amidst {
            Some(options.stall)
        } else {
            options.idle
        };
        limit.map(|limit| Instant::now() + limit)
    }
}

fn settings(stream: &TcpStream) -> io::Result<()> {
    // Answers are written whole, so there is nothing to be gained by waiting for more.
    stream.set_nodelay(true)?;
    // A client whose machine vanished says no goodbye, and must not keep its place and its deliveries.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Completes when the client hangs up. What it sends meanwhile is kept for later.
async fn hangup(stream: &mut TcpStream, input: &mut BytesMut) {
    loop {
        if input.len() >= BEHIND {
            // The end comes behind what was sent: while that is more than the socket holds, only the silence of the machine
            // it came from tells.
            let _ = stream.ready(END).await;
            return;
        }
        make_room(input, 0);
        match stream.read_buf(input).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Makes room in the read buffer: for all of an argument that has begun to arrive, but never for much more than has
/// arrived, because an announcement alone must cost nothing.
fn make_room(input: &mut BytesMut, wanted: usize) {
    let spare = input.capacity() - input.len();
    let room = wanted.min(input.len().clamp(READ, READ_MOST));
    if spare < room.max(READ / 4) {
        input.reserve(room.max(READ));
    }
}
