//! `streamerson group`: consumer groups, how far they are, and where they go on.

mod ls;
mod rm;
mod seek;
mod show;

use clap::{Args, Subcommand};
use streamerson_core::stats::{GroupStats, TopicStats};
use streamerson_core::{Broker, Name, Topic};

use super::topic::{self, stats};
use crate::failure::{Exit, Failure, Result};

/// Show, move and remove consumer groups
#[derive(Debug, Args)]
pub(crate) struct GroupCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Ls(ls::Ls),
    Show(show::Show),
    Seek(seek::Seek),
    Rm(rm::Rm),
}

impl GroupCommand {
    pub(crate) async fn run(self) -> Result<()> {
        match self.verb {
            Verb::Ls(ls) => ls.run().await,
            Verb::Show(show) => show.run().await,
            Verb::Seek(seek) => seek.run().await,
            Verb::Rm(rm) => rm.run().await,
        }
    }
}

/// A group of `topic`; the error says what there is.
async fn find(broker: &dyn Broker, topic: &Topic, group: &Name) -> Result<GroupStats> {
    let (stats, found) = look(broker, topic, group).await?;
    found.ok_or_else(|| {
        let names: Vec<String> = stats.groups.into_iter().map(|group| group.name).collect();
        missing(topic, group).with_help(match names.is_empty() {
            true => "it has none; a group begins when its first member joins".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        })
    })
}

/// A topic, and the group if it has it. A topic that is divided has its groups in its partitions, and one that does not
/// exist has none: these are errors.
async fn look(
    broker: &dyn Broker,
    topic: &Topic,
    group: &Name,
) -> Result<(TopicStats, Option<GroupStats>)> {
    let stats = stats(broker, topic).await?;
    let groups = stats.iter().flat_map(|stats| &stats.groups);
    let mut named = groups.filter(|stats| stats.name == group.as_str());
    let found = named.next().cloned();
    let partitions = match found {
        Some(_) => 0,
        None => broker.partitions(topic).await?,
    };
    match (stats, partitions) {
        (Some(stats), 0) => Ok((stats, found)),
        (None, 0) => Err(topic::missing(topic)),
        (_, partitions) => Err(missing(topic, group).with_help(format!(
            "it is divided: its groups are those of {topic}.0 to {topic}.{}",
            partitions - 1
        ))),
    }
}

fn missing(topic: &Topic, group: &Name) -> Failure {
    Failure::new(
        Exit::NotFound,
        "group-not-found",
        format!("topic {topic} has no group {group}"),
    )
}
