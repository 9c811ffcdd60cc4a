//! `streamerson topic trim`.

use std::time::Duration;

use clap::{ArgGroup, Args};
use serde::Serialize;
use streamerson_core::retention::Retention;
use streamerson_core::stats::TopicStats;
use streamerson_core::{Broker, Position, Topic};

use super::{found, missing, parts};
use crate::confirm::Confirm;
use crate::duration;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::counted;
use crate::output::{self, Format, message};

/// How many messages are counted one by one for a preview.
const COUNTED: u64 = 10_000;
/// How many are looked at in one call.
const PAGE: usize = 256;

/// Remove the oldest messages of a topic, and of its partitions if it is divided
///
/// What a group has not processed stays, and so does everything when there is no group, unless --force says otherwise:
/// that is data loss, and needs --yes.
///
/// A look counts no further than 10,000 messages or a few more: of more, JSON has what was counted in at_least, and neither removed nor lost.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("bound").args(["max_age", "max_len"]).required(true).multiple(true)))]
pub(super) struct TrimTopic {
    /// Topic to trim
    topic: Topic,

    /// Keep messages younger than this, for example 12h or 7d
    #[arg(long, value_name = "AGE", value_parser = duration::age)]
    max_age: Option<Duration>,

    /// Keep so many of the newest messages; of a divided topic, so many in each partition
    #[arg(long, value_name = "N")]
    max_len: Option<u64>,

    /// Also remove what a group has not processed
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    confirm: Confirm,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

/// What was removed, or would be.
#[derive(Default)]
struct Report {
    topic: String,
    removed: u64,
    /// Of these, what some group had not processed.
    lost: u64,
    /// Whether nothing was done, because only a look was wanted.
    dry_run: bool,
    /// Whether there may be more than these figures say.
    at_least: bool,
}

/// A report as `-o json` prints it.
#[derive(Serialize)]
struct Printed<'a> {
    topic: &'a str,
    /// Null where it was not counted to the end.
    removed: Option<u64>,
    lost: Option<u64>,
    dry_run: bool,
    /// What was counted then.
    at_least: Option<Counted>,
}

/// Messages that go, and those of them that some group had not processed.
#[derive(Serialize)]
struct Counted {
    removed: u64,
    lost: u64,
}

impl TrimTopic {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let parts = parts(&*broker, &self.topic).await?;
        let is_divided = parts.len() > 1;
        let topics = found(&*broker, parts).await?;
        if topics.is_empty() && !is_divided {
            return Err(missing(&self.topic));
        }
        // What every group has processed is removed all the time, so that needs no second word.
        let asks = self.force || self.confirm.only_looks();
        if asks {
            let would = self.look(&*broker, &topics).await?;
            let length = topics.iter().map(|(_, stats)| stats.length).sum();
            match self.confirm.decide(&[would.preview(length)]) {
                Ok(true) => {}
                Ok(false) => return self.print(&would),
                Err(failure) => {
                    if self.output == Format::Json {
                        self.print(&would)?;
                    }
                    return Err(failure);
                }
            }
        }
        let report = self.trim(&*broker, &topics).await?;
        if report.lost > 0 {
            message(&format!(
                "warning: {} that some group had not processed went too",
                counted(report.lost, "message", "messages")
            ));
        }
        self.print(&report)
    }

    async fn trim(&self, broker: &dyn Broker, topics: &[(Topic, TopicStats)]) -> Result<Report> {
        let retention = Retention {
            max_age: self.max_age,
            max_len: self.max_len,
            force: self.force,
        };
        let mut report = self.report();
        for (topic, _) in topics {
            let trimmed = broker.trim(topic, retention).await?;
            report.removed += trimmed.removed;
            report.lost += trimmed.lost;
        }
        Ok(report)
    }

    /// What a trim would do.
    async fn look(&self, broker: &dyn Broker, topics: &[(Topic, TopicStats)]) -> Result<Report> {
        let mut report = self.report();
        report.dry_run = true;
        for (topic, stats) in topics {
            self.count(broker, topic, stats, &mut report).await?;
        }
        Ok(report)
    }

    /// Counts what would go, message by message, no further than to [`COUNTED`].
    async fn count(
        &self,
        broker: &dyn Broker,
        topic: &Topic,
        stats: &TopicStats,
        report: &mut Report,
    ) -> Result<()> {
        let surplus = self.max_len.map(|keep| stats.length.saturating_sub(keep));
        let now = broker.time().await?;
        let ago = |age: Duration| now.saturating_sub(age.as_millis() as u64);
        let keep_from = self.max_age.map(|age| Position::new(ago(age), 0));
        let unprocessed = first_unprocessed(stats);
        let (mut after, mut gone) = (Position::ZERO, 0);
        while report.removed < COUNTED {
            let page = broker.range(topic, after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.position;
            for position in page.iter().map(|entry| entry.position) {
                let is_lost = unprocessed.is_none_or(|first| position >= first);
                let is_meant = Some(gone) < surplus || Some(position) < keep_from;
                if !is_meant || is_lost && !self.force {
                    return Ok(());
                }
                gone += 1;
                report.removed += 1;
                report.lost += u64::from(is_lost);
            }
        }
        report.at_least = true;
        Ok(())
    }

    fn report(&self) -> Report {
        Report {
            topic: self.topic.to_string(),
            ..Report::default()
        }
    }

    fn print(&self, report: &Report) -> Result<()> {
        match self.output {
            Format::Json => output::json(&report.printed())?,
            Format::Table if report.dry_run => {}
            Format::Table => output::line(format!("removed {}", report.removed).as_bytes())?,
        }
        Ok(())
    }
}

/// Where the first message that some group has not processed stands or would stand; none without groups.
fn first_unprocessed(stats: &TopicStats) -> Option<Position> {
    let groups = stats.groups.iter();
    let firsts = groups.map(|group| {
        let unprocessed = group.oldest_pending.into_iter().chain(group.next);
        unprocessed
            .min()
            .unwrap_or(Position::new(u64::MAX, u64::MAX))
    });
    firsts.min()
}

impl Report {
    fn printed(&self) -> Printed<'_> {
        let Report { removed, lost, .. } = *self;
        Printed {
            topic: &self.topic,
            removed: (!self.at_least).then_some(removed),
            lost: (!self.at_least).then_some(lost),
            dry_run: self.dry_run,
            at_least: self.at_least.then_some(Counted { removed, lost }),
        }
    }

    fn preview(&self, length: u64) -> String {
        let Report {
            topic,
            removed,
            lost,
            ..
        } = self;
        let at_least = if self.at_least { "at least " } else { "" };
        let length = counted(length, "message", "messages");
        let lost = match lost {
            0 => String::new(),
            lost => format!(", and {at_least}{lost} of them are not processed"),
        };
        format!("topic {topic}: {at_least}{removed} of {length} would go{lost}")
    }
}
