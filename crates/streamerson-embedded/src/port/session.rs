//! What the port remembers of one client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::deliveries::Deliveries;
use super::keys::Keys;
use super::reply::Protocol;
use super::request::Limits;
use super::shared::{Shared, Unblock};
use crate::engine::Engine;

/// What the port remembers of one client. With it ends what the client holds: its deliveries go to others at once.
pub(super) struct Session {
    shared: Arc<Shared>,
    id: u64,
    trusted: bool,
    protocol: Protocol,
    closing: bool,
    ended: CancellationToken,
    unblock: Arc<Unblock>,
    /// What was delivered over this connection.
    pub(super) deliveries: Deliveries,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, peer: SocketAddr) -> Session {
        let (id, ended, unblock) = shared.enter(peer);
        Session {
            trusted: shared.options.password.is_none(),
            shared,
            id,
            protocol: Protocol::default(),
            closing: false,
            ended,
            unblock,
            deliveries: Deliveries::default(),
        }
    }

    /// What all clients share.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The engine behind the port.
    pub(super) fn engine(&self) -> &Engine {
        self.shared.engine()
    }

    /// Translates keys.
    pub(super) fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// The client's number.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether the client may use the broker.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The client said the password.
    pub(super) fn trust(&mut self) {
        self.trusted = true;
    }

    /// What the client is answered in.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The client asked to be answered in `protocol`.
    pub(super) fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.shared
            .note(self.id, |client| client.protocol = protocol);
    }

    /// How much the client may send as one command.
    pub(super) fn limits(&self) -> Limits {
        match self.trusted {
            true => Limits::TRUSTED,
            false => Limits::STRANGER,
        }
    }

    /// Begins anew, as after connecting.
    pub(super) fn reset(&mut self) {
        self.trusted = self.shared.options.password.is_none();
        self.shared
            .note(self.id, |client| client.name = String::new());
        self.speak(Protocol::default());
    }

    /// Ends the connection once the answers so far are written.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// Whether the connection is to end.
    pub(super) fn is_closing(&self) -> bool {
        self.closing || self.ended.is_cancelled()
    }

    /// Completes when the client has gone, or the port shuts down: what waits must end then.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// What ends the client's waiting.
    pub(super) fn unblock(&self) -> Arc<Unblock> {
        self.unblock.clone()
    }
}

impl Drop for Session {
    /// Here rather than at the end of the connection's task, so that deliveries are released however the task ends.
    fn drop(&mut self) {
        let Shared {
            readers, leases, ..
        } = &*self.shared;
        self.deliveries
            .release(self.shared.engine(), readers, Instant::now());
        leases.release(self.shared.engine(), self.id);
        self.shared.leave(self.id);
    }
}
