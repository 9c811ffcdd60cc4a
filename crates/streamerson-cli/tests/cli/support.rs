//! What the tests share: the command itself, a running `dev`, and plain HTTP.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use streamerson_core::{Append, Broker, Message, Name, Position, Topic};
use streamerson_testkit::process::Process;
use streamerson_testkit::redis::RedisServer;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The bound of every wait; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const BINARY: &str = env!("CARGO_BIN_EXE_streamerson");
const VARIABLES: [&str; 4] = [
    "STREAMERSON_BROKER",
    "STREAMERSON_NAMESPACE",
    "STREAMERSON_LOG_FORMAT",
    "RUST_LOG",
];

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What it printed, after success.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }

    /// What it printed as JSON, after success.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Checks exit code and error code, and answers what it said on stderr.
    #[track_caller]
    pub(crate) fn failed(self, exit: i32, code: &str) -> String {
        assert_eq!(self.code, exit, "{}", self.stderr);
        assert!(
            self.stderr.starts_with("error: ") && self.stderr.contains(&format!("({code})")),
            "{}",
            self.stderr
        );
        self.stderr
    }
}

impl Ended {
    /// The same for a command that has shown first what it would do, and was not told to.
    #[track_caller]
    pub(crate) fn failed_after_preview(self, code: &str) {
        assert_eq!((self.code, &*self.stdout), (2, ""), "{}", self.stderr);
        assert!(
            self.stderr.contains(&format!("({code})")),
            "{}",
            self.stderr
        );
    }
}

/// Runs `streamerson` to its end.
pub(crate) async fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    run_with_input(arguments, b"").await
}

/// Runs `streamerson` to its end, with `input` on its stdin.
pub(crate) async fn run_with_input<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Ended {
    let mut command = tokio::process::Command::new(BINARY);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    let mut child = command.spawn().unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input).await;
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("the command ends")
        .unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A `streamerson` that keeps running, killed when this is dropped.
pub(crate) struct Running {
    pub(crate) process: Process,
    lines: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Starts `streamerson`; what it prints on stdout and stderr is kept.
    pub(crate) fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Running {
        Running::start_in(Path::new("."), arguments)
    }

    /// Starts `streamerson` in a directory.
    pub(crate) fn start_in<A: AsRef<OsStr>>(
        directory: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Running {
        Running::start_with(directory, arguments, &[])
    }

    /// Starts `streamerson` in a directory, with these variables in its environment.
    pub(crate) fn start_with<A: AsRef<OsStr>>(
        directory: &Path,
        arguments: impl IntoIterator<Item = A>,
        environment: &[(&str, OsString)],
    ) -> Running {
        let mut command = std::process::Command::new(BINARY);
        command
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::spawn(&mut command).unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        let stderr = BufReader::new(process.take_stderr().unwrap());
        let stdout = BufReader::new(process.take_stdout().unwrap());
        forward(stderr, sender.clone());
        forward(stdout, sender);
        Running {
            process,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that contains `text`.
    pub(crate) async fn line(&mut self, text: &str) -> String {
        let waiting = async {
            while let Some(line) = self.lines.recv().await {
                self.seen.push(line.clone());
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        };
        match timeout(PATIENCE, waiting).await {
            Ok(Some(line)) => line,
            _ => panic!("no line with {text:?} in {:#?}", self.seen),
        }
    }

    /// Waits for its end, and answers its exit code and all it said.
    pub(crate) async fn ended(mut self) -> (i32, String) {
        let status = self
            .process
            .exited(PATIENCE)
            .await
            .expect("the command ends");
        while let Ok(Some(line)) = timeout(PATIENCE, self.lines.recv()).await {
            self.seen.push(line);
        }
        (status.code().unwrap_or(-1), self.seen.join("\n"))
    }
}

fn forward(source: impl BufRead + Send + 'static, sender: mpsc::UnboundedSender<String>) {
    std::thread::spawn(move || {
        for line in source.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
}

/// A running `streamerson dev` with its files in a directory of its own.
pub(crate) struct Dev {
    pub(crate) running: Running,
    pub(crate) directory: TempDir,
    /// `http://…` of the gateway.
    pub(crate) http: String,
    /// `redis://…` of the Redis-protocol port; empty when there is none.
    pub(crate) broker: String,
    /// `http://…` of the admin port.
    pub(crate) admin: String,
}

/// Arguments that let the system choose the ports.
pub(crate) const FREE_PORTS: [&str; 6] = [
    "--listen",
    "127.0.0.1:0",
    "--redis-listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
];

impl Dev {
    /// Starts `dev` on the embedded broker, and waits until it is ready.
    pub(crate) async fn start(arguments: &[&str]) -> Dev {
        let directory = tempfile::tempdir().unwrap();
        Dev::start_in(directory, arguments).await
    }

    /// Starts `dev` on the embedded broker in `directory`, and waits until it is ready.
    pub(crate) async fn start_in(directory: TempDir, arguments: &[&str]) -> Dev {
        let arguments: Vec<&str> = ["dev"]
            .into_iter()
            .chain(FREE_PORTS)
            .chain(arguments.iter().copied())
            .collect();
        Dev::ready(Running::start_in(directory.path(), arguments), directory).await
    }

    /// Starts `dev` on the embedded broker with these variables in its environment, and waits until it is ready.
    pub(crate) async fn start_with(environment: &[(&str, OsString)]) -> Dev {
        let directory = tempfile::tempdir().unwrap();
        let arguments = ["dev"].into_iter().chain(FREE_PORTS);
        let running = Running::start_with(directory.path(), arguments, environment);
        Dev::ready(running, directory).await
    }

    /// Starts `dev` on the broker at `url`, and waits until it is ready.
    pub(crate) async fn start_on(url: &str, arguments: &[&str]) -> Dev {
        let directory = tempfile::tempdir().unwrap();
        let ports = [
            "dev",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--broker",
            url,
        ];
        let arguments = ports.iter().chain(arguments);
        Dev::ready(Running::start_in(directory.path(), arguments), directory).await
    }

    async fn ready(mut running: Running, directory: TempDir) -> Dev {
        let http = address(&running.line("gateway ").await, "http://");
        let broker = address(&running.line("broker ").await, "redis://");
        let admin = address(&running.line("admin ").await, "http://");
        running.line("stop ").await;
        Dev {
            running,
            directory,
            http,
            broker,
            admin,
        }
    }

    /// Stops it with SIGTERM, waits for its end, and gives its directory back.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.running.process.terminate();
        let (code, said) = self.running.ended().await;
        assert_eq!(code, 0, "{said}");
        self.directory
    }

    /// Runs a command against this broker.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        run(arguments.iter().chain(&["--broker", &self.broker])).await
    }

    /// POSTs `body` to the gateway.
    pub(crate) async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        http("POST", &format!("{}{path}", self.http), body).await
    }
}

fn address(line: &str, scheme: &str) -> String {
    let rest = line.split_once(scheme).map_or("", |(_, rest)| rest);
    let end = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || ".:[]".contains(c)))
        .unwrap_or(rest.len());
    format!("{scheme}{}", &rest[..end])
}

/// One HTTP exchange; a body that is not JSON is answered as text.
pub(crate) async fn http(method: &str, url: &str, body: &str) -> (u16, Value) {
    let request = hyper::Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = timeout(PATIENCE, client.request(request))
        .await
        .expect("the gateway answers")
        .unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    (
        status,
        serde_json::from_slice(&body).unwrap_or(Value::String(text)),
    )
}

/// Makes two tests of each function that takes a [`Place`]: on the embedded broker through its port, and on Redis.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod on_dev {
            $(#[tokio::test] async fn $test() { super::$test(super::Place::dev().await).await; })*
        }
        mod on_redis {
            $(#[tokio::test] async fn $test() { super::$test(super::Place::redis().await).await; })*
        }
    };
}
pub(crate) use on_both;

