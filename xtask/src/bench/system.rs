//! What is compared: the servers of each system, set up as their documentation recommends.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::stage::{Stage, free_addresses};
use crate::packages::{NATS, NGINX, REDIS};

/// What the systems run of our own.
pub(crate) const OWN_PROGRAMS: [&str; 6] = [
    "drain",
    "streamerson",
    "streamerson-worker",
    "bare-axum",
    "axum-nats",
    "nats-worker",
];

/// In the order they are measured: what is compared stands together, so that both see the same minute of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    Axum,
    StreamersonEmbeddedOs,
    StreamersonEmbeddedDisk,
    StreamersonRedisSingle,
    NginxAxum,
    StreamersonRedis,
    AxumNats,
    StreamersonRedisAof,
}

impl System {
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Axum => "axum answers by itself: no hop, nothing stored",
            Self::NginxAxum => {
                "nginx proxies to axum over kept-alive connections: one hop, nothing stored"
            }
            Self::AxumNats => "axum asks a Rust worker by NATS core request-reply: nothing stored",
            Self::StreamersonRedis => {
                "gateway and worker as two processes over Redis Streams, every message stored in the memory of Redis \
                 (`save \"\"`, `appendonly no`)"
            }
            Self::StreamersonRedisAof => {
                "the same, and Redis writes every message to its log (`appendonly yes`, `appendfsync everysec`)"
            }
            Self::StreamersonRedisSingle => {
                "gateway and worker in one process over the Redis of `streamerson-redis`"
            }
            Self::StreamersonEmbeddedOs => {
                "gateway, worker and embedded broker in one process, every message and settlement stored in class `os`"
            }
            Self::StreamersonEmbeddedDisk => {
                "the same in class `disk`: on disk before it is acknowledged, one fsync shared by a batch"
            }
        }
    }

    /// Starts the servers, and answers where the system takes requests.
    pub(crate) fn start(self, stage: &mut Stage<'_>) -> Result<SocketAddr> {
        match self {
            Self::Axum => axum(stage),
            Self::NginxAxum => nginx_axum(stage),
            Self::AxumNats => axum_nats(stage),
            Self::StreamersonRedis => streamerson_redis(stage, AppendOnly::No),
            Self::StreamersonRedisAof => streamerson_redis(stage, AppendOnly::EverySecond),
            Self::StreamersonRedisSingle => streamerson_redis_single(stage),
            Self::StreamersonEmbeddedOs => streamerson_embedded(stage, "os"),
            Self::StreamersonEmbeddedDisk => streamerson_embedded(stage, "disk"),
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value()
            .map_or(Ok(()), |value| out.pad(value.get_name()))
    }
}

fn axum(stage: &mut Stage<'_>) -> Result<SocketAddr> {
    let [address] = free_addresses()?;
    stage.start("axum", stage.own("bare-axum").arg(address.to_string()))?;
    Ok(address)
}

fn nginx_axum(stage: &mut Stage<'_>) -> Result<SocketAddr> {
    let [address] = free_addresses()?;
    let upstream = axum(stage)?;
    let configuration = stage.write(
        "nginx.conf",
        &nginx_configuration(address, upstream, stage.folder()),
    )?;
    let mut nginx = NGINX.command();
    nginx
        .arg("-e")
        .arg(stage.folder().join("nginx-error.log"))
        .arg("-c")
        .arg(configuration);
    stage.start("nginx", &mut nginx)?;
    Ok(address)
}

