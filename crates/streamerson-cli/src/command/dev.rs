//! `streamerson dev`: gateway, embedded broker, its Redis-protocol port and admin server, in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use streamerson_core::Durability;
use streamerson_gateway::{Config, Environment};
use tokio_util::sync::CancellationToken;

use crate::demo::{self, Demo};
use crate::edge::{Edge, EdgeArgs, address, routes};
use crate::failure::{Failure, Result};
use crate::output::message;
use crate::signal;
use crate::storage::{OpenStorage, Storage, Wanted};

const REDIS_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6380);

/// Run everything on this machine: gateway, durable broker, and its Redis-protocol port
///
/// Nothing has to be installed or configured. Without routes, every topic and type is served at /TOPIC/TYPE. Workers and
/// commands in other processes reach the broker through its Redis-protocol port. The first Ctrl-C lets requests in flight
/// finish, the second ends at once.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    #[command(flatten)]
    edge: EdgeArgs,

    /// Where the embedded broker speaks the Redis protocol, on loopback only [default: 127.0.0.1:6380]
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    redis_listen: Option<SocketAddr>,

    /// Directory of the embedded broker [default: ./.streamerson]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// What an acknowledged message survives: nothing (memory), the end of this process (os), a power loss (disk)
    /// [default: disk]
    #[arg(long, value_name = "memory|os|disk")]
    durability: Option<Durability>,

    /// Use this broker instead of the embedded one, for example redis://127.0.0.1:6379. The variable
    /// STREAMERSON_BROKER has no effect here
    #[arg(long, value_name = "URL")]
    broker: Option<String>,

    /// Configuration, with routes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Run demo workers too, and say what to try
    #[arg(long)]
    demo: bool,
}

impl Dev {
    pub(crate) async fn run(self) -> Result<()> {
        let mut config = self
            .edge
            .configuration(self.config.as_deref(), &environment())?;
        config.broker = self.broker.or(config.broker);
        let serves_all = config.routes.is_empty();
        config.serve_every_topic();
        let storage = Storage::resolve(Wanted {
            broker: config.broker.clone(),
            data: self.data,
            durability: self.durability,
            redis_listen: self.redis_listen,
        })?;
        let edge = Edge::bind(&config)?;
        let storage = storage.open(config.namespace.clone(), REDIS_LISTEN).await?;
        let shutdown = signal::shutdown()?;

        let lines = announce(&edge, &storage, &config, serves_all, self.demo);
        let OpenStorage { broker, port, .. } = storage;
        let demo = self.demo.then(|| Demo::new(&broker));
        let workers = demo.as_ref().map(Demo::counters).unwrap_or_default();
        let edge = edge.open(broker, &config).await?.with_workers(workers);
        for line in lines {
            message(&line);
        }

        // Workers go on until the gateway has its last reply.
        let answered = CancellationToken::new();
        let gateway = async {
            edge.serve(shutdown.clone()).await;
            answered.cancel();
        };
        let workers = async {
            let Some(demo) = demo else {
                return Ok(());
            };
            let served = demo.serve(answered.clone()).await;
            shutdown.cancel();
            served.map_err(Failure::from)
        };
        let port = async {
            if let Some(port) = port {
                port.serve(answered.cancelled()).await;
            }
        };
        let ((), workers, ()) = tokio::join!(gateway, workers, port);
        workers
    }
}

/// The environment without the broker that other commands talk to: that may well be this one.
fn environment() -> Environment {
    std::env::vars_os()
        .filter(|(name, _)| name != "STREAMERSON_BROKER")
        .collect()
}

/// What there is, and what to do with it.
fn announce(
    edge: &Edge,
    storage: &OpenStorage,
    config: &Config,
    serves_all: bool,
    demo: bool,
) -> Vec<String> {
    let gateway = edge.url();
    let routes = match serves_all {
        true => "/{topic}/{type}".to_owned(),
        false => format!(" ({})", routes(config.routes.len())),
    };
    let mut lines = vec![format!("gateway  {gateway}{routes}")];
    match &storage.port {
        Some(port) => {
            let address = port.local_addr();
            lines.push(format!(
                "broker   redis://{address} (embedded, for workers and commands)"
            ));
            lines.push(format!("data     {}", storage.place));
        }
        None => lines.push(format!("broker   {}", storage.place)),
    }
    if let Some(admin) = edge.admin_url() {
        lines.push(format!("admin    {admin}/readyz"));
    }
    if demo {
        let commands = demo::commands(serves_all.then_some(&gateway), &storage.flag());
        let labels = ["try      ", "         ", "         "];
        lines.extend(
            labels
                .iter()
                .zip(commands)
                .map(|(label, command)| format!("{label}{command}")),
        );
    }
    for warning in &storage.broker.capabilities().warnings {
        lines.push(format!("warning: {warning}"));
    }
    lines.push("stop     Ctrl-C".to_owned());
    lines
}
