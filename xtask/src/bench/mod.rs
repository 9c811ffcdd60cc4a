//! `cargo xtask bench`: Streamerson and its peers, side by side on this machine.
//!
//! One measurement starts the servers of one system afresh, proves that it answers correctly, and
//! loads it with wrk while counting the CPU time of each server process. Rounds are interleaved, and
//! what is compared is measured one after the other, so that a slow minute of the machine hits none
//! alone. Every round starts with the other half of the systems.
//!
//! | module | holds |
//! |---|---|
//! | [`system`] | what is compared: the servers of each system and their settings |
//! | [`stage`] | running servers: start, readiness, logs, and their certain end |
//! | [`probe`] | one HTTP request, to tell that a system answers, and correctly |
//! | [`load`] | wrk and what it reports |
//! | [`cpu`] | CPU time from `/proc` |
//! | [`measurement`] | one measurement, and the summary of several |
//! | [`drain`] | a queue drained by a worker, and by hand |
//! | [`goal`] | the ratios we promise |
//! | [`report`] | all of it as a page of Markdown |
//! | [`machine`] | what the figures were measured on |
//! | [`interrupt`] | ctrl-c |

mod cpu;
mod drain;
mod goal;
mod interrupt;
mod load;
mod machine;
mod measurement;
mod probe;
mod report;
mod stage;
mod system;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::Deserialize;

use self::interrupt::Interrupt;
use self::machine::Machine;
use self::measurement::{Measurement, Workload};
use self::report::Report;
use self::system::System;
use crate::command::{self, cargo};
use crate::packages::{self, NATS, NGINX, REDIS, WRK};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often every system is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// How long one measurement takes, in seconds, after two seconds of warm-up.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// The numbers of concurrent connections.
    #[arg(long, value_delimiter = ',', default_value = "64,256", value_parser = clap::value_parser!(u32).range(2..))]
    connections: Vec<u32>,

    /// The systems to measure; all, when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<System>,

    /// What to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,

    /// Where to write the table as Markdown, too.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Measures, prints the report, and fails if a goal was measured and missed.
pub(crate) fn run(args: &Args) -> Result<()> {
    packages::ensure(&[NGINX, NATS, REDIS, WRK])?;
    let target = build()?;
    let interrupt = Interrupt::listen()?;
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&target)?;
    for program in system::OWN_PROGRAMS {
        // A copy, because somebody may build while we measure.
        fs::copy(
            target.join("release").join(program),
            folder.path().join(program),
        )
        .with_context(|| format!("cannot copy {program}"))?;
    }
    let workload = Workload {
        seconds: args.seconds,
        folder: folder.path().to_owned(),
    };

    let machine = Machine::here(&workload.folder)?;
    let measurements = measure(args, &workload, &interrupt)?;
    let drains = match args.only.as_slice() {
        [] => drain::measure(&workload, args.rounds, &interrupt)?,
        _ => Vec::new(),
    };
    let report = Report::new(machine, args.seconds, measurements, &drains);
    match args.output {
        Format::Table => println!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    if let Some(file) = &args.out {
        fs::write(file, report.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    match report.missed() {
        0 => Ok(()),
        missed => bail!("{missed} of the goals missed"),
    }
}

fn measure(args: &Args, workload: &Workload, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    let mut systems = match args.only.as_slice() {
        [] => System::value_variants().to_vec(),
        only => only.to_vec(),
    };
    let mut measurements = Vec::new();
    for round in 1..=args.rounds {
        for &connections in &args.connections {
            for &system in &systems {
                let measurement =
                    Measurement::take(workload, round, system, connections, interrupt)
                        .with_context(|| format!("{system} with {connections} connections"))?;
                eprintln!("round {round} of {}: {measurement}", args.rounds);
                measurements.push(measurement);
            }
        }
        let half = systems.len() / 2;
        systems.rotate_left(half);
    }
    Ok(measurements)
}

/// Builds what is measured, and answers the target folder.
fn build() -> Result<PathBuf> {
    command::run(&mut cargo([
        "build",
        "--release",
        "-p",
        "streamerson-cli",
        "-p",
        "streamerson-bench",
    ]))?;

    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let metadata = command::output(&mut cargo([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]))?;
    Ok(serde_json::from_str::<Metadata>(&metadata)?.target_directory)
}
