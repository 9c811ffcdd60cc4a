//! `streamerson topic show`.

use clap::Args;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use streamerson_core::{Broker, Lease, Topic};

use super::{AT_ONCE, add_unread, found, missing, parts};
use crate::duration::short;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::{GROUP, GroupFigures, stamped};
use crate::output::{self, Format};

/// Show one topic: what it holds, its dead letters, consumer groups and leases; a divided one with its partitions
///
/// FIRST is the oldest message that is there, LAST the newest that there ever was: it stays when the message is removed.
#[derive(Debug, Args)]
pub(super) struct Show {
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
    length: u64,
    first: Option<String>,
    last: Option<String>,
    scheduled: u64,
    /// 0: not divided.
    partitions: u32,
    dead_letters: u64,
    leases: Vec<Held>,
    groups: Vec<GroupFigures>,
}

/// A lease as `-o json` prints it.
#[derive(Serialize)]
struct Held {
    topic: String,
    name: String,
    holder: String,
    epoch: u64,
    remaining_ms: u64,
}

impl Show {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect().await?;
        let now = broker.time().await?;
        let parts = parts(&*broker, &self.topic).await?;
        let partitions = parts.len() as u32 - 1;
        let mut found = found(&*broker, parts.clone()).await?;
        add_unread(&*broker, &mut found).await?;
        if found.is_empty() && partitions == 0 {
            return Err(missing(&self.topic));
        }
        let stats = || found.iter().map(|(_, stats)| stats);
        let first = stats().filter_map(|stats| stats.first).min();
        let last = stats().filter_map(|stats| stats.last).max();
        let described = Described {
            topic: self.topic.to_string(),
            length: stats().map(|stats| stats.length).sum(),
            first: first.map(|position| position.to_string()),
            last: last.map(|position| position.to_string()),
            scheduled: stats().map(|stats| stats.scheduled).sum(),
            partitions,
            dead_letters: dead_letters(&*broker, &parts).await?,
            leases: leases(&*broker, parts).await?,
            groups: found
                .into_iter()
                .flat_map(|(topic, stats)| {
                    let groups = stats.groups.into_iter();
                    groups.map(move |group| GroupFigures::new(&topic, group, now))
                })
                .collect(),
        };
        if self.output == Format::Json {
            return Ok(output::json(&described)?);
        }
        let row = vec![
            described.topic.clone(),
            described.length.to_string(),
            stamped(first, now),
            stamped(last, now),
            described.scheduled.to_string(),
            described.partitions.to_string(),
            described.dead_letters.to_string(),
        ];
        output::table(
            &[
                "TOPIC",
                "MESSAGES",
                "FIRST",
                "LAST",
                "SCHEDULED",
                "PARTITIONS",
                "DEAD LETTERS",
            ],
            vec![row],
        )?;
        if !described.groups.is_empty() {
            output::line(b"")?;
            let rows = described.groups.iter().map(GroupFigures::row).collect();
            output::table(&GROUP, rows)?;
        }
        if !described.leases.is_empty() {
            output::line(b"")?;
            let rows = described.leases.iter().map(Held::row).collect();
            output::table(&["TOPIC", "LEASE", "HOLDER", "EPOCH", "ENDS IN"], rows)?;
        }
        Ok(())
    }
}

/// How many dead letters there are of these topics.
async fn dead_letters(broker: &dyn Broker, topics: &[Topic]) -> Result<u64> {
    let with_letters = topics
        .iter()
        .filter(|topic| !topic.is_dead_letters() && !topic.is_inbox());
    let letters = found(broker, with_letters.map(Topic::dead_letters).collect()).await?;
    Ok(letters.iter().map(|(_, stats)| stats.length).sum())
}

/// The leases of these topics.
async fn leases(broker: &dyn Broker, topics: Vec<Topic>) -> Result<Vec<Held>> {
    let look = async |topic: Topic| -> Result<Vec<Held>> {
        let leases = broker.leases(&topic).await?.into_iter();
        Ok(leases.map(|lease| held(&topic, lease)).collect())
    };
    let leases = stream::iter(topics).map(look).buffered(AT_ONCE);
    leases.try_concat().await
}

fn held(topic: &Topic, lease: Lease) -> Held {
    Held {
        topic: topic.to_string(),
        name: lease.name.to_string(),
        holder: lease.holder.to_string(),
        epoch: lease.epoch,
        remaining_ms: lease.remaining.as_millis() as u64,
    }
}

impl Held {
    fn row(&self) -> Vec<String> {
        let remaining = std::time::Duration::from_millis(self.remaining_ms);
        vec![
            self.topic.clone(),
            self.name.clone(),
            self.holder.clone(),
            self.epoch.to_string(),
            short(remaining),
        ]
    }
}
