//! A TCP proxy between everybody and the broker: it can cut all connections, and the broker may move behind it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A proxy on a port of the loopback interface. It ends with this value, and its connections with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    server: SocketAddr,
    /// Connections of an earlier generation are cut.
    generation: u64,
    open: usize,
}

impl Proxy {
    /// A proxy before `server`.
    pub(crate) async fn start(server: SocketAddr) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(watch::Sender::new(State {
            server,
            generation: 0,
            open: 0,
        }));
        let serving = tokio::spawn(serve(listener, state.clone()));
        Ok(Proxy {
            address,
            state,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// The URL under which brokers are reached through it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Where it leads to.
    pub(crate) fn server(&self) -> SocketAddr {
        self.state.borrow().server
    }

    /// Leads new connections to `server` from now on.
    pub(crate) fn point_to(&self, server: SocketAddr) {
        self.state.send_modify(|state| state.server = server);
    }

    /// Breaks every connection there is, and answers how many there were; new ones are welcome.
    pub(crate) fn cut(&self) -> usize {
        let mut open = 0;
        self.state.send_modify(|state| {
            state.generation += 1;
            open = state.open;
        });
        open
    }
}

async fn serve(listener: TcpListener, state: Arc<watch::Sender<State>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(forward(client, Open::new(state.clone())));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Forwards one connection until either side ends it, or it is cut.
async fn forward(mut client: TcpStream, open: Open) {
    let mut changes = open.state.subscribe();
    let State {
        server, generation, ..
    } = *changes.borrow_and_update();
    let both_ways = async {
        // Nobody there: the client sees its connection end.
        let mut server = TcpStream::connect(server).await.ok()?;
        client.set_nodelay(true).ok()?;
        server.set_nodelay(true).ok()?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        // The end of one way is the end of both: so a server learns at once that a client was killed.
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => (),
            _ = tokio::io::copy(&mut from_server, &mut to_client) => (),
        }
        Some(())
    };
    tokio::select! {
        _ = changes.wait_for(|state| state.generation != generation) => {}
        _ = both_ways => {}
    }
}

/// Counts a connection, from its beginning to its end.
struct Open {
    state: Arc<watch::Sender<State>>,
}

impl Open {
    fn new(state: Arc<watch::Sender<State>>) -> Open {
        count(&state, |open| open + 1);
        Open { state }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        count(&self.state, |open| open.saturating_sub(1));
    }
}

/// Changes the count without waking anybody: every connection listens for cuts.
fn count(state: &watch::Sender<State>, change: impl FnOnce(usize) -> usize) {
    state.send_if_modified(|state| {
        state.open = change(state.open);
        false
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn connections_pass_and_can_be_cut() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut said = [0; 5];
        served.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");

        assert_eq!(proxy.cut(), 1);
        assert!(matches!(client.read(&mut said).await, Ok(0) | Err(_)));
        assert!(matches!(served.read(&mut said).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn a_server_may_move() {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let second = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start(first.local_addr().unwrap()).await.unwrap();
        proxy.point_to(second.local_addr().unwrap());
        let _client = TcpStream::connect(proxy.address).await.unwrap();
        second.accept().await.unwrap();
    }
}