/// A broker that commands and the test itself talk to.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) broker: Arc<dyn Broker>,
    _server: Server,
}

enum Server {
    Dev(#[expect(dead_code, reason = "kept running")] Box<Dev>),
    Redis(#[expect(dead_code, reason = "kept running")] RedisServer),
    Elsewhere,
}

impl Place {
    /// The embedded broker of a running `dev`, through its Redis-protocol port.
    pub(crate) async fn dev() -> Place {
        let dev = Dev::start(&[]).await;
        Place::at(dev.broker.clone(), Server::Dev(Box::new(dev))).await
    }

    /// A Redis.
    pub(crate) async fn redis() -> Place {
        let redis = RedisServer::start().await;
        Place::at(redis.url(), Server::Redis(redis)).await
    }

    /// A broker that the test itself keeps running.
    pub(crate) async fn of(url: String) -> Place {
        Place::at(url, Server::Elsewhere).await
    }

    async fn at(url: String, server: Server) -> Place {
        let namespace = Name::new("streamerson").unwrap();
        let broker = streamerson::connect_in(&url, namespace).await.unwrap();
        Place {
            url,
            broker,
            _server: server,
        }
    }

    /// Runs a command against this broker.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        run(arguments.iter().chain(&["--broker", &self.url])).await
    }

    /// Starts a command against this broker.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(arguments.iter().chain(&["--broker", &self.url]))
    }

    /// Appends a message per payload.
    pub(crate) async fn send(&self, topic: &str, payloads: &[&str]) -> Vec<Position> {
        let topic = Topic::new(topic.to_owned()).unwrap();
        let message = |data: &&str| Message::new("order.create", data.as_bytes().to_vec());
        let batch = payloads.iter().map(message);
        let batch = batch.map(|message| Append::new(topic.clone(), message));
        let stored = self.broker.append(batch.collect()).await;
        stored.into_iter().map(|stored| stored.unwrap()).collect()
    }

    /// All messages of a topic.
    pub(crate) async fn messages(&self, topic: &str) -> Vec<Message> {
        let topic = Topic::new(topic.to_owned()).unwrap();
        let (mut messages, mut after) = (Vec::new(), Position::ZERO);
        loop {
            let page = self.broker.range(&topic, after, 500).await.unwrap();
            let Some(last) = page.last() else {
                return messages;
            };
            after = last.position;
            messages.extend(page.into_iter().map(|entry| entry.message.unwrap()));
        }
    }

    /// Where the first message of a topic stands.
    pub(crate) async fn first(&self, topic: &str) -> String {
        self.ends(topic).await.0
    }

    /// Where the last message of a topic stands.
    pub(crate) async fn last(&self, topic: &str) -> String {
        self.ends(topic).await.1
    }

    async fn ends(&self, topic: &str) -> (String, String) {
        let topic = Topic::new(topic.to_owned()).unwrap();
        let stats = self.broker.stats(&topic).await.unwrap();
        let text = |position: Option<Position>| position.unwrap().to_string();
        (text(stats.first), text(stats.last))
    }
}
