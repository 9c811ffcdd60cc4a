//! A gateway with a broker behind it, and the example that works on it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use streamerson::core::{Broker, Name};
use streamerson_embedded::port::Port;
use streamerson_embedded::{EmbeddedBroker, Options};
use streamerson_gateway::{Config, Environment, Gateway, Server};
use streamerson_testkit::process::Process;
use streamerson_testkit::redis::RedisServer;
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A gateway and its broker, for as long as this lives.
pub(crate) struct Stack {
    url: String,
    broker: String,
    client: Client<HttpConnector, Full<Bytes>>,
    workers: Vec<Process>,
    _kept: Kept,
}

/// What the broker needs to live.
enum Kept {
    Embedded { _directory: TempDir },
    Redis { _server: RedisServer },
}

/// What the gateway answered.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: Value,
}

impl Stack {
    /// On the embedded broker; the example reaches it through its Redis-protocol port.
    pub(crate) async fn embedded(routes: Option<&str>) -> Stack {
        let directory = tempfile::tempdir().unwrap();
        let broker = EmbeddedBroker::open(directory.path(), Options::default()).unwrap();
        let port = Port::bind(ANY, broker.clone(), Name::new("streamerson").unwrap()).unwrap();
        let url = format!("redis://{}", port.local_addr());
        tokio::spawn(port.serve(std::future::pending()));
        let kept = Kept::Embedded {
            _directory: directory,
        };
        Stack::on(Arc::new(broker), url, routes, kept).await
    }

    /// On a private Redis.
    pub(crate) async fn redis(routes: Option<&str>) -> Stack {
        let server = RedisServer::start().await;
        let url = server.url();
        let broker = streamerson::connect(&url).await.unwrap();
        Stack::on(broker, url, routes, Kept::Redis { _server: server }).await
    }

    async fn on(broker: Arc<dyn Broker>, url: String, routes: Option<&str>, kept: Kept) -> Stack {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut config = match routes {
            Some(routes) => Config::load(&folder.join(routes), &Environment::empty()).unwrap(),
            None => Config::default(),
        };
        config.serve_every_topic();
        let gateway = Gateway::open(broker, &config).await.unwrap();
        let server = Server::bind(ANY, "", &config.gateway.limits).unwrap();
        let address = server.local_addr();
        tokio::spawn(server.serve(gateway, std::future::pending(), || ()));
        Stack {
            url: format!("http://{address}"),
            broker: url,
            client: Client::builder(TokioExecutor::new()).build_http(),
            workers: Vec::new(),
            _kept: kept,
        }
    }

    /// Runs an example on this broker.
    pub(crate) fn run(&mut self, program: &str, arguments: &[&str]) {
        let process = Process::spawn(
            Command::new(program)
                .args(arguments)
                .env("STREAMERSON_BROKER", &self.broker)
                .stdin(Stdio::null()),
        );
        self.workers.push(process.unwrap());
    }

    /// Stops the examples with SIGTERM, and checks that they end well.
    pub(crate) async fn stop(mut self) {
        for worker in &mut self.workers {
            worker.terminate();
        }
        for mut worker in self.workers {
            let status = worker.exited(PATIENCE).await.expect("the example ends");
            assert!(status.success(), "{status}");
        }
    }

    /// One HTTP exchange.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = timeout(PATIENCE, self.client.request(request))
            .await
            .expect("the gateway answers")
            .unwrap();
        let status = response.status().as_u16();
        let location = response.headers().get("location");
        let location = location.map(|value| value.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer {
            status,
            location,
            body,
        }
    }
}
