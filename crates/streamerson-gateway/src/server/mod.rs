//! The server: an accept loop of our own, because a public edge needs bounds that `axum::serve` does not have.

mod connection;
mod pace;
mod stream;
mod watch;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use streamerson_core::time::Monotonic;
use streamerson_core::{Error, Result};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::config::Limits;
use crate::metrics::ConnectionMetrics;
use watch::{Order, Watch};

/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 4096;
/// Streams that a client may open and reset before it is taken for an attacker.
const MAX_RESETS: usize = 64;
/// How long the last answers may take, once the time to drain is over.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long to wait before accepting again, when the system has no more file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// What a connection over the limit is told.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A bound address, about to serve HTTP/1.1 and HTTP/2 (without TLS, by prior knowledge).
///
/// ```no_run
/// use std::sync::Arc;
/// use streamerson_core::memory::MemoryBroker;
/// use streamerson_gateway::{Config, Gateway, Server};
///
/// # async fn run(shutdown: impl Future<Output = ()>) -> streamerson_core::Result<()> {
/// let mut config = Config::default();
/// config.serve_every_topic();
/// let gateway = Gateway::open(Arc::new(MemoryBroker::new()), &config).await?;
/// let server = Server::bind(config.gateway.listen, "--listen", &config.gateway.limits)?;
/// let overtime = || { gateway.give_up(); };
/// let drained = server.counting(gateway.connections()).serve(gateway.clone(), shutdown, overtime).await;
/// gateway.close().await;
/// println!("{} connections had to be cut", drained.cut);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    metrics: ConnectionMetrics,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had not finished in time, and were cut.
    pub cut: usize,
}

/// What all connections share.
#[derive(Debug)]
struct Connections {
    http: Builder<TokioExecutor>,
    limits: Limits,
    metrics: ConnectionMetrics,
    clock: Monotonic,
    open: Mutex<HashMap<u64, Arc<Watch>>>,
}

impl Server {
    /// Binds `address`, within a Tokio runtime. When it is in use, the error names `setting` as what to change.
    pub fn bind(address: SocketAddr, setting: &str, limits: &Limits) -> Result<Server> {
        let listener = listen(address).map_err(|error| refused(address, setting, &error))?;
        Ok(Server {
            address: listener.local_addr().unwrap_or(address),
            listener,
            limits: limits.clone(),
            metrics: ConnectionMetrics::default(),
        })
    }

    /// The same server, whose connections are counted in `metrics`.
    pub fn counting(mut self, metrics: ConnectionMetrics) -> Server {
        self.metrics = metrics;
        self
    }

    /// The bound address: with port 0 the system has chosen one.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then drains: no new connections, idle ones end, and requests in progress have the
    /// drain timeout to finish. When that has passed, `overtime` is called, for the service to
    /// [give up](crate::Gateway::give_up) and answer; a second later, what still has not finished is cut.
    pub async fn serve<S, B>(
        self,
        service: S,
        shutdown: impl Future<Output = ()>,
        overtime: impl FnOnce(),
    ) -> Drained
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connections = Arc::new(Connections {
            http: http(&self.limits),
            limits: self.limits,
            metrics: self.metrics,
            clock: Monotonic::start(),
            open: Mutex::default(),
        });
        let tasks = TaskTracker::new();
        let mut shutdown = pin!(shutdown);
        let mut struggling = false;
        let mut accepted: u64 = 0;
        loop {
            let stream = tokio::select! {
                biased;
                () = shutdown.as_mut() => break,
                stream = accept(&self.listener, &mut struggling) => stream,
            };
            accepted += 1;
            if tasks.len() >= connections.limits.max_connections {
                connections.refuse(&stream);
                continue;
            }
            // Listed before it is spawned, so that no order passes it by.
            let open = Open::new(connections.clone(), accepted);
            tasks.spawn(open.serve(stream, service.clone()));
        }
        drop(self.listener);
        connections.drain(&tasks, overtime).await
    }
}

impl Connections {
    fn refuse(&self, stream: &TcpStream) {
        self.metrics.refused.inc();
        // Best effort: a client that does not read at once must not hold what there is too little of.
        let _ = stream.try_write(TOO_MANY);
    }

    async fn drain(&self, tasks: &TaskTracker, overtime: impl FnOnce()) -> Drained {
        tasks.close();
        self.order(Order::Finish);
        let mut drained = tokio::time::timeout(self.limits.drain_timeout, tasks.wait()).await;
        if drained.is_err() {
            overtime();
            drained = tokio::time::timeout(LAST_ANSWERS, tasks.wait()).await;
        }
        let cut = match drained {
            Ok(()) => 0,
            Err(_) => tasks.len(),
        };
        self.order(Order::Stop);
        tasks.wait().await;
        Drained { cut }
    }

    fn order(&self, order: Order) {
        for watch in self.open.lock().values() {
            watch.order(order);
        }
    }
}

/// A connection in the list of those that are open.
struct Open {
    connections: Arc<Connections>,
    number: u64,
    watch: Arc<Watch>,
}

impl Open {
    fn new(connections: Arc<Connections>, number: u64) -> Open {
        let watch = Arc::new(Watch::new(&connections.limits, connections.clock));
        connections.open.lock().insert(number, watch.clone());
        connections.metrics.open.inc();
        Open {
            connections,
            number,
            watch,
        }
    }

    async fn serve<S, B>(self, stream: TcpStream, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Without it answers wait for acknowledgements of earlier ones; where it cannot be set, they are only late.
        let _ = stream.set_nodelay(true);
        let Connections { http, metrics, .. } = &*self.connections;
        connection::serve(http, stream, &self.watch, metrics, service).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.number);
        self.connections.metrics.open.dec();
    }
}

/// The next connection. Failures of single connections are theirs; when the system is short of something, it gets time.
async fn accept(listener: &TcpListener, struggling: &mut bool) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                *struggling = false;
                return stream;
            }
            Err(error) if is_of_one_connection(&error) => (),
            Err(error) => {
                if !*struggling {
                    tracing::error!(%error, "connections cannot be accepted at the moment");
                }
                *struggling = true;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn http(limits: &Limits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // The pace of a connection is ours to watch, with one timer per connection instead of one per request.
        .header_read_timeout(None)
        .max_buf_size(limits.max_header);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header as u32)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(limits.header_read_timeout);
    http
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restart must not wait for connections of the process before.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn refused(address: SocketAddr, setting: &str, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::AddrInUse {
        let detail = format!(
            "{address} is already in use: stop what listens there, or choose another address with {setting}"
        );
        return Error::unavailable("address-in-use", detail);
    }
    let detail =
        format!("{address} cannot be listened on: {error}; choose another address with {setting}");
    Error::unavailable("cannot-listen", detail)
}
