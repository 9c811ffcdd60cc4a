//! Opening a connection: socket, TLS, user, database.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use rustls::ClientConfig;
use streamerson_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Answer;
use super::socket::{self, Socket};
use super::tls;
use crate::error;
use crate::target::{Address, Target};
use crate::wire::{Reply, Request, Scan};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Opens connections to one Redis.
pub(crate) struct Connector {
    target: Target,
    tls: Option<Arc<ClientConfig>>,
    database: Option<String>,
    /// Whether Redis has let us in before.
    was_in: AtomicBool,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

impl Connector {
    pub(crate) fn new(target: Target) -> Result<Connector> {
        let tls = match &target.address {
            Address::Tcp {
                tls: Some(files), ..
            } => Some(tls::configure(files)?),
            _ => None,
        };
        let database = (target.database != 0).then(|| target.database.to_string());
        Ok(Connector {
            target,
            tls,
            database,
            was_in: AtomicBool::new(false),
        })
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// A connection on which Redis answers commands. Nothing but the introduction was sent on it.
    pub(crate) async fn open(&self) -> Result<Socket> {
        self.open_known().await.map(|(socket, _)| socket)
    }

    /// The same, and the number by which Redis knows it, where it tells.
    pub(crate) async fn open_known(&self) -> Result<(Socket, Option<u64>)> {
        let opening = async {
            let mut socket = socket::connect(&self.target.address, self.tls.as_ref())
                .await
                .map_err(|error| self.broken(error))?;
            let id = self.introduce(&mut socket).await?;
            Ok((socket, id))
        };
        let opened = tokio::time::timeout(TIMEOUT, opening).await;
        let opened = opened.unwrap_or_else(|_| Err(self.unreachable("no answer within 5 s")));
        match &opened {
            Ok(_) => self.was_in.store(true, Ordering::Relaxed),
            // What we say was right before: so it is the server that changed, for example its password, and it may change
            // again. Who is at work must not end because of that.
            Err(error) if error.kind() == ErrorKind::Invalid && self.was_in() => {
                return Err(Error::unavailable(error.code(), error.detail().to_owned()));
            }
            Err(_) => (),
        }
        opened
    }

    fn was_in(&self) -> bool {
        self.was_in.load(Ordering::Relaxed)
    }

    async fn introduce(&self, socket: &mut Socket) -> Result<Option<u64>> {
        let commands = self.introduction();
        let mut request = Request::default();
        for command in &commands {
            request.command(command);
        }
        for chunk in request.into_chunks() {
            let written = socket.write_all(&chunk).await;
            written.map_err(|error| self.broken(error))?;
        }
        let flushed = socket.flush().await;
        flushed.map_err(|error| self.broken(error))?;

        let mut answer = self.replies(socket, commands.len()).await?;
        let mut id = None;
        for command in &commands {
            let reply = answer.next(format_args!("connecting to {}", self.target));
            // Name and number are a courtesy: a server that does not take them serves as well.
            if command.first() == Some(&"CLIENT") {
                id = reply.ok().as_ref().and_then(Reply::as_number).or(id);
            } else {
                reply?;
            }
        }
        Ok(id)
    }

    async fn replies(&self, socket: &mut Socket, count: usize) -> Result<Answer> {
        let mut scan = Scan::of(count);
        let mut buffer = BytesMut::new();
        while scan.advance(&buffer)?.is_none() {
            let closed = match socket.read_buf(&mut buffer).await {
                Ok(0) => self
                    .unreachable("it was closed at once; is TLS expected, or not expected, there?"),
                Ok(_) => continue,
                Err(error) => self.broken(error),
            };
            // Redis may have said why before it closed.
            return Ok(Answer::partial(buffer.freeze(), closed));
        }
        Ok(Answer::whole(buffer.freeze()))
    }

    /// Who we are. PING is there because a Redis that still loads its data refuses it.
    fn introduction(&self) -> Vec<Vec<&str>> {
        let mut commands = Vec::new();
        match (&self.target.user, &self.target.password) {
            (Some(user), password) => {
                commands.push(vec!["AUTH", user, password.as_deref().unwrap_or_default()]);
            }
            (None, Some(password)) => commands.push(vec!["AUTH", password]),
            (None, None) => {}
        }
        if let Some(database) = &self.database {
            commands.push(vec!["SELECT", database]);
        }
        commands.push(vec!["PING"]);
        commands.push(vec!["CLIENT", "SETNAME", "streamerson"]);
        commands.push(vec!["CLIENT", "ID"]);
        commands
    }

    /// No connection because of `error`; a server tells what it has against a certificate only after the handshake.
    fn broken(&self, error: io::Error) -> Error {
        match tls::remedy(&error) {
            Some(remedy) => error::certificate(&self.target, error, remedy),
            None => self.unreachable(error),
        }
    }

    fn unreachable(&self, reason: impl fmt::Display) -> Error {
        error::unreachable(&self.target, reason)
    }
}
