//! What all clients of a port share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use streamerson_core::Name;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::keys::Keys;
use super::leases::Leases;
use super::options::Options;
use super::readers::Readers;
use super::reply::Protocol;
use super::scripts::Library;
use crate::EmbeddedBroker;
use crate::engine::Engine;

/// The version of Redis whose answers are given here.
pub(super) const VERSION: &str = "7.0.15";

/// What all clients of a port share.
pub(super) struct Shared {
    broker: EmbeddedBroker,
    pub(super) keys: Keys,
    pub(super) options: Options,
    pub(super) address: SocketAddr,
    pub(super) started: Instant,
    pub(super) library: Library,
    pub(super) counters: Counters,
    pub(super) readers: Readers,
    pub(super) leases: Leases,
    clients: Mutex<BTreeMap<u64, Client>>,
    ended: CancellationToken,
}

/// What has happened since the port opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections accepted.
    pub(super) connections: AtomicU64,
    /// Commands run.
    pub(super) commands: AtomicU64,
}

/// A client as others see it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Where it comes from.
    pub(super) peer: SocketAddr,
    /// The name it gave itself.
    pub(super) name: String,
    /// The library it said it uses, and its version.
    pub(super) library: (String, String),
    /// What it is answered in.
    pub(super) protocol: Protocol,
    /// When it connected.
    pub(super) since: Instant,
    /// Ends its connection.
    pub(super) ended: CancellationToken,
    /// Ends its waiting.
    pub(super) unblock: Arc<Unblock>,
}

/// Ends the waiting of a client as if its time were up.
#[derive(Debug, Default)]
pub(super) struct Unblock {
    waits: AtomicBool,
    signal: Notify,
}

impl Unblock {
    /// Ends the waiting. `false`: the client does not wait.
    pub(super) fn end(&self) -> bool {
        let waits = self.waits.swap(false, Ordering::AcqRel);
        if waits {
            self.signal.notify_one();
        }
        waits
    }

    /// Waits for `news`, unless the waiting is ended: then `None`.
    pub(super) async fn wait<T>(&self, news: impl Future<Output = T>) -> Option<T> {
        self.waits.store(true, Ordering::Release);
        let found = tokio::select! {
            biased;
            () = self.signal.notified() => return None,
            found = news => found,
        };
        if !self.waits.swap(false, Ordering::AcqRel) {
            // It was ended at this very moment, and that must not end the next one.
            self.signal.notified().await;
        }
        Some(found)
    }
}

impl Shared {
    pub(super) fn new(
        broker: EmbeddedBroker,
        namespace: Name,
        options: Options,
        address: SocketAddr,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            broker,
            keys: Keys::new(namespace),
            options,
            address,
            started: Instant::now(),
            library: Library::default(),
            counters: Counters::default(),
            readers: Readers::default(),
            leases: Leases::default(),
            clients: Mutex::default(),
            ended: CancellationToken::new(),
        })
    }

    /// The engine behind the broker.
    pub(super) fn engine(&self) -> &Engine {
        self.broker.engine()
    }

    /// Asks every client to end.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Notes a new client; answers its id, what ends it, and what ends its waiting.
    pub(super) fn enter(&self, peer: SocketAddr) -> (u64, CancellationToken, Arc<Unblock>) {
        let id = self.counters.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let ended = self.ended.child_token();
        let unblock = Arc::<Unblock>::default();
        let client = Client {
            peer,
            name: String::new(),
            library: (String::new(), String::new()),
            protocol: Protocol::default(),
            since: Instant::now(),
            ended: ended.clone(),
            unblock: unblock.clone(),
        };
        self.clients.lock().insert(id, client);
        (id, ended, unblock)
    }

    /// Forgets a client.
    pub(super) fn leave(&self, id: u64) {
        self.clients.lock().remove(&id);
    }

    /// Changes what is known of a client.
    pub(super) fn note(&self, id: u64, change: impl FnOnce(&mut Client)) {
        if let Some(client) = self.clients.lock().get_mut(&id) {
            change(client);
        }
    }

    /// The clients there are, by id.
    pub(super) fn clients(&self) -> Vec<(u64, Client)> {
        let clients = self.clients.lock();
        clients
            .iter()
            .map(|(id, client)| (*id, client.clone()))
            .collect()
    }
}
