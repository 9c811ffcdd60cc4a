//! All measurements of a run as a page of Markdown, or as JSON.

use std::fmt;

use serde::Serialize;

use super::drain::{self, Comparison, Drain};
use super::goal::{self, Figure, Ratio};
use super::machine::Machine;
use super::measurement::{Measurement, Spread, Summary};

/// Above this share of the machine, load from outside the benchmark is reported.
const QUIET: f64 = 0.05;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    seconds: u32,
    summaries: Vec<Summary>,
    ratios: Vec<Ratio>,
    draining: Option<Comparison>,
    measurements: Vec<Measurement>,
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        seconds: u32,
        measurements: Vec<Measurement>,
        drains: &[Drain],
    ) -> Self {
        let mut measured: Vec<_> = measurements
            .iter()
            .map(|one| (one.connections, one.system))
            .collect();
        measured.sort_unstable();
        measured.dedup();
        let summary = |(connections, system)| Summary::of(&measurements, system, connections);
        Self {
            machine,
            seconds,
            summaries: measured.into_iter().filter_map(summary).collect(),
            ratios: goal::ratios(&measurements),
            draining: drain::compare(drains),
            measurements,
        }
    }

    /// How many goals were measured and not reached.
    pub(crate) fn missed(&self) -> usize {
        self.ratios
            .iter()
            .filter(|ratio| ratio.reached == Some(false))
            .count()
            + usize::from(self.draining.is_some_and(|draining| !draining.reached))
    }

    fn rounds(&self) -> u32 {
        self.measurements
            .iter()
            .map(|measurement| measurement.round)
            .max()
            .unwrap_or_default()
    }

    fn noisiest(&self) -> f64 {
        self.measurements
            .iter()
            .map(|measurement| measurement.other_load)
            .fold(0.0, f64::max)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(out, "# Benchmark\n")?;
        writeln!(
            out,
            "Measured by `cargo xtask bench` on {}, commit {}: {} × {}, Linux {}, one fdatasync of 4 KiB in {:.0} µs; {}.\n",
            machine.date,
            machine.commit,
            machine.cores,
            machine.cpu,
            machine.kernel,
            machine.fsync_micros,
            machine.versions.join(", "),
        )?;
        writeln!(
            out,
            "Every request is a POST of `{{\"name\":\"Ada\"}}` answered by `{{\"howdy\":\"there, Ada\"}}`; wrk runs on the \
             same machine. Figures are medians of {} interleaved rounds of {} s, each with fresh servers and 2 s of \
             warm-up; in brackets the lowest and the highest round. A ratio is that of two systems \
             within a round, minutes apart at most. CPU is the user and system time of all server processes, in \
             milliseconds per 1000 requests.\n",
            self.rounds(),
            self.seconds,
        )?;
        if self.noisiest() > QUIET {
            writeln!(
                out,
                "**Not a quiet machine**: programs outside the benchmark took up to {:.0} % of it during a round, so these figures decide nothing.\n",
                self.noisiest() * 100.0
            )?;
        }
        for connections in self.connections() {
            writeln!(
                out,
                "## {connections} connections\n\n{}",
                self.figures(connections)
            )?;
        }
        if !self.ratios.is_empty() {
            writeln!(
                out,
                "## Ratios at {} connections\n\n{}",
                goal::CONNECTIONS,
                self.comparisons()
            )?;
        }
        if let Some(draining) = &self.draining {
            writeln!(out, "## Draining a queue\n\n{}", table_of(draining))?;
            writeln!(
                out,
                "100,000 messages of 100 bytes on the Redis of `streamerson-redis`, each settled with one output; the loop sends \
                 outputs and acknowledgements of 256 messages and the next read in one pipeline, without a fence, leases or retries.\n"
            )?;
        }
        writeln!(out, "## Systems\n\n{}", self.legend().trim_end())
    }
}

impl Report {
    fn connections(&self) -> Vec<u32> {
        let mut connections: Vec<u32> = self
            .summaries
            .iter()
            .map(|summary| summary.connections)
            .collect();
        connections.dedup();
        connections
    }

    fn figures(&self, connections: u32) -> String {
        let header = [
            "system",
            "req/s",
            "p50 ms",
            "p99 ms",
            "CPU",
            "CPU by process",
        ];
        let summaries = self
            .summaries
            .iter()
            .filter(|summary| summary.connections == connections);
        let rows = summaries.map(|summary| {
            let process = |(name, cpu): &(&str, Spread)| format!("{name} {:.1}", cpu.median);
            [
                summary.system.to_string(),
                spread(summary.requests_per_second, 0),
                spread(summary.p50_ms, 2),
                spread(summary.p99_ms, 2),
                spread(summary.cpu, 1),
                summary
                    .cpu_by_process
                    .iter()
                    .map(process)
                    .collect::<Vec<_>>()
                    .join(", "),
            ]
        });
        markdown(header, rows)
    }