/// Keep-alive on both sides, long enough that no connection is replaced during a measurement, and
/// enough idle upstream connections for every client of a worker.
fn nginx_configuration(address: SocketAddr, upstream: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
pid {folder}/nginx.pid;
worker_processes auto;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_requests 10000000;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream axum {{
        server {upstream};
        keepalive 512;
        keepalive_requests 10000000;
    }}
    server {{
        listen {address} backlog=4096;
        location / {{
            proxy_pass http://axum;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
    )
}

fn axum_nats(stage: &mut Stage<'_>) -> Result<SocketAddr> {
    let [address, nats] = free_addresses()?;
    let mut server = NATS.command();
    server.args([
        "--addr",
        &nats.ip().to_string(),
        "--port",
        &nats.port().to_string(),
    ]);
    stage.start("nats", &mut server)?;
    stage.wait_for_port(nats)?;
    let url = format!("nats://{nats}");
    stage.start("worker", stage.own("nats-worker").arg(&url))?;
    stage.start(
        "gateway",
        stage.own("axum-nats").arg(address.to_string()).arg(&url),
    )?;
    Ok(address)
}

/// Whether Redis keeps what it stores beyond its own end.
#[derive(Debug, Clone, Copy)]
enum AppendOnly {
    No,
    EverySecond,
}

/// Starts a private Redis, and answers its URL.
fn redis(stage: &mut Stage<'_>, append_only: AppendOnly) -> Result<String> {
    let [address] = free_addresses()?;
    let mut server = REDIS.command();
    server.args([
        "--bind",
        &address.ip().to_string(),
        "--port",
        &address.port().to_string(),
        "--save",
        "",
    ]);
    server.arg("--dir").arg(stage.folder());
    match append_only {
        AppendOnly::No => server.args(["--appendonly", "no"]),
        AppendOnly::EverySecond => {
            server.args(["--appendonly", "yes", "--appendfsync", "everysec"])
        }
    };
    stage.start("redis", &mut server)?;
    stage.wait_for_port(address)?;
    Ok(format!("redis://{address}"))
}

/// A private Redis that keeps nothing beyond its own end.
pub(crate) fn plain_redis(stage: &mut Stage<'_>) -> Result<String> {
    redis(stage, AppendOnly::No)
}

fn streamerson_redis(stage: &mut Stage<'_>, append_only: AppendOnly) -> Result<SocketAddr> {
    let [address, admin] = free_addresses()?;
    let url = redis(stage, append_only)?;
    stage.start("worker", stage.own("streamerson-worker").arg(&url))?;
    let configuration = stage.write(
        "gateway.toml",
        &format!(
            "[gateway]
admin = \"{admin}\"

[[route]]
method = \"POST\"
path = \"/hello/greet\"
topic = \"hello\"
type = \"greet\"
"
        ),
    )?;
    let mut gateway = stage.own("streamerson");
    gateway.arg("gateway").arg("--config").arg(configuration);
    gateway.args(["--listen", &address.to_string(), "--broker", &url]);
    stage.start("gateway", &mut gateway)?;
    Ok(address)
}

fn streamerson_redis_single(stage: &mut Stage<'_>) -> Result<SocketAddr> {
    let url = redis(stage, AppendOnly::No)?;
    streamerson_dev(stage, &["--broker", &url])
}

fn streamerson_embedded(stage: &mut Stage<'_>, durability: &str) -> Result<SocketAddr> {
    let [redis] = free_addresses()?;
    let redis = redis.to_string();
    streamerson_dev(
        stage,
        &[
            "--redis-listen",
            &redis,
            "--data",
            "data",
            "--durability",
            durability,
        ],
    )
}

fn streamerson_dev(stage: &mut Stage<'_>, options: &[&str]) -> Result<SocketAddr> {
    let [address, admin] = free_addresses()?;
    let mut dev = stage.own("streamerson");
    dev.args([
        "dev",
        "--demo",
        "--listen",
        &address.to_string(),
        "--admin",
        &admin.to_string(),
    ]);
    stage.start("streamerson", dev.args(options))?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_ones_of_the_command_line() {
        for system in System::value_variants() {
            assert_eq!(
                System::from_str(&system.to_string(), false).as_ref(),
                Ok(system)
            );
        }
        assert_eq!(format!("{:>6}", System::Axum), "  axum");
    }
}
