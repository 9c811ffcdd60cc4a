//! `streamerson topic show`.

use clap::Args;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use streamerson_core::stats::TopicStats;
use streamerson_core::{Broker, Lease, Topic};

use super::{
    AT_ONCE, Damage, Found, Seen, Unreadable, add_unread, missing, parts, seen, told_apart,
};
use crate::duration::short;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::{GROUP, GroupFigures, number, stamped};
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

/// A topic as `-o json` prints it: what can be read of it.
#[derive(Serialize)]
struct Described {
    topic: String,
    /// Null, as all that is told of the topic as a whole, when a part of it cannot be read.
    length: Option<u64>,
    first: Option<String>,
    last: Option<String>,
    scheduled: Option<u64>,
    /// 0: not divided.
    partitions: u32,
    dead_letters: Option<u64>,
    leases: Vec<Held>,
    groups: Vec<GroupFigures>,
    /// What of it, its partitions and its dead letters cannot be read.
    damaged: Vec<Damaged>,
}

/// A topic that cannot be read, as `topic ls` prints it.
#[derive(Serialize)]
struct Damaged {
    topic: String,
    error: Damage,
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
        let broker = self.broker.connect_existing().await?;
        let now = broker.time().await?;
        let parts = parts(&*broker, &self.topic).await?;
        let partitions = parts.len() as u32 - 1;
        let (mut found, damage) = told_apart(seen(&*broker, parts.clone()).await?);
        if found.is_empty() && damage.is_empty() && partitions == 0 {
            return Err(missing(&self.topic));
        }
        add_unread(&*broker, &mut found).await?;
        let (letters, damaged_letters) = told_apart(dead_letters(&*broker, &parts).await?);
        // A sum without what cannot be read would look like the whole.
        let whole = damage.is_empty().then_some(&*found);
        let all_letters = damaged_letters.is_empty().then_some(&*letters);
        let damage: Vec<_> = damage.into_iter().chain(damaged_letters).collect();
        let first = whole.and_then(|found| found.iter().filter_map(|(_, it)| it.first).min());
        let last = whole.and_then(|found| found.iter().filter_map(|(_, it)| it.last).max());
        let described = Described {
            topic: self.topic.to_string(),
            length: whole.map(|found| sum(found, |stats| stats.length)),
            first: first.map(|position| position.to_string()),
            last: last.map(|position| position.to_string()),
            scheduled: whole.map(|found| sum(found, |stats| stats.scheduled)),
            partitions,
            dead_letters: all_letters.map(|letters| sum(letters, |stats| stats.length)),
            leases: leases(&*broker, parts).await?,
            damaged: damage.iter().map(Damaged::of).collect(),
            groups: found
                .into_iter()
                .flat_map(|(topic, stats)| {
                    let groups = stats.groups.into_iter();
                    groups.map(move |group| GroupFigures::new(&topic, group, now))
                })
                .collect(),
        };
        match self.output {
            Format::Json => output::json(&described)?,
            Format::Table => described.print(stamped(first, now), stamped(last, now))?,
        }
        // What is known was told all the same.
        match damage.into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }
}

impl Described {
    fn print(&self, first: String, last: String) -> Result<()> {
        let row = vec![
            self.topic.clone(),
            number(self.length),
            first,
            last,
            number(self.scheduled),
            self.partitions.to_string(),
            number(self.dead_letters),
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
        if !self.groups.is_empty() {
            output::line(b"")?;
            let rows = self.groups.iter().map(GroupFigures::row).collect();
            output::table(&GROUP, rows)?;
        }
        if !self.leases.is_empty() {
            output::line(b"")?;
            let rows = self.leases.iter().map(Held::row).collect();
            output::table(&["TOPIC", "LEASE", "HOLDER", "EPOCH", "ENDS IN"], rows)?;
        }
        if !self.damaged.is_empty() {
            output::line(b"")?;
            let rows = self.damaged.iter().map(Damaged::row).collect();
            output::table(&["DAMAGED", "CODE"], rows)?;
        }
        Ok(())
    }
}

/// The dead letters of these topics.
async fn dead_letters(broker: &dyn Broker, topics: &[Topic]) -> Result<Vec<Seen>> {
    let with_letters = topics
        .iter()
        .filter(|topic| !topic.is_dead_letters() && !topic.is_inbox());
    seen(broker, with_letters.map(Topic::dead_letters).collect()).await
}

fn sum(topics: &[Found], figure: fn(&TopicStats) -> u64) -> u64 {
    topics.iter().map(|(_, stats)| figure(stats)).sum()
}

impl Damaged {
    fn of((topic, error): &Unreadable) -> Damaged {
        Damaged {
            topic: topic.to_string(),
            error: Damage::from(error),
        }
    }

    fn row(&self) -> Vec<String> {
        vec![self.topic.clone(), self.error.code.to_owned()]
    }
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
