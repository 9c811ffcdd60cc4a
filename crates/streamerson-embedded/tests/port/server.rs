//! A port of an embedded broker that keeps nothing, for one test.

use std::net::SocketAddr;

use streamerson_core::Name;
use streamerson_embedded::EmbeddedBroker;
use streamerson_embedded::port::{Options, Port};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::wire::Wire;

/// A port on the loopback interface, for the keys of `shop`. It ends with this value.
pub(crate) struct Server {
    pub(crate) broker: EmbeddedBroker,
    pub(crate) address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Server {
        Server::on(EmbeddedBroker::in_memory(), options).await
    }

    pub(crate) async fn on(broker: EmbeddedBroker, options: Options) -> Server {
        let namespace = Name::new("shop").expect("valid");
        let loopback = "127.0.0.1:0".parse().expect("valid");
        let port = Port::bind_with(loopback, broker.clone(), namespace, options).expect("a port");
        let address = port.local_addr();
        let (shutdown, stop) = oneshot::channel::<()>();
        let serving = tokio::spawn(port.serve(async {
            // An error is the test that ends: shut down as well.
            let _ = stop.await;
        }));
        Server {
            broker,
            address,
            shutdown: Some(shutdown),
            serving,
        }
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Asks the port to shut down.
    pub(crate) fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    /// Waits until it has.
    pub(crate) async fn ended(&mut self) {
        (&mut self.serving).await.expect("the port");
    }
}
