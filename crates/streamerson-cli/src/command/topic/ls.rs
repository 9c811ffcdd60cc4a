//! `streamerson topic ls`.

use clap::Args;
use serde::Serialize;
use streamerson_core::stats::TopicStats;

use super::{Damage, Seen, seen};
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
    standing: Standing,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Standing {
    Stats(TopicStats),
    Damaged { error: Damage },
}

impl Ls {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let topics = seen(&*broker, broker.topics().await?).await?;
        let described: Vec<Described> = topics.iter().map(Described::of).collect();
        match self.output {
            Format::Json => output::json(&described)?,
            Format::Table => output::table(
                &["TOPIC", "MESSAGES", "GROUPS", "LAG", "PENDING"],
                described.iter().map(Described::row).collect(),
            )?,
        }
        // The others were told all the same.
        for (_, stats) in topics {
            stats?;
        }
        Ok(())
    }
}

impl Described {
    fn of((topic, stats): &Seen) -> Described {
        let standing = match stats {
            Ok(stats) => Standing::Stats(stats.clone()),
            Err(error) => Standing::Damaged {
                error: Damage::from(error),
            },
        };
        Described {
            topic: topic.to_string(),
            standing,
        }
    }

    fn row(&self) -> Vec<String> {
        let stats = match &self.standing {
            Standing::Stats(stats) => stats,
            Standing::Damaged { error } => {
                let none = || "-".to_owned();
                return vec![
                    self.topic.clone(),
                    error.code.to_owned(),
                    none(),
                    none(),
                    none(),
                ];
            }
        };
        let groups = &stats.groups;
        let lag = groups.iter().map(|group| group.lag).max().flatten();
        let pending: u64 = groups.iter().map(|group| group.pending).sum();
        vec![
            self.topic.clone(),
            stats.length.to_string(),
            groups.len().to_string(),
            number(lag),
            pending.to_string(),
        ]
    }
}
