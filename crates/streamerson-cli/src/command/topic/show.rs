//! `streamerson topic show`.

use clap::Args;
use serde::Serialize;
use streamerson_core::time::unix_ms;
use streamerson_core::{Broker, Lease, Topic};

use super::{partitions, stats};
use crate::duration::short;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::{GROUP, GroupFigures, stamped};
use crate::output::{self, Format};

/// Show one topic: what it holds, its partitions, leases, dead letters and consumer groups
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
    name: String,
    holder: String,
    epoch: u64,
    remaining_ms: u64,
}

impl Show {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect().await?;
        let (topic, now) = (&self.topic, unix_ms());
        let parts = partitions(&*broker, topic).await?;
        let stats = match parts.is_empty() {
            true => broker.stats(topic).await?,
            // What is sent to a divided topic stands in its partitions.
            false => stats(&*broker, topic).await?.unwrap_or_default(),
        };
        let (first, last) = (stats.first, stats.last);
        let groups = stats.groups.into_iter();
        let described = Described {
            topic: topic.to_string(),
            length: stats.length,
            first: first.map(|position| position.to_string()),
            last: last.map(|position| position.to_string()),
            scheduled: stats.scheduled,
            partitions: parts.len() as u32,
            dead_letters: dead_letters(&*broker, topic, &parts).await?,
            leases: broker.leases(topic).await?.into_iter().map(held).collect(),
            groups: groups
                .map(|group| GroupFigures::new(topic, group, now))
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
            output::table(&["LEASE", "HOLDER", "EPOCH", "ENDS IN"], rows)?;
        }
        Ok(())
    }
}

/// How many dead letters there are of the topic and its partitions.
async fn dead_letters(broker: &dyn Broker, topic: &Topic, parts: &[Topic]) -> Result<u64> {
    if topic.is_dead_letters() || topic.is_inbox() {
        return Ok(0);
    }
    let mut count = 0;
    for topic in parts.iter().chain([topic]) {
        let letters = stats(broker, &topic.dead_letters()).await?;
        count += letters.map_or(0, |letters| letters.length);
    }
    Ok(count)
}

fn held(lease: Lease) -> Held {
    Held {
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
            self.name.clone(),
            self.holder.clone(),
            self.epoch.to_string(),
            short(remaining),
        ]
    }
}
