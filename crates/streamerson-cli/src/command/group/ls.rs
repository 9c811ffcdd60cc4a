//! `streamerson group ls`.

use clap::Args;
use futures::stream::{self, StreamExt, TryStreamExt};
use streamerson_core::Topic;
use streamerson_core::time::unix_ms;

use crate::command::topic::{AT_ONCE, partitions, stats};
use crate::endpoint::BrokerArgs;
use crate::failure::{Exit, Failure, Result};
use crate::figures::{GROUP, GroupFigures};
use crate::output::{self, Format};

/// List consumer groups: how far behind they are, in messages and in time, and what they hold
///
/// LAG: messages not delivered yet. BEHIND: how long the first of them has waited. PENDING: messages delivered and not settled,
/// RETRYING: those of them that wait for their next attempt. OLDEST: the age of the oldest pending message.
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Only the groups of this topic
    topic: Option<Topic>,

    /// How to print the groups
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

impl Ls {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect().await?;
        let topics = match &self.topic {
            Some(topic) => match partitions(&*broker, topic).await? {
                parts if parts.is_empty() => vec![topic.clone()],
                parts => parts,
            },
            None => broker.topics().await?,
        };
        let now = unix_ms();
        let look = async |topic: Topic| -> Result<_> {
            let stats = stats(&*broker, &topic).await?;
            Ok(stats.map(|stats| (topic, stats)))
        };
        let found: Vec<_> = stream::iter(topics)
            .map(look)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let exists = found.iter().any(Option::is_some);
        let groups: Vec<GroupFigures> = found
            .into_iter()
            .flatten()
            .flat_map(|(topic, stats)| {
                let groups = stats.groups.into_iter();
                groups.map(move |group| GroupFigures::new(&topic, group, now))
            })
            .collect();
        if let (Some(topic), false) = (&self.topic, exists) {
            return Err(Failure::new(
                Exit::NotFound,
                "topic-not-found",
                format!("there is no topic {topic}"),
            )
            .with_help("`streamerson topic ls` lists them"));
        }
        match self.output {
            Format::Json => output::json(&groups)?,
            Format::Table => {
                output::table(&GROUP, groups.iter().map(GroupFigures::row).collect())?;
            }
        }
        Ok(())
    }
}
