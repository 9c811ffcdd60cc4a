//! `streamerson topic ls`.

use clap::Args;
use serde::Serialize;
use streamerson_core::stats::TopicStats;

use super::found;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::number;
use crate::output::{self, Format};

/// List the topics
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// How to print the topics
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

/// A topic as `-o json` prints it.
#[derive(Serialize)]
struct Described {
    topic: String,
    #[serde(flatten)]
    stats: TopicStats,
}

impl Ls {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect().await?;
        let topics = found(&*broker, broker.topics().await?).await?.into_iter();
        let topics = topics.map(|(topic, stats)| Described {
            topic: topic.to_string(),
            stats,
        });
        let described: Vec<Described> = topics.collect();
        match self.output {
            Format::Json => output::json(&described)?,
            Format::Table => output::table(
                &["TOPIC", "MESSAGES", "GROUPS", "LAG", "PENDING"],
                described.iter().map(Described::row).collect(),
            )?,
        }
        Ok(())
    }
}

impl Described {
    fn row(&self) -> Vec<String> {
        let groups = &self.stats.groups;
        let lag = groups.iter().map(|group| group.lag).max().flatten();
        let pending: u64 = groups.iter().map(|group| group.pending).sum();
        vec![
            self.topic.clone(),
            self.stats.length.to_string(),
            groups.len().to_string(),
            number(lag),
            pending.to_string(),
        ]
    }
}
