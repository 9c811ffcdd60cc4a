//! `streamerson group ls`.

use clap::Args;
use streamerson_core::Topic;

use crate::command::topic::{add_unread, missing, parts, seen, told_apart};
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::{GROUP, GroupFigures};
use crate::output::{self, Format};

/// List consumer groups: how far behind they are, in messages and in time, and what they hold
///
/// LAG: messages not delivered yet; those in a partition of a divided topic also where no member of the group reads it. BEHIND: how long the first of them has waited. PENDING: messages delivered and not settled,
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
        let broker = self.broker.connect_existing().await?;
        let topics = match &self.topic {
            Some(topic) => parts(&*broker, topic).await?,
            None => broker.topics().await?,
        };
        let now = broker.time().await?;
        let is_divided = topics.len() > 1;
        let seen = seen(&*broker, topics).await?;
        if let (Some(topic), true) = (&self.topic, seen.is_empty() && !is_divided) {
            return Err(missing(topic));
        }
        let (mut found, damage) = told_apart(seen);
        add_unread(&*broker, &mut found).await?;
        let groups = found.into_iter().flat_map(|(topic, stats)| {
            let groups = stats.groups.into_iter();
            groups.map(move |group| GroupFigures::new(&topic, group, now))
        });
        let groups: Vec<GroupFigures> = groups.collect();
        match self.output {
            Format::Json => output::json(&groups)?,
            Format::Table => {
                output::table(&GROUP, groups.iter().map(GroupFigures::row).collect())?;
            }
        }
        // The others were told all the same.
        match damage.into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }
}
