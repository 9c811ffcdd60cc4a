//! Private Redis servers.
//!
//! ```no_run
//! # async fn example() {
//! use streamerson_testkit::redis::RedisServer;
//!
//! let mut server = RedisServer::start().await;
//! let url = server.url();
//! server.kill().await; // connections break
//! server.start_again().await; // same port, same files
//! # }
//! ```

mod builder;
mod certificates;
mod clock;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

pub use builder::Builder;

use crate::ports::Reserved;
use crate::process::Process;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a starting server is tried.
const LOOK: Duration = Duration::from_millis(2);
const LOG: &str = "redis.log";
/// How many ports are tried when others take them meanwhile.
const PORTS: usize = 20;

/// A private redis-server on a free port of the loopback interface and on a unix socket, with its files in a folder of
/// its own. It ends with this value, or with the test process.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<Process>,
    /// Keeps the port while no process has it.
    reserved: Option<Reserved>,
    port: u16,
    settings: Builder,
    folder: TempDir,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    ///
    /// # Panics
    ///
    /// When there is no redis-server, or it does not start; the message says what to do.
    pub async fn start() -> RedisServer {
        RedisServer::builder().start().await
    }

    /// A server with settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its URL: `redis://` or `rediss://`, with the password if it has one.
    pub fn url(&self) -> String {
        let scheme = if self.settings.tls { "rediss" } else { "redis" };
        let password = self.settings.password.as_ref();
        let userinfo = password.map_or(String::new(), |password| format!(":{password}@"));
        format!("{scheme}://{userinfo}127.0.0.1:{}", self.port)
    }

    /// The URL of its unix socket.
    pub fn unix_url(&self) -> String {
        let password = self.settings.password.as_ref();
        let query = password.map_or(String::new(), |password| format!("?pass={password}"));
        format!("unix://{}{query}", self.socket().display())
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// The folder with its configuration, log and data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The certificate authority that signed its certificate, as a PEM file. Only with [`Builder::tls`].
    pub fn certificate_authority(&self) -> PathBuf {
        self.folder.path().join(certificates::AUTHORITY)
    }

    /// A certificate that it trusts, and the key, as PEM files: its own. Only with [`Builder::tls`].
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        let folder = self.folder.path();
        (
            folder.join(certificates::CERTIFICATE),
            folder.join(certificates::KEY),
        )
    }

    /// Its TCP port, the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    ///
    /// # Panics
    ///
    /// When it is not running.
    pub fn pid(&self) -> u32 {
        let process = self.process.as_ref();
        process.expect("redis-server is not running").pid()
    }

    /// What it wrote to its log, all starts together.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default()
    }

    /// Ends it in good order: SIGTERM, and waits. Its port stays reserved, and refuses connections.
    pub async fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            process.terminate();
            // A frozen one cannot obey.
            process.resume();
            let exited = process.exited(PATIENCE).await;
            assert!(
                exited.is_some(),
                "redis-server ignored SIGTERM:\n{}",
                self.log()
            );
        }
        self.reserve();
    }

    /// Ends it as a crash does: SIGKILL, and waits. Its port stays reserved, and refuses connections.
    pub async fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.reserve();
    }

    /// Starts it after [`stop`](RedisServer::stop) or [`kill`](RedisServer::kill), on the same port and with the same files.
    ///
    /// # Panics
    ///
    /// When it is running, or does not start.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "redis-server is running");
        drop(self.reserved.take());
        match self.launch().await {
            Ok(process) => self.process = Some(process),
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Stops it in good order and starts it again.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Freezes it, connections open and silent: SIGSTOP.
    pub fn pause(&mut self) {
        if let Some(process) = &mut self.process {
            process.pause();
        }
    }

    /// Lets it go on after [`pause`](RedisServer::pause).
    pub fn resume(&mut self) {
        if let Some(process) = &mut self.process {
            process.resume();
        }
    }

    /// Makes its clock wrong by `seconds`, from now on. Only with [`Builder::clock`].
    ///
    /// # Panics
    ///
    /// When the clock cannot be set.
    pub fn set_clock(&self, seconds: i64) {
        assert!(
            self.settings.clock,
            "it was started with the clock of the system"
        );
        clock::set(self.folder.path(), seconds).expect("the clock can be set");
    }

    /// Runs one command by redis-cli and answers what it printed, for example `server.cli(&["XLEN", "orders"])`.
    ///
    /// # Panics
    ///
    /// When there is no redis-cli.
    pub fn cli(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.arg("-s").arg(self.socket()).args(command);
        if let Some(password) = &self.settings.password {
            cli.env("REDISCLI_AUTH", password);
        }
        let output = cli.output().unwrap_or_else(|error| {
            panic!("redis-cli: {error}; {}", builder::INSTALL);
        });
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    fn reserve(&mut self) {
        if self.process.take().is_some() {
            // If a stranger takes the port in this instant, the next start says so.
            self.reserved = Reserved::exactly(self.port).ok();
        }
    }

    fn open_log(&self) -> Result<File, String> {
        File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(LOG))
            .map_err(|error| format!("{LOG}: {error}"))
    }

    /// Starts the process and waits until it answers.
    async fn launch(&self) -> Result<Process, String> {
        let mut command = Command::new(self.settings.executable());
        command
            .arg(self.folder.path().join("redis.conf"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(self.open_log()?)
            // Where it goes when its configuration is wrong.
            .stderr(self.open_log()?);
        if self.settings.clock {
            clock::apply(&mut command, self.folder.path());
        }
        let _ = std::fs::remove_file(self.socket());
        let mut process = Process::spawn_with_files(&mut command, Some(self.folder.path()))
            .unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; {}",
                    self.settings.executable(),
                    builder::INSTALL
                )
            });
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.answers().await {
                return Ok(process);
            }
            if let Some(status) = process.status() {
                return Err(format!(
                    "redis-server ended at its start ({status}):\n{}",
                    self.log()
                ));
            }
            if Instant::now() >= deadline {
                return Err(format!("redis-server does not answer:\n{}", self.log()));
            }
            sleep(LOOK).await;
        }
    }

    /// Whether it answers a PING: on the unix socket, where it listens after all its ports.
    async fn answers(&self) -> bool {
        let ping = async {
            let mut stream = UnixStream::connect(self.socket()).await.ok()?;
            stream.write_all(b"PING\r\n").await.ok()?;
            let mut reply = [0; 64];
            let length = stream.read(&mut reply).await.ok()?;
            // Without the password it answers so, too; while it loads its data, -LOADING.
            let ready =
                reply[..length].starts_with(b"+PONG") || reply[..length].starts_with(b"-NOAUTH");
            Some(ready)
        };
        let answered = tokio::time::timeout(Duration::from_secs(1), ping).await;
        matches!(answered, Ok(Some(true)))
    }
}
