//! The HTTP side of `dev` and `gateway`: a gateway, its server, and its admin server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use streamerson::worker::Counters;
use streamerson_core::{Broker, Name};
use streamerson_gateway::{Admin, Config, Environment, Gateway, Server};
use tokio_util::sync::CancellationToken;

use crate::failure::Result;
use crate::output::message;

/// Where the admin server listens, if at all.
#[derive(Debug, Clone, Copy)]
struct AdminAddress(Option<SocketAddr>);

impl std::str::FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<AdminAddress, String> {
        match text {
            "off" => Ok(AdminAddress(None)),
            address => match address.parse() {
                Ok(address) => Ok(AdminAddress(Some(address))),
                Err(_) => Err("write IP:PORT, such as 127.0.0.1:9090, or off".into()),
            },
        }
    }
}

/// Reads `IP:PORT`.
pub(crate) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "write IP:PORT, such as 127.0.0.1:8080")
}

/// How many routes there are, for people.
pub(crate) fn routes(count: usize) -> String {
    match count {
        1 => "1 route".to_owned(),
        count => format!("{count} routes"),
    }
}

/// The flags that `dev` and `gateway` have in common.
#[derive(Debug, Args)]
pub(crate) struct EdgeArgs {
    /// Where HTTP is served [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    listen: Option<SocketAddr>,

    /// Where health, metrics and routes are served [default: 127.0.0.1:9090]
    #[arg(long, value_name = "IP:PORT|off")]
    admin: Option<AdminAddress>,

    /// Prefix of every key in the broker
    #[arg(long, value_name = "NAME", env = "STREAMERSON_NAMESPACE")]
    namespace: Option<Name>,
}

impl EdgeArgs {
    /// The configuration in `file`, or the defaults, under `environment` and these flags.
    pub(crate) fn configuration(
        &self,
        file: Option<&Path>,
        environment: &Environment,
    ) -> Result<Config> {
        let mut config = match file {
            Some(file) => Config::load(file, environment)?,
            None => Config::from_environment(environment)?,
        };
        if let Some(listen) = self.listen {
            config.gateway.listen = listen;
        }
        if let Some(AdminAddress(admin)) = self.admin {
            config.gateway.admin = admin;
        }
        if let Some(namespace) = &self.namespace {
            config.namespace = namespace.clone();
        }
        Ok(config)
    }
}

/// Addresses that are bound, and do not answer yet.
pub(crate) struct Edge {
    server: Server,
    admin: Option<Server>,
}

impl Edge {
    /// Binds the addresses of `config`.
    pub(crate) fn bind(config: &Config) -> Result<Edge> {
        let settings = &config.gateway;
        let server = Server::bind(settings.listen, "--listen", &settings.limits)?;
        let admin = settings
            .admin
            .map(|address| Server::bind(address, "--admin", &settings.limits))
            .transpose()?;
        Ok(Edge { server, admin })
    }

    /// The URL of the gateway.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.local_addr())
    }

    /// The URL of the admin server.
    pub(crate) fn admin_url(&self) -> Option<String> {
        let admin = self.admin.as_ref()?;
        Some(format!("http://{}", admin.local_addr()))
    }

    /// Opens the gateway on `broker`.
    pub(crate) async fn open(self, broker: Arc<dyn Broker>, config: &Config) -> Result<OpenEdge> {
        Ok(OpenEdge {
            gateway: Gateway::open(broker, config).await?,
            edge: self,
            workers: Vec::new(),
        })
    }
}

/// A gateway that is about to serve.
pub(crate) struct OpenEdge {
    gateway: Gateway,
    edge: Edge,
    workers: Vec<(&'static str, Counters)>,
}

impl OpenEdge {
    /// Shows what these workers of the same process count, too.
    pub(crate) fn with_workers(self, workers: Vec<(&'static str, Counters)>) -> OpenEdge {
        OpenEdge { workers, ..self }
    }

    /// Serves until `shutdown`, and lets what is in flight finish. Health is answered until the end.
    pub(crate) async fn serve(self, shutdown: CancellationToken) {
        let OpenEdge {
            gateway,
            edge,
            workers,
        } = self;
        let ended = CancellationToken::new();
        let admin = async {
            if let Some(server) = edge.admin {
                let admin = Admin::new(gateway.clone()).with_workers(workers);
                server.serve(admin, ended.cancelled(), || ()).await;
            }
        };
        let public = async {
            let draining = async {
                shutdown.cancelled().await;
                gateway.drain();
            };
            let server = edge.server.counting(gateway.connections());
            let overtime = || {
                let given_up = gateway.give_up();
                if given_up > 0 {
                    message(&format!(
                        "warning: {given_up} requests had no reply in time, and were answered so"
                    ));
                }
            };
            let drained = server.serve(gateway.clone(), draining, overtime).await;
            gateway.close().await;
            if drained.cut > 0 {
                message(&format!(
                    "warning: {} connections did not finish in time, and were closed",
                    drained.cut
                ));
            }
            ended.cancel();
        };
        tokio::join!(public, admin);
    }
}
