//! The broker of a run: a private process with files of its own, or one that runs already.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use streamerson::connect_in;
use streamerson_core::Name;
use streamerson_proxy::Proxy;
use tokio::time::{Instant, sleep};

use super::child::Child;
use super::resp;
use super::settings::Wanted;
use crate::failure::{Exit, Failure, Result};

/// How long a broker may take to start; one with a long log reads all of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a starting broker is asked: there is no event to wait for.
const LOOK: Duration = Duration::from_millis(5);
const LOG: &str = "broker.log";

/// A broker behind a proxy. A private process ends with this value.
#[derive(Debug)]
pub(crate) struct System {
    proxy: Proxy,
    private: Option<Private>,
}

/// A broker process of our own.
#[derive(Debug)]
struct Private {
    kind: Kind,
    namespace: Name,
    folder: PathBuf,
    process: Child,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Embedded,
    Redis,
}

impl System {
    /// Starts what is wanted, or finds it.
    pub(crate) async fn open(wanted: Wanted, namespace: &Name, folder: &Path) -> Result<System> {
        let kind = match wanted {
            Wanted::Embedded => Kind::Embedded,
            Wanted::Redis => Kind::Redis,
            Wanted::Running(address) => {
                check(address, namespace).await?;
                let proxy = Proxy::start(address).await.map_err(unusable)?;
                return Ok(System {
                    proxy,
                    private: None,
                });
            }
        };
        let (process, address) = launch(kind, namespace, folder).await?;
        Ok(System {
            proxy: Proxy::start(address).await.map_err(unusable)?,
            private: Some(Private {
                kind,
                namespace: namespace.clone(),
                folder: folder.to_owned(),
                process,
            }),
        })
    }

    /// What stands between everybody and the broker: it can cut all connections, and the broker may move behind it.
    pub(crate) fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The URL under which everybody reaches it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.proxy.address())
    }

    /// Kills the broker, leaves it dead for `pause`, and starts it again on the same files. Answers how many processes died.
    pub(crate) async fn crash(&mut self, pause: Duration) -> Result<usize> {
        let Some(private) = &mut self.private else {
            return Ok(0);
        };
        let hit = usize::from(private.process.has_ended().is_none());
        private.process.kill().await;
        sleep(pause).await;
        let (process, address) = launch(private.kind, &private.namespace, &private.folder).await?;
        private.process = process;
        self.proxy.point_to(address);
        Ok(hit)
    }

    /// Lets nobody through any more, and ends the broker if it is ours.
    pub(crate) async fn close(self) {
        self.proxy.close().await;
        if let Some(mut private) = self.private {
            private.process.kill().await;
        }
    }
}

/// Whether there is a broker, and lets us in: said here under the name that the user knows, which the proxy has not.
async fn check(address: SocketAddr, namespace: &Name) -> Result<()> {
    let connected = connect_in(&format!("redis://{address}"), namespace.clone()).await;
    connected.map(drop).map_err(|error| {
        let needs_password = error.code() == "authentication-required";
        match needs_password {
            true => Failure::new(
                Exit::Auth,
                "authentication-required",
                format!("the broker at redis://{address} wants a password, and chaos gives none"),
            )
            .with_help(
                "use a broker without one, or leave it to chaos to start one: --broker redis",
            ),
            false => Failure::from(error).with_help(
                "check --broker, and that the broker runs; or use --broker embedded or redis",
            ),
        }
    })
}

/// Starts a broker on a free port and waits until it is ready.
async fn launch(kind: Kind, namespace: &Name, folder: &Path) -> Result<(Child, SocketAddr)> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join(LOG))
        .map_err(unusable)?;
    let address = free_port().map_err(unusable)?;
    let mut process = match kind {
        Kind::Embedded => start_embedded(namespace, folder, address, log.into())?,
        Kind::Redis => start_redis(folder, address, log.into())?,
    };
    let deadline = Instant::now() + PATIENCE;
    while !is_ready(address).await {
        if process.has_ended().is_some() || Instant::now() > deadline {
            return Err(did_not_start(kind, folder));
        }
        sleep(LOOK).await;
    }
    Ok((process, address))
}

fn start_embedded(
    namespace: &Name,
    folder: &Path,
    address: SocketAddr,
    log: Stdio,
) -> Result<Child> {
    let data = folder.join("data").display().to_string();
    let address = address.to_string();
    let arguments = [
        "chaos-child",
        "--",
        "/proc/self/exe",
        "dev",
        "--redis-listen",
        &address,
        "--data",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--namespace",
        namespace.as_str(),
    ];
    Child::start(&arguments.map(str::to_owned), log).map_err(unusable)
}

fn start_redis(folder: &Path, address: SocketAddr, log: Stdio) -> Result<Child> {
    let (port, folder) = (address.port().to_string(), folder.display().to_string());
    let arguments = [
        "redis-server",
        "--bind",
        "127.0.0.1",
        "--port",
        &port,
        "--dir",
        &folder,
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ];
    Child::start_other(&arguments.map(str::to_owned), log).map_err(unusable)
}

/// A port that nobody listens on. Another may take it before we do: then the broker does not start, and says so.
fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

async fn is_ready(address: SocketAddr) -> bool {
    let reply = resp::ask(address, &["PING"]).await;
    reply.is_ok_and(|reply| reply == ["PONG"])
}

fn did_not_start(kind: Kind, folder: &Path) -> Failure {
    let log = std::fs::read_to_string(folder.join(LOG)).unwrap_or_default();
    let mut last: Vec<&str> = log.lines().rev().take(10).collect();
    last.reverse();
    let said = last.join("\n");
    if matches!(kind, Kind::Redis)
        && said.contains("redis-server: ")
        && said.contains("(program-not-started)")
    {
        return Failure::new(
            Exit::Failed,
            "redis-server-missing",
            "redis-server cannot be run",
        )
        .with_help("install it (apt-get install redis-server), or use --broker embedded");
    }
    let detail = format!("the broker did not start; it said:\n{said}");
    Failure::new(Exit::Failed, "broker-did-not-start", detail)
}

/// Something that the run needs of this machine cannot be had.
pub(crate) fn unusable(error: std::io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        "chaos-unusable",
        format!("the system under test cannot be set up: {error}"),
    )
}
