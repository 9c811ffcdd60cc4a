//! `streamerson chaos`: puts a system under load and faults, and judges whether it kept its promises.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use streamerson_core::Name;

use crate::chaos::fault::Fault;
use crate::chaos::report::Report;
use crate::chaos::settings::{Settings, Wanted};
use crate::chaos::{self, Ended};
use crate::duration;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Format, message};

/// Put a broker and its workers under load and faults, and check that nothing is lost and nothing happens twice
///
/// Starts a private broker (or takes one that runs on this machine), workers in processes of their own, and a load of requests
/// and messages. Then it kills workers, stops them, kills the broker, cuts connections, destroys the consumer group,
/// sends messages twice and messages that stop whoever handles them. In the end it reads what the broker holds and judges.
/// Exit code 0: every promise was kept, and every fault has happened.
#[derive(Debug, Args)]
pub(crate) struct Chaos {
    /// The system: embedded (a private `streamerson dev`), redis (a private redis-server with an append-only file that is
    /// written through), or redis://127.0.0.1:PORT, one that runs
    #[arg(long, default_value = "embedded", value_name = "embedded|redis|URL", value_parser = system)]
    broker: Wanted,

    /// Prefix of every key in the broker
    #[arg(long, default_value = "streamerson", value_name = "NAME")]
    namespace: Name,

    /// What goes wrong; by default all that can, and each kind at least once
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULT,…")]
    faults: Vec<Fault>,

    /// At least so many requests
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,

    /// At least so many workers killed
    #[arg(long, default_value_t = 50)]
    kills: u32,

    /// Under load for at least this long
    #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
    duration: Option<Duration>,

    /// How often a worker is killed
    #[arg(long, default_value = "250ms", value_parser = duration::parse, value_name = "DURATION")]
    kill_every: Duration,

    /// How long a message stays with a worker that gives no sign of life
    #[arg(long, default_value = "5s", value_parser = duration::parse, value_name = "DURATION")]
    lease: Duration,

    /// Messages per second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// Workers at the same time
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(2..=64))]
    workers: u8,

    /// The order of what is left to chance; by default another one each time
    #[arg(long)]
    seed: Option<u64>,

    /// Fail unless 99 of 100 messages of killed workers, and 99 of 100 of their partitions, were taken over within this time
    #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
    takeover_within: Option<Duration>,

    /// Keep the broker's files and the logs of its workers in this directory
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,

    /// How to print the report
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Chaos {
    pub(crate) async fn run(self) -> Result<()> {
        let output = self.output;
        let settings = self.settings()?;
        let Ended { report, struck } = chaos::run(settings).await?;
        let judged = report.and_then(|report| tell(&report, output));
        match (judged, struck) {
            (Ok(()), struck) => struck,
            (Err(failure), Ok(())) => Err(failure),
            (Err(failure), Err(left)) => {
                message(&left.to_string());
                Err(failure)
            }
        }
    }

    fn settings(self) -> Result<Settings> {
        let runs_already = matches!(self.broker, Wanted::Running(_));
        let faults = match self.faults.is_empty() {
            false => self.faults,
            true => Fault::all()
                .iter()
                .copied()
                .filter(|fault| !(runs_already && *fault == Fault::Broker))
                .collect(),
        };
        if runs_already && faults.contains(&Fault::Broker) {
            return Err(Failure::usage(
                "fault-impossible",
                "--faults broker kills the broker, and the one that --broker names was started by somebody else",
            )
            .with_help("leave broker out of --faults, or leave it to chaos to start one: --broker embedded or redis"));
        }
        Ok(Settings {
            system: self.broker,
            namespace: self.namespace,
            kills: match faults.contains(&Fault::Kill) {
                true => self.kills as usize,
                false => 0,
            },
            faults,
            requests: self.requests as usize,
            duration: self.duration.unwrap_or_default(),
            kill_every: self.kill_every,
            lease: self.lease,
            rate: self.rate,
            workers: self.workers.into(),
            seed: self.seed.unwrap_or_else(|| rand::random::<u32>().into()),
            takeover_within: self.takeover_within,
            files: self.files,
        })
    }
}

/// Prints the report; what was not kept is a failure.
fn tell(report: &Report, output: Format) -> Result<()> {
    report.print(output)?;
    if report.verdict.holds {
        return Ok(());
    }
    let detail = format!(
        "a promise was broken, or the run does not prove that it was kept (seed {})",
        report.seed
    );
    Err(Failure::new(Exit::Failed, "promise-broken", detail)
        .with_help("see the violations, and what must have happened, in the report"))
}

/// Which system the run is about. Only this machine: a run does harm.
fn system(text: &str) -> Result<Wanted, String> {
    match text {
        "embedded" => return Ok(Wanted::Embedded),
        "redis" => return Ok(Wanted::Redis),
        _ => (),
    }
    let address = text.strip_prefix("redis://").map(|address| {
        let address = address.trim_end_matches('/');
        address.replacen("localhost", "127.0.0.1", 1)
    });
    let address = address.and_then(|address| address.parse::<SocketAddr>().ok());
    match address {
        Some(address) if address.ip().is_loopback() => Ok(Wanted::Running(address)),
        Some(_) => Err("only a broker of this machine is put under faults".to_owned()),
        None => Err("it is one of embedded, redis, redis://127.0.0.1:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_harmed() {
        assert_eq!(system("embedded"), Ok(Wanted::Embedded));
        let local = SocketAddr::from(([127, 0, 0, 1], 6379));
        for url in ["redis://127.0.0.1:6379", "redis://localhost:6379/"] {
            assert_eq!(system(url), Ok(Wanted::Running(local)));
        }
        for wrong in [
            "redis://10.0.0.1:6379",
            "rediss://127.0.0.1:1",
            "memory:",
            "redis://:p@127.0.0.1:1",
        ] {
            assert!(system(wrong).is_err(), "{wrong}");
        }
    }
}
