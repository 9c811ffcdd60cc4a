//! A TCP proxy that injects faults between a client and a server.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use streamerson_proxy::Proxy;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! let server = TcpListener::bind("127.0.0.1:0").await?;
//! let proxy = Proxy::start(server.local_addr()?).await?;
//!
//! let mut client = TcpStream::connect(proxy.address()).await?;
//! client.write_all(b"hello").await?;
//! let (mut served, _) = server.accept().await?;
//! let mut greeting = [0; 5];
//! served.read_exact(&mut greeting).await?;
//! assert_eq!(&greeting, b"hello");
//!
//! proxy.cut();
//! assert!(matches!(client.read(&mut greeting).await, Ok(0) | Err(_)));
//! # Ok(())
//! # }
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToServer,
    /// Answers.
    ToClient,
}

/// A proxy on a port of the loopback interface. Every fault holds until [`Proxy::heal`]; the proxy ends with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    faults: Arc<watch::Sender<Faults>>,
    running: JoinHandle<()>,
}

/// What goes wrong now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Faults {
    /// Where new connections lead to.
    server: SocketAddr,
    /// Connections of an earlier generation are cut.
    generation: u64,
    refuse: bool,
    to_server: Fault,
    to_client: Fault,
    /// Connections accepted and not ended, and all ever accepted: for tests to wait on.
    open: usize,
    accepted: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fault {
    black_hole: bool,
    delay: Duration,
    /// Bytes that still pass before all connections are cut.
    budget: Option<u64>,
}

impl Faults {
    fn none(server: SocketAddr) -> Faults {
        Faults {
            server,
            generation: 0,
            refuse: false,
            to_server: Fault::default(),
            to_client: Fault::default(),
            open: 0,
            accepted: 0,
        }
    }

