//! What a run has to say.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::Serialize;

use super::fault::Fault;
use super::oracle::{Takeovers, Verdict};
use super::record::{End, Kind, Letter, Record};
use super::settings::QUEUE;
use crate::failure::Result;
use crate::output::{self, Format};

/// Figures and verdict.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Kind of broker and its version.
    pub(crate) broker: String,
    pub(crate) durability: String,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) lease_ms: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) figures: Figures,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// How much of what.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) requests: usize,
    pub(crate) answered: usize,
    pub(crate) failed: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
    pub(crate) sends: usize,
    pub(crate) sends_stored: usize,
    pub(crate) handlings: usize,
    pub(crate) effects: usize,
    pub(crate) dead_letters: usize,
    /// Of messages that were no poison: queued work, which only other deaths than poison may bring there; and work in the
    /// order of keys.
    pub(crate) innocent_dead_letters: Innocents,
    pub(crate) fenced: u64,
    pub(crate) kills: usize,
    pub(crate) kills_with_work_in_hand: usize,
    pub(crate) episodes: BTreeMap<Fault, usize>,
    pub(crate) drained_ms: Option<u64>,
    /// Calls that did not end well, by their code.
    pub(crate) codes: BTreeMap<String, usize>,
}

/// Dead letters of messages that were no poison.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Innocents {
    pub(crate) queued: usize,
    pub(crate) ordered: usize,
}

impl Innocents {
    fn of(record: &Record) -> Innocents {
        let poison = record.calls.iter().filter(|it| it.kind == Kind::Poison);
        let poison: HashSet<&str> = poison.map(|call| &*call.id).collect();
        let innocent = record.letters.iter().filter(|it| !poison.contains(&*it.id));
        let is_queued = |it: &&Letter| it.place.is_none_or(|place| place.stream == QUEUE);
        let (queued, ordered): (Vec<&Letter>, Vec<&Letter>) = innocent.partition(is_queued);
        Innocents {
            queued: queued.len(),
            ordered: ordered.len(),
        }
    }
}

impl Figures {
    pub(crate) fn of(record: &Record) -> Figures {
        let mut figures = Figures {
            handlings: record.handlings.len(),
            effects: record.effects.len(),
            dead_letters: record.letters.len(),
            innocent_dead_letters: Innocents::of(record),
            fenced: record.fenced,
            kills: record.kills.len(),
            kills_with_work_in_hand: record.kills.iter().filter(|k| k.holding > 0).count(),
            drained_ms: record
                .drained
                .and_then(|drained| u64::try_from(drained.as_millis()).ok()),
            ..Figures::default()
        };
        for window in &record.episodes {
            *figures.episodes.entry(window.fault).or_default() += 1;
        }
        for call in &record.calls {
            figures.count(call.kind, &call.end);
        }
        figures
    }

    fn count(&mut self, kind: Kind, end: &End) {
        if kind == Kind::Request {
            self.requests += 1;
            *match end {
                End::Answered(_) | End::Stored => &mut self.answered,
                End::Failed(_) => &mut self.failed,
                End::Refused(_) => &mut self.refused,
                End::Unknown(_) => &mut self.unknown,
            } += 1;
        } else {
            self.sends += 1;
            self.sends_stored += usize::from(*end == End::Stored);
        }
        if let End::Failed(code) | End::Refused(code) | End::Unknown(code) = end {
            *self.codes.entry(code.clone()).or_default() += 1;
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![
            row("requests", self.requests),
            row("  answered", self.answered),
            row(
                "  failed, refused, unknown",
                format!("{}, {}, {}", self.failed, self.refused, self.unknown),
            ),
            row(
                "sends, stored",
                format!("{}, {}", self.sends, self.sends_stored),
            ),
            row("handlers run", self.handlings),
            row("effects", self.effects),
            row("dead letters", self.dead_letters),
            row(
                "  that were no poison: queued, in order",
                format!(
                    "{}, {}",
                    self.innocent_dead_letters.queued, self.innocent_dead_letters.ordered
                ),
            ),
            row("results refused as late", self.fenced),
            row(
                "workers killed, with work in hand",
                format!("{}, {}", self.kills, self.kills_with_work_in_hand),
            ),
        ];
        rows.extend(
            self.episodes
                .iter()
                .map(|(fault, count)| row(&format!("episodes of {fault}"), count)),
        );
        if let Some(drained) = self.drained_ms {
            rows.push(row("all done after", format!("{drained} ms")));
        }
        rows.extend(
            self.codes
                .iter()
                .map(|(code, count)| row(&format!("  {code}"), count)),
        );
        rows
    }
}

fn row(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}

impl Report {
    /// Prints it.
    pub(crate) fn print(&self, format: Format) -> Result<()> {
        match format {
            Format::Json => output::json(self)?,
            Format::Table => self.print_tables()?,
        }
        Ok(())
    }

    fn print_tables(&self) -> std::io::Result<()> {
        let about = format!(
            "{} ({}), seed {}, lease {} ms, {:.0} s",
            self.broker, self.durability, self.seed, self.lease_ms, self.seconds
        );
        output::text(about.as_bytes())?;
        output::line(b"")?;
        output::table(&["FIGURE", ""], self.figures.rows())?;
        output::line(b"")?;
        let row = |takeovers: &Takeovers, what: &str| {
            let ms = |duration: Duration| format!("{} ms", duration.as_millis());
            vec![
                format!("{} {what}", takeovers.count),
                ms(takeovers.p50),
                ms(takeovers.p99),
                ms(takeovers.max),
            ]
        };
        output::table(
            &["TAKEN OVER AFTER A KILL", "P50", "P99", "MAX"],
            vec![
                row(&self.verdict.takeovers, "messages"),
                row(&self.verdict.ordered_takeovers, "partitions"),
            ],
        )?;
        output::line(b"")?;
        let rules = self.verdict.rules.iter().map(|finding| {
            vec![
                finding.rule.to_owned(),
                finding.checked.to_string(),
                finding.violations.to_string(),
            ]
        });
        output::table(&["PROMISE", "CHECKED", "VIOLATIONS"], rules.collect())?;
        output::line(b"")?;
        let guards = self.verdict.guards.iter().map(|guard| {
            vec![
                guard.what.to_owned(),
                guard.at_least.to_string(),
                guard.seen.to_string(),
            ]
        });
        output::table(
            &["MUST HAVE HAPPENED", "AT LEAST", "SEEN"],
            guards.collect(),
        )?;
        for finding in &self.verdict.rules {
            for example in &finding.examples {
                output::text(format!("violated: {}: {example}", finding.rule).as_bytes())?;
            }
        }
        Ok(())
    }
}
