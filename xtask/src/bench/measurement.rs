//! One measurement, and the summary of several.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;

use super::interrupt::Interrupt;
use super::stage::Stage;
use super::system::System;
use super::{cpu, load};

const WARM_UP_SECONDS: u32 = 2;

/// What all measurements of a run have in common.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) seconds: u32,
    /// Where our own programs are, and where servers store their data. Not in /tmp, which may be
    /// memory, where an fsync costs nothing.
    pub(crate) folder: PathBuf,
}

/// What one system did with one number of connections in one round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Measurement {
    pub(crate) round: u32,
    pub(crate) system: System,
    pub(crate) connections: u32,
    pub(crate) requests_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU milliseconds per 1000 requests, by process.
    pub(crate) cpu: Vec<(&'static str, f64)>,
    /// The share of the machine that went to programs outside the benchmark, or to other guests of
    /// its host, from 0 to 1.
    pub(crate) other_load: f64,
}

impl Measurement {
    pub(crate) fn take(
        workload: &Workload,
        round: u32,
        system: System,
        connections: u32,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let mut stage = Stage::new(&workload.folder, interrupt)?;
        let measured = Self::on(&mut stage, workload, round, system, connections, interrupt);
        measured.map_err(|error| anyhow!("{error:#}{}", stage.logs()))
    }

    fn on(
        stage: &mut Stage<'_>,
        workload: &Workload,
        round: u32,
        system: System,
        connections: u32,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let address = system.start(stage)?;
        stage.wait_for_answer(address)?;
        let load = |seconds| load::run(address, connections, seconds, stage.folder(), interrupt);
        load(WARM_UP_SECONDS).context("warm-up")?;

        let machine = cpu::of_machine()?;
        let wrk = cpu::of_ended_children()?;
        let servers = stage.cpu()?;
        let load = load(workload.seconds)?;
        let used: Vec<(&'static str, Duration)> = stage
            .cpu()?
            .into_iter()
            .zip(servers)
            .map(|((name, after), (_, before))| (name, after.saturating_sub(before)))
            .collect();
        let wrk = cpu::of_ended_children()?.saturating_sub(wrk);
        let machine = cpu::of_machine()?.saturating_sub(machine);

        let known = wrk + used.iter().map(|(_, time)| *time).sum::<Duration>();
        let available = Duration::from_secs(workload.seconds.into()).as_secs_f64() * cores() as f64;
        let per_1000 = |time: Duration| time.as_secs_f64() * 1e6 / load.requests as f64;
        stage.wait_for_answer(address).context("after the load")?;
        Ok(Self {
            round,
            system,
            connections,
            requests_per_second: load.requests_per_second(),
            p50_ms: load.p50().as_secs_f64() * 1e3,
            p99_ms: load.p99().as_secs_f64() * 1e3,
            cpu: used
                .into_iter()
                .map(|(name, time)| (name, per_1000(time)))
                .collect(),
            other_load: machine.saturating_sub(known).as_secs_f64() / available,
        })
    }

    /// CPU milliseconds per 1000 requests of all processes together.
    pub(crate) fn total_cpu(&self) -> f64 {
        self.cpu.iter().map(|(_, cpu)| cpu).sum()
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{:<26} {:>4} connections {:>7.0} req/s, p99 {:>6.2} ms, CPU {:>5.1} ms per 1000, other load {:.0} %",
            self.system,
            self.connections,
            self.requests_per_second,
            self.p99_ms,
            self.total_cpu(),
            self.other_load * 100.0,
        )
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The median and the extremes of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None, when there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Self { min, median, max })
    }
}

/// All rounds of one system with one number of connections.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) system: System,
    pub(crate) connections: u32,
    pub(crate) requests_per_second: Spread,
    pub(crate) p50_ms: Spread,
    pub(crate) p99_ms: Spread,
    pub(crate) cpu: Spread,
    pub(crate) cpu_by_process: Vec<(&'static str, Spread)>,
}

impl Summary {
    /// None, when there is no such measurement.
    pub(crate) fn of(
        measurements: &[Measurement],
        system: System,
        connections: u32,
    ) -> Option<Self> {
        let rounds: Vec<&Measurement> = measurements
            .iter()
            .filter(|measurement| {
                measurement.system == system && measurement.connections == connections
            })
            .collect();
        let spread = |value: fn(&Measurement) -> f64| Spread::of(rounds.iter().copied().map(value));
        let processes = rounds.first()?.cpu.iter().enumerate();
        Some(Self {
            system,
            connections,
            requests_per_second: spread(|round| round.requests_per_second)?,
            p50_ms: spread(|round| round.p50_ms)?,
            p99_ms: spread(|round| round.p99_ms)?,
            cpu: spread(Measurement::total_cpu)?,
            cpu_by_process: processes
                .filter_map(|(at, (name, _))| {
                    // Every round starts the servers of a system in the same order.
                    Some((
                        *name,
                        Spread::of(rounds.iter().map(|round| round.cpu[at].1))?,
                    ))
                })
                .collect(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn measurement(
        round: u32,
        system: System,
        requests_per_second: f64,
        cpu: f64,
    ) -> Measurement {
        Measurement {
            round,
            system,
            connections: 256,
            requests_per_second,
            p50_ms: 1.0,
            p99_ms: 2.0,
            cpu: vec![("gateway", cpu * 0.75), ("worker", cpu * 0.25)],
            other_load: 0.0,
        }
    }

    #[test]
    fn median_is_the_middle_or_the_mean_of_the_middle_two() {
        assert_eq!(
            Spread::of([3.0, 1.0, 2.0]),
            Some(Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            })
        );
        assert_eq!(
            Spread::of([4.0, 1.0, 2.0, 3.0]),
            Some(Spread {
                min: 1.0,
                median: 2.5,
                max: 4.0
            })
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn summary_takes_only_its_own_rounds() {
        let rounds = [
            measurement(1, System::Axum, 100.0, 8.0),
            measurement(1, System::NginxAxum, 10.0, 99.0),
            measurement(2, System::Axum, 300.0, 12.0),
        ];

        let summary = Summary::of(&rounds, System::Axum, 256).unwrap();

        assert_eq!(
            summary.requests_per_second,
            Spread {
                min: 100.0,
                median: 200.0,
                max: 300.0
            }
        );
        assert_eq!(summary.cpu.median, 10.0);
        assert_eq!(
            summary.cpu_by_process[0],
            (
                "gateway",
                Spread {
                    min: 6.0,
                    median: 7.5,
                    max: 9.0
                }
            )
        );
        assert_eq!(Summary::of(&rounds, System::Axum, 64), None);
    }
}
