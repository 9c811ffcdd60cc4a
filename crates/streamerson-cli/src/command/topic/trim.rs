//! `streamerson topic trim`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use streamerson_core::Topic;
use streamerson_core::retention::Retention;

use crate::confirm::Confirm;
use crate::duration;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::counted;
use crate::output::{self, Format, message};

/// Remove the oldest messages of a topic
///
/// What a group has not processed stays, and so does everything when there is no group, unless --force says otherwise:
/// that is data loss, and needs --yes.
#[derive(Debug, Args)]
pub(super) struct TrimTopic {
    /// Topic to trim
    topic: Topic,

    /// Keep messages younger than this, for example 12h or 7d
    #[arg(long, value_name = "AGE", value_parser = duration::age, required_unless_present = "max_len")]
    max_age: Option<Duration>,

    /// Keep so many of the newest messages
    #[arg(long, value_name = "N")]
    max_len: Option<u64>,

    /// Also remove what a group has not processed
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    confirm: Confirm,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Serialize)]
struct Report {
    topic: String,
    removed: u64,
    /// Of these, what some group had not processed.
    lost: u64,
}

impl TrimTopic {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect().await?;
        let retention = Retention {
            max_age: self.max_age,
            max_len: self.max_len,
            force: self.force,
        };
        let stats = broker.stats(&self.topic).await?;
        let preview = format!(
            "topic {}: {}{}",
            self.topic,
            counted(stats.length, "message", "messages"),
            match self.force {
                true => ", of which also those go that a group has not processed",
                false => ", of which those stay that a group has not processed",
            }
        );
        // What every group has processed is removed all the time, so that needs no second word.
        let asks = self.force || self.confirm.only_looks();
        if asks && !self.confirm.decide(&[preview])? {
            return Ok(());
        }
        let trimmed = broker.trim(&self.topic, retention).await?;
        if trimmed.lost > 0 {
            message(&format!(
                "warning: {} that some group had not processed went too",
                counted(trimmed.lost, "message", "messages")
            ));
        }
        let report = Report {
            topic: self.topic.to_string(),
            removed: trimmed.removed,
            lost: trimmed.lost,
        };
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Table => {
                output::line(format!("removed {}", report.removed).as_bytes())?;
            }
        }
        Ok(())
    }
}
