//! The servers of one measurement: started, ready, and certainly gone at its end.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::interrupt::Interrupt;
use super::{cpu, probe};

/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(15);

/// A temporary folder and the servers that run in it. Dropping it kills the servers.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    programs: &'a Path,
    interrupt: &'a Interrupt,
    servers: Vec<Server>,
    folder: TempDir,
}

impl<'a> Stage<'a> {
    /// A stage in a folder of its own inside `programs`, which holds our own programs.
    pub(crate) fn new(programs: &'a Path, interrupt: &'a Interrupt) -> Result<Self> {
        Ok(Self {
            programs,
            interrupt,
            servers: Vec::new(),
            folder: TempDir::new_in(programs)?,
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A command that runs one of our own programs, with the settings it is given and no other.
    pub(crate) fn own(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"STREAMERSON_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Writes a configuration file.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let file = self.folder().join(name);
        fs::write(&file, content)?;
        Ok(file)
    }

    /// Starts a server, called `name` in the report.
    pub(crate) fn start(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        self.servers
            .push(Server::start(name, command, self.folder.path())?);
        Ok(())
    }

    /// Waits until something listens on `address`.
    pub(crate) fn wait_for_port(&mut self, address: SocketAddr) -> Result<()> {
        self.wait(|| {
            if probe::connects(address) {
                Ok(())
            } else {
                bail!("nothing listens on {address}")
            }
        })
    }

    /// Waits until `address` gives the right answer.
    pub(crate) fn wait_for_answer(&mut self, address: SocketAddr) -> Result<()> {
        self.wait(|| probe::ask(address))
    }

    fn wait(&mut self, ready: impl Fn() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = ready() {
            for server in &mut self.servers {
                server.check()?;
            }
            if Instant::now() > deadline {
                return Err(error.context(format!("not ready within {PATIENCE:?}")));
            }
            self.interrupt.pause()?;
        }
        Ok(())
    }

    /// The CPU time each server has used.
    pub(crate) fn cpu(&self) -> Result<Vec<(&'static str, Duration)>> {
        let of = |server: &Server| Ok((server.name, cpu::of_group(server.group())?));
        self.servers.iter().map(of).collect()
    }

    /// The last lines that each server has printed, to explain a failure.
    pub(crate) fn logs(&self) -> String {
        self.servers.iter().filter_map(Server::log).collect()
    }
}

/// `N` different addresses that were free a moment ago.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut listeners = Vec::with_capacity(N);
    for _ in 0..N {
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}

/// A process that leads a group of its own, so that what it forks is counted and killed with it.
#[derive(Debug)]
struct Server {
    name: &'static str,
    process: Child,
    log: PathBuf,
}

impl Server {
    fn start(name: &'static str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        command.current_dir(folder).process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { name, process, log })
    }

    fn group(&self) -> u32 {
        self.process.id()
    }

    /// Fails when the server has ended.
    fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("{} ended: {status}", self.name),
            None => Ok(()),
        }
    }

    fn log(&self) -> Option<String> {
        let text = fs::read_to_string(&self.log)
            .ok()
            .filter(|text| !text.is_empty())?;
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        Some(format!("\n--- {} printed:\n{last}", self.name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing they hold is worth a graceful end, and only SIGKILL cannot be ignored.
        if let Some(group) = Pid::from_raw(self.group().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn free_addresses_differ() {
        let [a, b, c] = free_addresses().unwrap();
        assert!(a != b && b != c && a != c);
        assert!(!probe::connects(a));
    }

    #[test]
    fn a_server_that_ends_is_an_error_and_leaves_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::default();
        let mut stage = Stage::new(folder.path(), &interrupt).unwrap();
        let [address] = free_addresses().unwrap();
        stage
            .start("broken", &mut shell("echo no such option; exit 2"))
            .unwrap();

        let error = stage.wait_for_port(address).unwrap_err();

        assert_eq!(error.to_string(), "broken ended: exit status: 2");
        assert_eq!(stage.logs(), "\n--- broken printed:\nno such option");
    }

    #[test]
    fn dropping_a_stage_kills_what_its_servers_forked() {
        let folder = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::default();
        let mut stage = Stage::new(folder.path(), &interrupt).unwrap();
        stage
            .start("parent", &mut shell("sleep 1000 & echo $! > child; wait"))
            .unwrap();
        let file = stage.folder().join("child");
        stage
            .wait(|| fs::read_to_string(&file).map(drop).map_err(Into::into))
            .unwrap();
        let mut child = String::new();
        while !child.ends_with('\n') {
            child = fs::read_to_string(&file).unwrap();
        }

        drop(stage);

        // A killed process may take a moment to end.
        let has_ended = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
            stat.is_err() || stat.unwrap().contains(") Z ")
        };
        let latest = Instant::now() + Duration::from_secs(10);
        while !has_ended() && Instant::now() < latest {
            std::thread::yield_now();
        }
        assert!(has_ended(), "still running");
    }
}