    fn comparisons(&self) -> String {
        let header = ["system", "against", "figure", "ratio", "goal", ""];
        let rows = self.ratios.iter().map(|ratio| {
            let (figure, sign) = match ratio.figure {
                Figure::CpuPerRequest => ("CPU", "≤"),
                Figure::RequestsPerSecond => ("req/s", "≥"),
            };
            let mark = match ratio.reached {
                Some(true) => "✅ reached",
                Some(false) => "❌ missed",
                None => "",
            };
            [
                ratio.ours.to_string(),
                ratio.peer.to_string(),
                figure.to_owned(),
                spread(ratio.rounds, 2),
                ratio
                    .bound
                    .map_or_else(|| "–".to_owned(), |bound| format!("{sign} {bound}")),
                mark.to_owned(),
            ]
        });
        markdown(header, rows)
    }

    fn legend(&self) -> String {
        let mut systems: Vec<_> = self
            .summaries
            .iter()
            .map(|summary| summary.system)
            .collect();
        systems.sort_unstable();
        systems.dedup();
        let rows = systems
            .iter()
            .map(|system| [system.to_string(), system.description().to_owned()]);
        markdown(["system", "what runs"], rows)
    }
}

fn table_of(draining: &Comparison) -> String {
    let mark = match draining.reached {
        true => "✅ reached",
        false => "❌ missed",
    };
    let row = [
        spread(draining.by_hand, 0),
        spread(draining.worker, 0),
        spread(draining.ratio, 2),
        format!("≥ {}", draining.goal),
        mark.to_owned(),
    ];
    let header = [
        "loop, messages/s",
        "worker, messages/s",
        "ratio",
        "goal",
        "",
    ];
    markdown(header, [row])
}

fn spread(spread: Spread, decimals: usize) -> String {
    let Spread { min, median, max } = spread;
    if min == max {
        return number(median, decimals);
    }
    format!(
        "{} ({}–{})",
        number(median, decimals),
        number(min, decimals),
        number(max, decimals)
    )
}

/// A number with its thousands apart.
fn number(value: f64, decimals: usize) -> String {
    let plain = format!("{value:.decimals$}");
    let whole = plain.split('.').next().map_or(0, str::len);
    let grouped = plain.chars().enumerate().flat_map(|(at, digit)| {
        let comma = at > 0 && at < whole && (whole - at).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    });
    grouped.collect()
}

/// A table whose columns line up in plain text, too.
fn markdown<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    lines.insert(1, widths.map(|width| "-".repeat(width.max(3))));
    let line = |cells: &[String; N]| {
        let cells = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!(" {cell:<width$} |", width = width.max(3)));
        format!("|{}\n", cells.collect::<String>())
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::measurement::tests::measurement;
    use super::super::system::System;
    use super::*;

    fn report(measurements: Vec<Measurement>) -> Report {
        let machine = Machine {
            date: "2026-11-23".into(),
            commit: "abc".into(),
            cpu: "EPYC".into(),
            cores: 2,
            kernel: "6.1".into(),
            fsync_micros: 200.0,
            versions: vec!["nginx/1.22.1".into()],
        };
        Report::new(machine, 8, measurements, &[])
    }

    #[test]
    fn table_lines_up_and_keeps_every_cell() {
        let table = markdown(
            ["a", "long header"],
            [["wide cell".to_owned(), "ü".to_owned()]],
        );
        assert_eq!(
            table,
            "| a         | long header |\n| --------- | ----------- |\n| wide cell | ü           |\n"
        );
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        assert_eq!(number(1_234_567.0, 0), "1,234,567");
        assert_eq!(number(123.456, 1), "123.5");
        assert_eq!(number(1234.5, 2), "1,234.50");
    }

    #[test]
    fn report_shows_figures_ratios_and_missed_goals() {
        let report = report(vec![
            measurement(1, System::NginxAxum, 30_000.0, 20.0),
            measurement(1, System::StreamersonRedis, 15_000.0, 10.0),
        ]);

        let page = report.to_string();

        assert!(page.contains("| streamerson-redis | 15,000 |"), "{page}");
        assert!(page.contains("gateway 7.5, worker 2.5"), "{page}");
        assert!(
            page.contains("| CPU    | 0.50  | ≤ 0.95 | ✅ reached |"),
            "{page}"
        );
        assert!(
            page.contains("| req/s  | 0.50  | ≥ 0.9  | ❌ missed  |"),
            "{page}"
        );
        assert!(!page.contains("quiet"), "{page}");
        assert_eq!(report.missed(), 1);
    }

    #[test]
    fn report_tells_when_the_machine_was_busy() {
        let mut busy = measurement(1, System::Axum, 1.0, 1.0);
        busy.other_load = 0.25;
        assert!(report(vec![busy]).to_string().contains("up to 25 % of it"));
    }
}
