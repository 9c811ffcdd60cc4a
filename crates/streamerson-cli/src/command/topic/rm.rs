//! `streamerson topic rm`.

use clap::Args;
use serde::Serialize;
use streamerson_core::Topic;

use super::{missing, parts, seen};
use crate::confirm::Confirm;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::counted;
use crate::output::{self, Format};

/// Remove a topic: its messages, groups, scheduled messages and partitions; its dead letters stay
///
/// NAME:dlq removes the dead letters of a topic. A message sent later begins the topic anew.
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Topic to remove
    topic: Topic,

    #[command(flatten)]
    confirm: Confirm,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Debug, Default, Serialize)]
struct Removed {
    topic: String,
    removed: bool,
    /// What it held.
    messages: u64,
    scheduled: u64,
    groups: u64,
    partitions: u32,
    /// Not all of what it held could be read.
    damaged: bool,
}

impl Rm {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let parts = parts(&*broker, &self.topic).await?;
        let mut removed = Removed {
            topic: self.topic.to_string(),
            partitions: parts.len() as u32 - 1,
            ..Removed::default()
        };
        let seen = seen(&*broker, parts.clone()).await?;
        if seen.is_empty() && removed.partitions == 0 {
            return Err(missing(&self.topic));
        }
        for (_, stats) in seen {
            let Ok(stats) = stats else {
                removed.damaged = true;
                continue;
            };
            removed.messages += stats.length;
            removed.scheduled += stats.scheduled;
            removed.groups += stats.groups.len() as u64;
        }
        let decided = self.confirm.decide(&[removed.preview()]);
        if let Ok(true) = decided {
            // The topic itself last, so that an interrupted removal can be repeated.
            for topic in parts.iter().rev() {
                removed.removed |= broker.remove_topic(topic).await?;
            }
        }
        match self.output {
            Format::Json => output::json(&removed)?,
            Format::Table if removed.removed => output::line(removed.topic.as_bytes())?,
            Format::Table => {}
        }
        decided.map(drop)
    }
}

impl Removed {
    fn preview(&self) -> String {
        let partitions = match self.partitions {
            0 => String::new(),
            count => format!(", in {count} partitions"),
        };
        let damaged = match self.damaged {
            true => ", and what is damaged and cannot be read",
            false => "",
        };
        format!(
            "topic {}: {}, {} scheduled, {}{partitions}{damaged}",
            self.topic,
            counted(self.messages, "message", "messages"),
            self.scheduled,
            counted(self.groups, "group", "groups"),
        )
    }
}
