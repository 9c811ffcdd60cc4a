//! A run, from the first process to the verdict.

use super::clock;
use super::oracle::{self, Terms};
use super::report::{Figures, Report};
use super::settings::Settings;
use super::stage::Stage;
use crate::failure::{Exit, Failure, Result};
use crate::signal;

/// Deliveries of a message, at most: what workers of the framework do by default.
const ATTEMPTS: usize = 5;

/// Runs it, until the verdict or Ctrl-C.
pub(crate) async fn run(settings: Settings) -> Result<Report> {
    let interrupted = signal::shutdown()?;
    tokio::select! {
        report = judge(settings) => report,
        () = interrupted.cancelled() => Err(Failure::new(
            Exit::Failed,
            "interrupted",
            "the run was ended before its verdict",
        )),
    }
}

async fn judge(settings: Settings) -> Result<Report> {
    let begun = clock::now();
    let terms = Terms {
        lease: settings.lease,
        attempts: ATTEMPTS,
        faults: settings.faults.clone(),
        kills: settings.kills,
        takeover_within: settings.takeover_within,
    };
    let (seed, lease) = (settings.seed, settings.lease);
    let mut stage = Stage::set(settings).await?;
    let record = stage.play().await?;
    let capabilities = stage.broker().capabilities();
    Ok(Report {
        broker: capabilities.broker.clone(),
        durability: capabilities.durability.to_string(),
        seed,
        seconds: (clock::now() - begun).as_secs_f64(),
        lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        faults: terms.faults.clone(),
        figures: Figures::of(&record),
        verdict: oracle::judge(&record, &terms),
    })
}
