//! `streamerson dlq drop`.

use clap::Args;

use streamerson_core::Topic;

use super::filter::Filter;
use super::moving::{Moving, Pace};
use super::retry::gone;
use crate::confirm::Confirm;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::counted;
use crate::output::{self, Format};
use crate::signal;

/// Remove dead letters for good
#[derive(Debug, Args)]
pub(super) struct Drop {
    /// Topic whose dead letters to remove
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

impl Drop {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let moving = Moving {
            broker: &*broker,
            topic: &self.topic,
            filter: &self.filter,
            pace: &self.pace,
            done: "dropped",
            outputs: |_| Ok(Vec::new()),
        };
        let mut report = moving.look().await?;
        let mut outcome = Ok(());
        let preview = format!(
            "{} of {} would go for good",
            counted(report.matched, "dead letter", "dead letters"),
            self.topic
        );
        let decided = self.confirm.decide(&[preview]);
        let acts = matches!(decided, Ok(true));
        if acts {
            (report, outcome) = moving.run(&signal::shutdown()?).await;
        }
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Table if acts => {
                let line = format!("dropped {}{}", report.moved, gone(&report));
                output::line(line.as_bytes())?;
            }
            Format::Table => {}
        }
        decided.and(outcome)
    }
}
