//! What the figures were measured on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::measurement::{Spread, cores};
use crate::command::{output, workspace_root};
use crate::packages::{NATS, NGINX, REDIS, WRK};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// What the class `disk` waits for: a 4 KiB append and its fdatasync, median.
    pub(crate) fsync_micros: f64,
    pub(crate) versions: Vec<String>,
}

impl Machine {
    /// This machine, with a disk under `data`.
    pub(crate) fn here(data: &Path) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        Ok(Self {
            date: first_line(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?,
            commit: commit(),
            cpu: cpu_model(&cpus).unwrap_or("unknown").to_owned(),
            cores: cores(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            fsync_micros: fsync(data)?.as_secs_f64() * 1e6,
            versions: versions()?,
        })
    }
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"])
        .current_dir(workspace_root());
    // A source archive has no history, and can be measured all the same.
    first_line(&mut git).unwrap_or_else(|_| "unknown".to_owned())
}

fn versions() -> Result<Vec<String>> {
    Ok(vec![
        first_line(NGINX.command().arg("-v"))?.replace("nginx version: ", ""),
        short_redis(&first_line(REDIS.command().arg("--version"))?),
        first_line(NATS.command().arg("--version"))?.replace(": ", " "),
        wrk_version()?,
        first_line(Command::new("rustc").arg("--version"))?,
    ])
}

fn short_redis(line: &str) -> String {
    let version = line.split(' ').find_map(|word| word.strip_prefix("v="));
    version.map_or_else(
        || line.to_owned(),
        |version| format!("redis-server {version}"),
    )
}

/// wrk shows its version only above its usage, with which it fails.
fn wrk_version() -> Result<String> {
    let shown = WRK
        .command()
        .arg("-v")
        .output()
        .context("cannot start wrk")?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    Ok(shown.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

fn first_line(command: &mut Command) -> Result<String> {
    Ok(output(command)?
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned())
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim())
}

fn fsync(folder: &Path) -> Result<Duration> {
    let path = folder.join("bench-fsync");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..64 {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64());
    }
    fs::remove_file(&path)?;
    let median = Spread::of(times).context("no fsync was timed")?.median;
    Ok(Duration::from_secs_f64(median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_model_is_the_text_after_the_colon() {
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 7: x\n"),
            Some("AMD EPYC 7: x")
        );
        assert_eq!(cpu_model("processor\t: 0\n"), None);
    }

    #[test]
    fn redis_version_is_shortened() {
        let line = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1";
        assert_eq!(short_redis(line), "redis-server 7.0.15");
        assert_eq!(short_redis("valkey 8"), "valkey 8");
    }
}
