//! `streamerson dlq retry`.

use clap::Args;
use streamerson_core::{Append, Error, Topic, dead_letter};

use super::filter::Filter;
use super::letter::Letter;
use super::moving::{Moving, Pace, Report};
use crate::command::topic::note_missing;
use crate::confirm::Confirm;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::output::{self, Format};
use crate::signal;

/// Put dead letters back to their topic, as the messages they were, exactly once each
///
/// In one step the letter goes and its message is appended: an interrupt, or somebody who does the same at the same time,
/// neither loses nor repeats one. The messages have their old id, and neither a deadline nor somebody who waits for the
/// answer. Every group of the topic gets them, not only the one that gave them up. Those that fail again come back as new dead
/// letters, and are not retried by the same command. The oldest go first. Without a filter or --max, all go back, and that
/// needs --yes.
#[derive(Debug, Args)]
pub(super) struct Retry {
    /// Topic whose dead letters to retry
    topic: Topic,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    pace: Pace,

    #[command(flatten)]
    confirm: Confirm,

    /// How to print what came of it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

impl Retry {
    pub(super) async fn run(self) -> Result<()> {
        let mut looks = self.confirm.only_looks();
        let mut decided = Ok(());
        if !looks && self.filter.is_empty() && self.pace.max.is_none() {
            let all = format!(
                "all dead letters of {} would go back, to every group of it: no filter says which",
                self.topic
            );
            decided = self.confirm.decide(&[all]).map(drop);
            if decided.is_err() && self.output == Format::Table {
                return decided;
            }
            looks = decided.is_err();
        }
        let broker = self.broker.connect_existing().await?;
        let moving = Moving {
            broker: &*broker,
            topic: &self.topic,
            filter: &self.filter,
            pace: &self.pace,
            done: "retried",
            outputs: again,
        };
        let (report, outcome) = match looks {
            true => (moving.look().await?, Ok(())),
            false => moving.run(&signal::shutdown()?).await,
        };
        if report.matched == 0 && outcome.is_ok() {
            note_missing(&*broker, &self.topic).await?;
        }
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Table => output::line(line(&report).as_bytes())?,
        }
        decided.and(outcome).and_then(|()| report.complete())
    }
}

fn again(letter: &Letter) -> Result<Vec<Append>, Error> {
    let Some(message) = &letter.message else {
        return Err(Error::invalid(
            "foreign-dead-letter",
            format!("it is not a message: {}", letter.why.reason),
        ));
    };
    Ok(vec![dead_letter::original(message)?])
}

fn line(report: &Report) -> String {
    match report.dry_run {
        true => format!("would retry {}", report.matched - report.refused),
        false => format!("retried {}{}", report.moved, gone(report)),
    }
}

/// What somebody else was faster with.
pub(super) fn gone(report: &Report) -> String {
    match report.gone {
        0 => String::new(),
        gone => format!(" ({gone} were gone already)"),
    }
}
