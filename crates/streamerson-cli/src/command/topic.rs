//! `streamerson topic`: what topics there are, and how they stand.

use std::sync::Arc;

use clap::{Args, Subcommand};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use streamerson_core::stats::{GroupStats, TopicStats};
use streamerson_core::{Broker, ErrorKind, Position, Topic};

use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::output::{self, Format};

/// How many topics are asked about at once.
const AT_ONCE: usize = 16;

/// Show topics and their consumer groups
#[derive(Debug, Args)]
pub(crate) struct TopicCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the topics
    Ls(Ls),
    /// Show one topic and its consumer groups
    Show(Show),
}

#[derive(Debug, Args)]
struct Ls {
    #[arg(
        long,
        short,
        value_enum,
        default_value_t,
        help = "How to print the topics"
    )]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Debug, Args)]
struct Show {
    /// Topic to show; NAME:dlq for its dead letters
    topic: Topic,

    /// How to print it
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

impl TopicCommand {
    pub(crate) async fn run(self) -> Result<()> {
        match self.verb {
            Verb::Ls(ls) => ls.run().await,
            Verb::Show(show) => show.run().await,
        }
    }
}

impl Ls {
    async fn run(self) -> Result<()> {
        let broker = self.broker.connect().await?;
        let topics = broker.topics().await?;
        let described: Vec<Option<Described>> = stream::iter(topics)
            .map(|topic| describe(broker.clone(), topic))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let described: Vec<Described> = described.into_iter().flatten().collect();
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

/// The stats of `topic`; none when it went away meanwhile.
async fn describe(broker: Arc<dyn Broker>, topic: Topic) -> Result<Option<Described>> {
    match broker.stats(&topic).await {
        Ok(stats) => Ok(Some(Described {
            topic: topic.to_string(),
            stats,
        })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
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

impl Show {
    async fn run(self) -> Result<()> {
        let broker = self.broker.connect().await?;
        let stats = broker.stats(&self.topic).await?;
        let topic = self.topic.to_string();
        match self.output {
            Format::Json => output::json(&Described { topic, stats })?,
            Format::Table => {
                let (first, last) = (position(stats.first), position(stats.last));
                let row = vec![topic, stats.length.to_string(), first, last];
                output::table(&["TOPIC", "MESSAGES", "FIRST", "LAST"], vec![row])?;
                if !stats.groups.is_empty() {
                    output::line(b"")?;
                    output::table(
                        &["GROUP", "LAG", "PENDING", "OLDEST PENDING", "MEMBERS"],
                        stats.groups.iter().map(group).collect(),
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn group(group: &GroupStats) -> Vec<String> {
    vec![
        group.name.clone(),
        number(group.lag),
        group.pending.to_string(),
        position(group.oldest_pending),
        group.members.len().to_string(),
    ]
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn position(value: Option<Position>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
