//! A run, from the first process to the verdict.

use std::time::Duration;

use tokio::time::sleep;

use super::clock;
use super::oracle::{self, Terms};
use super::report::{Figures, Report};
use super::settings::Settings;
use super::stage::Stage;
use crate::failure::{Exit, Failure, Result};
use crate::signal;

/// Deliveries of a message, at most: what workers of the framework do by default.
const ATTEMPTS: usize = 5;

/// The longest run.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) report: Result<Report>,
    /// Whether nothing is left of it.
    pub(crate) struck: Result<()>,
}

/// Runs it, until the verdict or Ctrl-C.
pub(crate) async fn run(settings: Settings) -> Result<Ended> {
    let interrupted = signal::shutdown()?;
    let mut stage = tokio::select! {
        stage = Stage::open(settings) => stage?,
        () = interrupted.cancelled() => return Err(ended_early()),
    };
    let report = tokio::select! {
        report = judge(&mut stage) => report,
        () = interrupted.cancelled() => Err(ended_early()),
        () = sleep(LONGEST) => Err(too_long()),
    };
    Ok(Ended {
        report,
        struck: stage.strike().await,
    })
}

async fn judge(stage: &mut Stage) -> Result<Report> {
    let begun = clock::now();
    let record = stage.play().await?;
    let settings = stage.settings();
    let terms = Terms {
        lease: settings.lease,
        attempts: ATTEMPTS,
        faults: settings.faults.clone(),
        kills: settings.kills,
        takeover_within: settings.takeover_within,
    };
    let capabilities = stage.broker().capabilities();
    Ok(Report {
        broker: capabilities.broker.clone(),
        durability: capabilities.durability.to_string(),
        seed: settings.seed,
        seconds: (clock::now() - begun).as_secs_f64(),
        lease_ms: u64::try_from(settings.lease.as_millis()).unwrap_or(u64::MAX),
        faults: terms.faults.clone(),
        figures: Figures::of(&record),
        verdict: oracle::judge(&record, &terms),
    })
}

fn ended_early() -> Failure {
    Failure::new(
        Exit::Failed,
        "interrupted",
        "the run was ended before its verdict",
    )
}

fn too_long() -> Failure {
    Failure::new(
        Exit::Failed,
        "run-too-long",
        format!("the run did not come to its end within {LONGEST:?}"),
    )
    .with_help("ask for fewer requests or kills, or raise --rate")
}
