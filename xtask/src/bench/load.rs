//! wrk, and what it reports.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::interrupt::Interrupt;
use super::probe;
use crate::packages::WRK;

/// The result that `post.lua` prints.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    micros: u64,
    p50_micros: u64,
    p99_micros: u64,
    socket_errors: u64,
    bad_statuses: u64,
}

impl Load {
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / Duration::from_micros(self.micros).as_secs_f64()
    }

    pub(crate) fn p50(&self) -> Duration {
        Duration::from_micros(self.p50_micros)
    }

    pub(crate) fn p99(&self) -> Duration {
        Duration::from_micros(self.p99_micros)
    }

    /// Rejects a run whose figures would not be those of a working system.
    fn check(self) -> Result<Self> {
        if self.requests == 0 {
            bail!("no request was answered");
        }
        if self.bad_statuses > 0 {
            bail!(
                "{} of {} responses had an error status",
                self.bad_statuses,
                self.requests
            );
        }
        if self.socket_errors * 1000 > self.requests {
            bail!(
                "{} socket errors in {} requests: more than 0.1 %",
                self.socket_errors,
                self.requests
            );
        }
        Ok(self)
    }
}

/// Keeps `connections` connections busy for `seconds`.
pub(crate) fn run(
    address: SocketAddr,
    connections: u32,
    seconds: u32,
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<Load> {
    let script = folder.join("post.lua");
    std::fs::write(&script, include_str!("post.lua"))?;
    let mut wrk = WRK.command();
    wrk.args([
        "-t2",
        &format!("-c{connections}"),
        &format!("-d{seconds}s"),
        "-s",
    ])
    .arg(script);
    let child = wrk
        .arg(probe::url(address))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    parse(&wait(child.context("cannot start wrk")?, interrupt)?)?.check()
}

fn wait(mut wrk: Child, interrupt: &Interrupt) -> Result<String> {
    let status = loop {
        if let Some(status) = wrk.try_wait()? {
            break status;
        }
        if let Err(interrupted) = interrupt.pause() {
            wrk.kill()?;
            wrk.wait()?;
            return Err(interrupted);
        }
    };
    // On ctrl-c wrk stops early and reports what it has, like at a regular end.
    interrupt.check()?;
    let mut report = String::new();
    wrk.stdout
        .take()
        .context("wrk has no stdout")?
        .read_to_string(&mut report)?;
    if !status.success() {
        bail!("wrk failed: {status}\n{report}");
    }
    Ok(report)
}

fn parse(report: &str) -> Result<Load> {
    let line = report.lines().rev().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("wrk reported no result:\n{report}"))?;
    serde_json::from_str(line).with_context(|| format!("wrk reported {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "Running 8s test @ http://127.0.0.1:1/hello/greet\n  2 threads and 64 connections\n\
        Requests/sec:  94050.75\nTransfer/sec:     11.66MB\n\
        {\"requests\":16000,\"micros\":8000000,\"p50_micros\":465,\"p99_micros\":2100,\"socket_errors\":16,\"bad_statuses\":0}\n";

    #[test]
    fn result_is_read_from_the_line_of_json() {
        let load = parse(REPORT).unwrap().check().unwrap();
        assert_eq!(load.requests_per_second(), 2000.0);
        assert_eq!(load.p50(), Duration::from_micros(465));
        assert_eq!(load.p99(), Duration::from_micros(2100));
    }

    #[test]
    fn report_without_result_is_an_error() {
        assert!(parse("unable to connect to 127.0.0.1:1 Connection refused\n").is_err());
        assert!(parse("{\"requests\":1}").is_err());
    }

    #[test]
    fn failing_requests_spoil_a_run() {
        let spoil =
            |from: &str, to: &str| parse(&REPORT.replace(from, to)).unwrap().check().is_err();
        assert!(spoil("\"bad_statuses\":0", "\"bad_statuses\":1"));
        assert!(spoil("\"socket_errors\":16", "\"socket_errors\":17"));
        assert!(spoil("\"requests\":16000", "\"requests\":0"));
    }
}
