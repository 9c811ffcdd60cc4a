//! `streamerson group rm`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use streamerson_core::stats::GroupStats;
use streamerson_core::{Name, Topic};

use super::find;
use crate::confirm::Confirm;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::counted;
use crate::output::{self, Format};

/// A member that was heard of so lately is taken to be there.
const LATELY: Duration = Duration::from_secs(15);

/// Remove a consumer group, and forget what it held and where it stood
///
/// Members that still run notice, raise an alarm, and create it again.
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Topic of the group
    topic: Topic,

    /// Group to remove
    group: Name,

    #[command(flatten)]
    confirm: Confirm,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Serialize)]
struct Removed {
    topic: String,
    group: String,
    removed: bool,
    /// What it had not processed.
    lag: Option<u64>,
    pending: u64,
}

impl Rm {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let stats = find(&*broker, &self.topic, &self.group).await?;
        let decided = self.confirm.decide(&self.preview(&stats));
        let acts = matches!(decided, Ok(true));
        let removed = acts && broker.remove_group(&self.topic, &self.group).await?;
        let report = Removed {
            topic: self.topic.to_string(),
            group: self.group.to_string(),
            removed,
            lag: stats.lag,
            pending: stats.pending,
        };
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Table if removed => {
                output::line(format!("{} {}", report.topic, report.group).as_bytes())?;
            }
            Format::Table => {}
        }
        decided.map(drop)
    }

    fn preview(&self, stats: &GroupStats) -> Vec<String> {
        let lag = match stats.lag {
            Some(lag) => counted(lag, "message", "messages"),
            None => "an unknown number of messages".to_owned(),
        };
        let mut lines = vec![format!(
            "group {} of {}: {lag} not delivered, {} delivered and not settled; they stay in the topic, and this group forgets them",
            self.group, self.topic, stats.pending
        )];
        let there = stats.members.iter().filter(|member| member.idle < LATELY);
        let there = there.count() as u64;
        if there > 0 {
            lines.push(format!(
                "warning: {} gave a sign of life within {} s, and will create the group again",
                counted(there, "member", "members"),
                LATELY.as_secs()
            ));
        }
        lines
    }
}