    fn of(&self, direction: Direction) -> &Fault {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    fn of_mut(&mut self, direction: Direction) -> &mut Fault {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

impl Proxy {
    /// A proxy before `server`, which need not be there yet. Fails when there is no free port.
    pub async fn start(server: SocketAddr) -> io::Result<Proxy> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = socket.local_addr()?;
        let listener = socket.listen(BACKLOG)?;
        let faults = Arc::new(watch::Sender::new(Faults::none(server)));
        let running = tokio::spawn(serve(listener, address, faults.clone()));
        Ok(Proxy {
            address,
            faults,
            running,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port where clients connect.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where new connections lead to.
    pub fn server(&self) -> SocketAddr {
        self.faults.borrow().server
    }

    /// Leads new connections to `server` from now on: it has moved. Those there are stay.
    pub fn point_to(&self, server: SocketAddr) {
        self.change(|faults| faults.server = server);
    }

    /// Breaks every connection there is, and answers how many there were; new ones are welcome.
    pub fn cut(&self) -> usize {
        let mut open = 0;
        self.change(|faults| {
            faults.generation += 1;
            open = faults.open;
        });
        open
    }

    /// Refuses new connections, as if nothing listened. Those there are stay.
    pub async fn refuse(&self) {
        self.change(|faults| faults.refuse = true);
        // Until the listener is gone the system accepts in its name.
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// Refuses new connections, breaks those there are, and waits until nothing passes any more.
    pub async fn close(&self) {
        self.refuse().await;
        self.cut();
        let mut faults = self.faults.subscribe();
        // The sender lives in `self`.
        let _ = faults.wait_for(|faults| faults.open == 0).await;
    }

    /// Stops forwarding both ways, without closing anything: a network that has gone silent. New connections are accepted,
    /// and silent too. What was sent meanwhile arrives after [`Proxy::heal`], unless the connection is cut.
    pub fn black_hole(&self) {
        self.change(|faults| {
            faults.to_server.black_hole = true;
            faults.to_client.black_hole = true;
        });
    }

    /// Stops forwarding one way: requests arrive and answers do not, or the other way round.
    pub fn black_hole_one_way(&self, direction: Direction) {
        self.change(|faults| faults.of_mut(direction).black_hole = true);
    }

    /// Holds every piece of data back for `delay`, both ways.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| {
            faults.to_server.delay = delay;
            faults.to_client.delay = delay;
        });
    }

    /// Cuts every connection after `bytes` more have passed in `direction`: in the middle of whatever is being said. Happens once.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.change(|faults| faults.of_mut(direction).budget = Some(bytes));
    }

    /// Ends all faults. What was cut stays cut.
    pub fn heal(&self) {
        self.change(|faults| {
            faults.refuse = false;
            faults.to_server = Fault::default();
            faults.to_client = Fault::default();
        });
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.faults.borrow().open
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> usize {
        self.faults.borrow().accepted
    }

    /// Waits until this many connections were accepted, all in all: to see a client come back.
    pub async fn accepted_at_least(&self, connections: usize) {
        let mut faults = self.faults.subscribe();
        // The sender lives in `self`.
        let _ = faults
            .wait_for(|faults| faults.accepted >= connections)
            .await;
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Connections are tasks of this one, and end with it.
        self.running.abort();
    }
}

async fn serve(listener: TcpListener, address: SocketAddr, faults: Arc<watch::Sender<Faults>>) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let mut changes = faults.subscribe();
    loop {
        let refuse = changes.borrow_and_update().refuse;
        if refuse {
            drop(listener.take());
            // Bound and not listened on: nobody else gets the port.
            let reserved = bind(address);
            let _ = changes.wait_for(|faults| !faults.refuse).await;
            let listening = reserved.and_then(|socket| socket.listen(BACKLOG));
            listener = Some(listening.expect("the proxy's own port"));
            continue;
        }
        let Some(listening) = &listener else { return };
        tokio::select! {
            accepted = listening.accept() => {
                if let Ok((client, _)) = accepted {
                    let Faults { server, generation, .. } = count_in(&faults);
                    connections.spawn(forward(client, server, generation, faults.clone()));
                }
            }
            _ = changes.changed() => {}
            Some(_) = connections.join_next() => {}
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the last listener may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Counts a connection in; answers what holds for it.
fn count_in(faults: &watch::Sender<Faults>) -> Faults {
    let mut counted = *faults.borrow();
    faults.send_modify(|faults| {
        faults.open += 1;
        faults.accepted += 1;
        counted = *faults;
    });
    counted
}

/// Forwards one connection until either side ends it or a fault does.
async fn forward(
    client: TcpStream,
    server: SocketAddr,
    generation: u64,
    faults: Arc<watch::Sender<Faults>>,
) {
    let _open = Open(faults.clone());
    let mut changes = faults.subscribe();
    let cut = changes.wait_for(|faults| faults.generation != generation);
    let both_ways = async {
        let Ok(server) = TcpStream::connect(server).await else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(
            pump(from_client, to_server, Direction::ToServer, &faults),
            pump(from_server, to_client, Direction::ToClient, &faults),
        );
    };
    tokio::select! {
        _ = cut => {}
        () = both_ways => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    faults: &watch::Sender<Faults>,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut changes = faults.subscribe();
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let passing = changes.wait_for(|faults| !faults.of(direction).black_hole);
        let delay = passing
            .await
            .map_or(Duration::ZERO, |faults| faults.of(direction).delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let allowed = spend(faults, direction, read);
        let written = to
            .write_all(buffer.get(..allowed).unwrap_or_default())
            .await;
        if allowed < read {
            faults.send_modify(|faults| faults.generation += 1);
            // What comes after the cut must not pass: the connection would have a hole instead of an end.
            return std::future::pending().await;
        }
        if read == 0 || written.is_err() {
            // One side has said all: the other way may still be in use.
            let _ = to.shutdown().await;
            return;
        }
    }
}

/// How many of `bytes` may pass.
fn spend(faults: &watch::Sender<Faults>, direction: Direction, bytes: usize) -> usize {
    let mut allowed = bytes;
    faults.send_if_modified(|faults| {
        let fault = faults.of_mut(direction);
        if let Some(budget) = fault.budget {
            allowed = usize::try_from(budget).unwrap_or(usize::MAX).min(bytes);
            let left = budget - allowed as u64;
            fault.budget = (allowed == bytes).then_some(left);
        }
        false
    });
    allowed
}

/// Counts a connection out when it ends.
struct Open(Arc<watch::Sender<Faults>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|faults| faults.open -= 1);
    }
}
