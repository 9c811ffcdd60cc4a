//! `streamerson topic`: what topics there are, how they stand, and their upkeep.

mod create;
mod ls;
mod rm;
mod show;
mod trim;

use clap::{Args, Subcommand};
use streamerson_core::stats::TopicStats;
use streamerson_core::{Broker, ErrorKind, Topic, partition};

use crate::failure::Result;

/// How many topics are asked about at once.
pub(crate) const AT_ONCE: usize = 16;

/// Show, divide, trim and remove topics
#[derive(Debug, Args)]
pub(crate) struct TopicCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Ls(ls::Ls),
    Show(show::Show),
    Create(create::Create),
    Rm(rm::Rm),
    Trim(trim::TrimTopic),
}

impl TopicCommand {
    pub(crate) async fn run(self) -> Result<()> {
        match self.verb {
            Verb::Ls(ls) => ls.run().await,
            Verb::Show(show) => show.run().await,
            Verb::Create(create) => create.run().await,
            Verb::Rm(rm) => rm.run().await,
            Verb::Trim(trim) => trim.run().await,
        }
    }
}

/// The stats of `topic`; none when there is no such topic.
pub(crate) async fn stats(broker: &dyn Broker, topic: &Topic) -> Result<Option<TopicStats>> {
    match broker.stats(topic).await {
        Ok(stats) => Ok(Some(stats)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The partitions of `topic`; none when it is not divided.
pub(crate) async fn partitions(broker: &dyn Broker, topic: &Topic) -> Result<Vec<Topic>> {
    let count = broker.partitions(topic).await?;
    let parts = (0..count).map(|number| partition::topic(topic, number));
    Ok(parts.collect::<Result<_, _>>()?)
}
