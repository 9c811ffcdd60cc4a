//! The programs that tests and benchmarks run, installed from Debian packages where they are missing.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command;

/// A program, and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    name: &'static str,
    package: &'static str,
}

pub(crate) const REDIS: Program = Program {
    name: "redis-server",
    package: "redis-server",
};
/// Runs the sample reader of the wire protocol.
pub(crate) const PYTHON: Program = Program {
    name: "python3",
    package: "python3",
};
/// Sets the clock of single processes.
pub(crate) const FAKETIME: Program = Program {
    name: "faketime",
    package: "faketime",
};
pub(crate) const NGINX: Program = Program {
    name: "nginx",
    package: "nginx-light",
};
pub(crate) const NATS: Program = Program {
    name: "nats-server",
    package: "nats-server",
};
pub(crate) const WRK: Program = Program {
    name: "wrk",
    package: "wrk",
};

impl Program {
    /// A command that runs this program.
    pub(crate) fn command(self) -> Command {
        Command::new(self.find().unwrap_or_else(|| self.name.into()))
    }

    fn find(self) -> Option<PathBuf> {
        // Debian leaves /usr/sbin, the home of nginx and nats-server, out of the PATH of most users.
        let path = env::var_os("PATH").unwrap_or_default();
        find(self.name, &[path.as_os_str(), OsStr::new("/usr/sbin")])
    }
}

/// Installs what is missing of `programs`.
///
/// # Errors
///
/// Says what to install by hand where this machine has no apt-get, or apt-get fails.
pub(crate) fn ensure(programs: &[Program]) -> Result<()> {
    let missing = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing
        .iter()
        .map(|program| program.package)
        .collect::<Vec<_>>()
        .join(" ");
    eprintln!("not on this machine: {packages}; installing by apt-get");
    install(&missing).with_context(|| format!("please install by hand: {packages}"))?;
    match self::missing(&missing).first() {
        Some(program) => bail!(
            "package {} brought no program {}",
            program.package,
            program.name
        ),
        None => Ok(()),
    }
}

fn install(programs: &[Program]) -> Result<()> {
    command::run(apt_get().arg("update"))?;
    let packages = programs.iter().map(|program| program.package);
    command::run(
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}

fn apt_get() -> Command {
    let noninteractive = ["DEBIAN_FRONTEND=noninteractive", "apt-get"];
    if rustix::process::geteuid().is_root() {
        let mut env = Command::new("env");
        env.args(noninteractive);
        env
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("env").args(noninteractive);
        sudo
    }
}

fn missing(programs: &[Program]) -> Vec<Program> {
    programs
        .iter()
        .copied()
        .filter(|program| program.find().is_none())
        .collect()
}

fn find(name: &str, paths: &[&OsStr]) -> Option<PathBuf> {
    let folders = paths.iter().flat_map(env::split_paths);
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_any_folder_of_any_path() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("redis-server");
        std::fs::write(&program, "").unwrap();
        let path = env::join_paths([OsStr::new("/nowhere"), folder.path().as_os_str()]).unwrap();

        let found = find("redis-server", &[OsStr::new("/elsewhere"), &path]);

        assert_eq!(found, Some(program));
        assert_eq!(find("nats-server", &[&path]), None);
    }

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        let shell = Program {
            name: "sh",
            package: "no-such-package",
        };
        ensure(&[shell]).unwrap();
    }
}
