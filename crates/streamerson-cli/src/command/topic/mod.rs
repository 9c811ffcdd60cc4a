//! `streamerson topic`: what topics there are, how they stand, and their upkeep.

mod create;
mod ls;
mod rm;
mod show;
mod trim;

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use streamerson_core::stats::TopicStats;
use streamerson_core::{Broker, Error, ErrorKind, Topic, partition};

use crate::failure::{Exit, Failure, Result};
use crate::output::message;

/// How many topics are asked about at once.
const AT_ONCE: usize = 16;

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

/// A topic with its stats, or why it cannot be read.
pub(crate) type Seen = (Topic, Result<TopicStats, Error>);

/// A topic with its stats.
pub(crate) type Found = (Topic, TopicStats);

/// A topic that cannot be read, and why.
pub(crate) type Unreadable = (Topic, Error);

/// Those of `topics` that there are, also those that cannot be read because what is stored is damaged.
pub(crate) async fn seen(broker: &dyn Broker, topics: Vec<Topic>) -> Result<Vec<Seen>> {
    let look = async |topic: Topic| match broker.stats(&topic).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() != ErrorKind::Corrupt => Err(Failure::from(error)),
        stats => Ok(Some((topic, stats))),
    };
    let seen = stream::iter(topics).map(look).buffered(AT_ONCE);
    let seen: Vec<_> = seen.try_collect().await?;
    Ok(seen.into_iter().flatten().collect())
}

/// Those that can be read, and those that cannot.
pub(crate) fn told_apart(seen: Vec<Seen>) -> (Vec<Found>, Vec<Unreadable>) {
    let (mut found, mut damage) = (Vec::new(), Vec::new());
    for (topic, stats) in seen {
        match stats {
            Ok(stats) => found.push((topic, stats)),
            Err(error) => damage.push((topic, error)),
        }
    }
    (found, damage)
}

/// Why a topic cannot be read, as `-o json` prints it.
#[derive(Serialize)]
struct Damage {
    code: &'static str,
    detail: String,
}

impl From<&Error> for Damage {
    fn from(error: &Error) -> Damage {
        Damage {
            code: error.code(),
            detail: error.detail().to_owned(),
        }
    }
}

/// Those of `topics` that there are, with their stats.
pub(crate) async fn found(broker: &dyn Broker, topics: Vec<Topic>) -> Result<Vec<Found>> {
    let seen = seen(broker, topics).await?.into_iter();
    seen.map(|(topic, stats)| Ok((topic, stats?))).collect()
}

/// Adds to the partitions among `found` the groups of their topics that have not begun there: what nobody reads is their lag.
pub(crate) async fn add_unread(broker: &dyn Broker, found: &mut [Found]) -> Result<()> {
    let numbered = found
        .iter()
        .filter_map(|(topic, _)| partition::number(topic));
    let wholes: BTreeSet<Topic> = numbered.map(|(whole, _)| whole).collect();
    let ask = async |whole: Topic| -> Result<_> {
        let partitions = broker.partitions(&whole).await?;
        Ok((whole, partitions))
    };
    let divided = stream::iter(wholes).map(ask).buffered(AT_ONCE);
    let divided: Vec<_> = divided.try_collect().await?;
    for (whole, partitions) in divided {
        partition::with_unread(&whole, partitions, found);
    }
    Ok(())
}

/// Says so when there is no such topic, where that is no failure: it may come, or have been.
pub(crate) async fn note_missing(broker: &dyn Broker, topic: &Topic) -> Result<()> {
    let is_missing = stats(broker, topic).await?.is_none() && broker.partitions(topic).await? == 0;
    if is_missing {
        message(&format!(
            "note: there is no topic {topic}; `streamerson topic ls` lists them"
        ));
    }
    Ok(())
}

/// The failure of who asks for a topic that there is not.
pub(crate) fn missing(topic: &Topic) -> Failure {
    Failure::new(
        Exit::NotFound,
        "topic-not-found",
        format!("there is no topic {topic}"),
    )
    .with_help("`streamerson topic ls` lists them")
}

/// `topic` itself, and its partitions if it is divided.
pub(crate) async fn parts(broker: &dyn Broker, topic: &Topic) -> Result<Vec<Topic>> {
    let mut parts = vec![topic.clone()];
    for number in 0..broker.partitions(topic).await? {
        parts.push(partition::topic(topic, number)?);
    }
    Ok(parts)
}
