//! `streamerson topic create`.

use clap::Args;
use serde::Serialize;
use streamerson_core::{Topic, partition};

use crate::endpoint::BrokerArgs;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Format};

/// Divide a topic into partitions, so that messages with the same key are handled in order
///
/// Other topics need not be created: they begin with their first message. The number of partitions cannot be changed
/// later, because it says which partition a key belongs to. Dividing again into the same number does nothing.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Topic to divide
    topic: Topic,

    /// How many partitions: the most members that can share the work
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(partition::MOST)))]
    partitions: u32,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Serialize)]
struct Created {
    topic: String,
    partitions: u32,
}

impl Create {
    pub(super) async fn run(self) -> Result<()> {
        let topic = &self.topic;
        if topic.is_dead_letters() || topic.is_inbox() {
            return Err(Failure::usage(
                "topic-reserved",
                format!("{topic} cannot be divided: inboxes and dead letters belong to others"),
            ));
        }
        let broker = self.broker.connect().await?;
        let partitions = broker.divide(topic, self.partitions).await?;
        if partitions != self.partitions {
            return Err(Failure::new(
                Exit::Conflict,
                "topic-divided",
                format!(
                    "{topic} is divided into {partitions} partitions already, and their number cannot change"
                ),
            )
            .with_help(format!(
                "use --partitions {partitions}, or a new topic"
            )));
        }
        let topic = topic.to_string();
        match self.output {
            Format::Json => output::json(&Created { topic, partitions })?,
            Format::Table => output::line(format!("{topic} {partitions}").as_bytes())?,
        }
        Ok(())
    }
}
