//! The settings of a private Redis server.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{PORTS, RedisServer, certificates, clock};
use crate::ports::Reserved;

pub(super) const INSTALL: &str = "install it by `apt-get install redis-server`, or run the tests by `cargo xtask test`, which does it for you";

/// Settings of a [`RedisServer`] to be.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    lines: Vec<(String, String)>,
    pub(super) password: Option<String>,
    pub(super) tls: bool,
    pub(super) clock: bool,
    program: Option<String>,
}

impl Builder {
    /// A line of redis.conf: `.arg("maxmemory", "10mb")`. Later lines win, also over what is set by default.
    pub fn arg(mut self, name: &str, value: &str) -> Builder {
        self.lines.push((name.into(), value.into()));
        self
    }

    /// Keeps an append-only file with `fsync` one of `always`, `everysec`, `no`.
    pub fn appendonly(self, fsync: &str) -> Builder {
        self.arg("appendonly", "yes").arg("appendfsync", fsync)
    }

    /// Asks for a password, of letters and digits.
    pub fn password(mut self, password: &str) -> Builder {
        self.password = Some(password.into());
        self.arg("requirepass", password)
    }

    /// Accepts TLS only, with a certificate for `localhost` and 127.0.0.1 by
    /// [`RedisServer::certificate_authority`]. Clients need no certificate, unless told by `.arg("tls-auth-clients", "yes")`.
    pub fn tls(mut self) -> Builder {
        self.tls = true;
        self
    }

    /// Gives it a clock of its own, which [`RedisServer::set_clock`] makes wrong.
    pub fn clock(mut self) -> Builder {
        self.clock = true;
        self
    }

    /// The program to run, in place of `redis-server` or of what the variable `STREAMERSON_TEST_REDIS` names: another
    /// version, or Valkey.
    pub fn program(mut self, program: &str) -> Builder {
        self.program = Some(program.into());
        self
    }

    /// Starts the server, and waits until it answers.
    ///
    /// # Panics
    ///
    /// When there is no redis-server, or it does not start; the message says what to do.
    pub async fn start(self) -> RedisServer {
        let mut last = String::new();
        for _ in 0..PORTS {
            match self.try_start().await {
                Ok(server) => return server,
                // Someone took the port between the choice and the start.
                Err(reason) if reason.contains("Address already in use") => last = reason,
                Err(reason) => panic!("{reason}"),
            }
        }
        panic!("found no free port in {PORTS} attempts: {last}");
    }

    async fn try_start(&self) -> Result<RedisServer, String> {
        let folder = tempfile::Builder::new()
            .prefix("streamerson-redis-")
            .tempdir()
            .map_err(|error| format!("no folder for temporary files: {error}"))?;
        let port = Reserved::any()
            .map_err(|error| format!("no free port: {error}"))?
            .port();
        if self.tls {
            certificates::write(folder.path()).map_err(|error| format!("certificates: {error}"))?;
        }
        if self.clock {
            clock::prepare(folder.path()).map_err(|error| format!("clock: {error}"))?;
        }
        fs::write(
            folder.path().join("redis.conf"),
            self.configuration(folder.path(), port),
        )
        .map_err(|error| format!("redis.conf: {error}"))?;
        let mut server = RedisServer {
            process: None,
            reserved: None,
            port,
            settings: self.clone(),
            folder,
        };
        server.process = Some(server.launch().await?);
        Ok(server)
    }

    pub(super) fn executable(&self) -> String {
        let chosen = self.program.clone();
        chosen
            .or_else(|| env::var("STREAMERSON_TEST_REDIS").ok())
            .unwrap_or_else(|| "redis-server".into())
    }

    fn configuration(&self, folder: &Path, port: u16) -> String {
        let folder = folder.display();
        let mut text = format!(
            "bind 127.0.0.1\nprotected-mode no\ndaemonize no\ndir {folder}\nlogfile \"\"\n\
             unixsocket {folder}/redis.sock\nsave \"\"\nappendonly no\n"
        );
        if self.tls {
            let _ = write!(
                text,
                "port 0\ntls-port {port}\ntls-auth-clients no\ntls-ca-cert-file {folder}/{}\n\
                 tls-cert-file {folder}/{}\ntls-key-file {folder}/{}\n",
                certificates::AUTHORITY,
                certificates::CERTIFICATE,
                certificates::KEY
            );
        } else {
            let _ = writeln!(text, "port {port}");
        }
        for (name, value) in &self.lines {
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }
}
