//! `streamerson topic`: what topics there are, how they stand, and their upkeep.

mod create;
mod ls;
mod rm;
mod show;
mod trim;

use clap::{Args, Subcommand};
use streamerson_core::stats::TopicStats;
use streamerson_core::{Broker, ErrorKind, Topic};

use crate::failure::Result;

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
