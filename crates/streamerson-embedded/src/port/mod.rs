//! The Redis-protocol port: other processes use the embedded broker through it exactly as they use Redis.
//!
//! From the wire inwards: `request` and `inline` cut commands out of what arrives, `connection` runs them in
//! batches, `commands` holds one file per family of commands and `scripts` the native equivalents of our Lua
//! scripts, `reply` writes the answers. `keys` translates keys to topics. A `session` is what the port remembers
//! of a client; when its connection closes, what was delivered over it is free for others at once.
//!
//! Only what our own Redis broker, redis-cli and plain stream clients need is here: streams, consumer groups and
//! inboxes, over RESP2 and RESP3. Answers and errors are those of Redis 7.0, but for these, all on purpose:
//!
//! * An entry has exactly the six fields of a message, and keys are those of one namespace.
//! * When a connection closes, what was delivered over it is given back, a member that then holds nothing is
//!   forgotten, and leases that were acquired or renewed over it last are free. `XGROUP DELCONSUMER` gives back what Redis would forget.
//! * `MAXLEN` spares what a group has not processed; `MINID` of `XTRIM` does what it says. What is trimmed away is no
//!   longer pending.
//! * Topics are not deleted by `DEL`, but by the script `remove`; inboxes are, and expire a minute after the last reply, whatever
//!   `PEXPIRE` says.
//! * What the scripts keep in keys of their own on Redis (`:topic`, `:leases`, `:sent`, `:done`) is not seen as keys here. Scheduled
//!   messages appear by themselves, and wake who waits for them.
//! * `SCAN` answers everything at once. An answer to `XREAD` or `XREADGROUP` may end early when it is large.
//! * There are no transactions, and no scripts but ours.

mod arguments;
mod commands;
mod connection;
mod deliveries;
mod failure;
mod glob;
mod inline;
mod keys;
mod leases;
mod options;
mod readers;
mod reply;
mod request;
mod scripts;
mod session;
mod shared;
mod waiting;

use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use streamerson_core::{Error, Name, Result};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::EmbeddedBroker;
use connection::Connection;
use session::Session;
use shared::Shared;

pub use options::Options;

/// An address that is listened on before there is a broker, so that one is only opened when it can be reached.
///
/// ```
/// use streamerson_core::Name;
/// use streamerson_embedded::EmbeddedBroker;
/// use streamerson_embedded::port::{Listener, Options};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson_core::Result<()> {
/// let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Options::default())?;
/// let port = listener.open(EmbeddedBroker::in_memory(), Name::new("shop")?);
/// # drop(port);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    options: Options,
}

impl Listener {
    /// Listens on `address`. Within a Tokio runtime. Clients wait until [`Port::serve`].
    ///
    /// Fails when the address is taken, and when others than this machine could reach it: see [`Options::password`].
    pub fn bind(address: SocketAddr, options: Options) -> Result<Listener> {
        options.check(address)?;
        let listener = listen(address).map_err(|error| refused(address, &error))?;
        let address = listener
            .local_addr()
            .map_err(|error| refused(address, &error))?;
        Ok(Listener {
            listener,
            address,
            options,
        })
    }

    /// The port of `broker`, for the keys of `namespace`.
    pub fn open(self, broker: EmbeddedBroker, namespace: Name) -> Port {
        let Listener {
            listener,
            address,
            options,
        } = self;
        Port {
            listener,
            address,
            shared: Shared::new(broker, namespace, options, address),
        }
    }
}

/// A port of an embedded broker that speaks the Redis protocol.
///
/// ```
/// use streamerson_core::Name;
/// use streamerson_embedded::EmbeddedBroker;
/// use streamerson_embedded::port::Port;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson_core::Result<()> {
/// let broker = EmbeddedBroker::in_memory();
/// let port = Port::bind(([127, 0, 0, 1], 0).into(), broker, Name::new("shop")?)?;
/// println!("redis-cli -p {}", port.local_addr().port());
///
/// let shutdown = async { /* until a signal comes */ };
/// port.serve(shutdown).await;
/// # Ok(())
/// # }
/// ```
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Port {
    /// Listens on `address` with the default options, for the keys of `namespace`. Within a Tokio runtime.
    ///
    /// Fails when the address is taken, and when others than this machine could reach it: see [`Options::password`].
    pub fn bind(address: SocketAddr, broker: EmbeddedBroker, namespace: Name) -> Result<Port> {
        Port::bind_with(address, broker, namespace, Options::default())
    }

    /// Listens on `address` with these `options`.
    pub fn bind_with(
        address: SocketAddr,
        broker: EmbeddedBroker,
        namespace: Name,
        options: Options,
    ) -> Result<Port> {
        Ok(Listener::bind(address, options)?.open(broker, namespace))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until `shutdown` completes; then lets each finish the commands it has begun, for as long as
    /// [`Options::drain`] allows.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let mut clients = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                // Reaped as they end, so that what is left of them does not pile up.
                Some(_) = clients.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.welcome(&mut clients, stream, peer),
                    Err(error) => self.pause_after(&error).await,
                },
            }
        }
        drop(self.listener);
        self.shared.end();
        let drained = async { while clients.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shared.options.drain, drained)
            .await
            .is_err()
        {
            tracing::warn!(
                clients = clients.len(),
                "redis port: closing clients whose commands did not end in time"
            );
            clients.shutdown().await;
        }
    }

    fn welcome(&self, clients: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        if clients.len() >= self.shared.options.max_clients {
            tracing::warn!(%peer, "redis port: refused a client, there are too many");
            // Best effort, and never waits: who gets no answer sees the connection close.
            if let Ok(mut stream) = stream.into_std() {
                let _ = stream.write(b"-ERR max number of clients reached\r\n");
            }
            return;
        }
        let session = Session::new(self.shared.clone(), peer);
        clients.spawn(Connection::new(stream, session).run());
    }

    /// A failing accept means that the process has run out of something, for example of file descriptors. Trying again
    /// at once would only burn the processor.
    async fn pause_after(&self, error: &std::io::Error) {
        tracing::warn!(%error, "redis port: cannot accept a connection");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    const BACKLOG: u32 = 1024;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // So that a restart need not wait until the connections of the last run are forgotten.
    socket.set_reuseaddr(cfg!(unix))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn refused(address: SocketAddr, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        return Error::unavailable(
            "address-in-use",
            format!(
                "the Redis-protocol port cannot listen on {address}: another process does (a Redis server, or another \
                 streamerson?); stop it, or choose another port"
            ),
        );
    }
    Error::unavailable(
        "cannot-listen",
        format!(
            "the Redis-protocol port cannot listen on {address}: {error}; choose another address"
        ),
    )
}
