//! `streamerson group`: consumer groups, how far they are, and where they go on.

mod ls;
mod rm;
mod seek;
mod show;

use clap::{Args, Subcommand};
use streamerson_core::stats::GroupStats;
use streamerson_core::{Broker, Name, Topic};

use super::topic::stats;
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
    let Some(stats) = stats(broker, topic).await? else {
        let partitions = broker.partitions(topic).await?;
        let failure = Failure::new(
            Exit::NotFound,
            "topic-not-found",
            format!("there is no topic {topic}"),
        );
        return Err(match partitions {
            0 => failure.with_help("`streamerson topic ls` lists them"),
            _ => failure.with_help(format!(
                "it is divided: its groups are those of {topic}.0 to {topic}.{}",
                partitions - 1
            )),
        });
    };
    let names: Vec<String> = stats
        .groups
        .iter()
        .map(|group| group.name.clone())
        .collect();
    let found = stats
        .groups
        .into_iter()
        .find(|stats| stats.name == group.as_str());
    found.ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            "group-not-found",
            format!("topic {topic} has no group {group}"),
        )
        .with_help(match names.is_empty() {
            true => "it has none; a group begins when its first member joins".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        })
    })
}
