//! `streamerson topic create`.

use clap::Args;
use serde::Serialize;
use streamerson_core::stats::TopicStats;
use streamerson_core::{Topic, partition};

use super::stats;
use crate::confirm::Confirm;
use crate::endpoint::BrokerArgs;
use crate::failure::{Exit, Failure, Result};
use crate::figures::counted;
use crate::output::{self, Format};

/// Divide a topic into partitions, so that messages with the same key are handled in order
///
/// Other topics need not be created: they begin with their first message. The number of partitions cannot be changed
/// later, because it says which partition a key belongs to. Dividing again into the same number does nothing. A topic that has
/// messages or groups is divided with --yes only: workers that do not use ordered_topic get nothing more from it, and end.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Topic to divide
    topic: Topic,

    /// How many partitions: the most members that can share the work
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(partition::MOST)))]
    partitions: u32,

    #[command(flatten)]
    confirm: Confirm,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Serialize)]
struct Created {
    topic: String,
    partitions: u32,
    /// Whether it is divided now.
    divided: bool,
}

impl Create {
    pub(super) async fn run(self) -> Result<()> {
        let topic = &self.topic;
        if topic.is_dead_letters() || topic.is_inbox() {
            return Err(Failure::usage(
                "topic-reserved",
                format!("{topic} cannot be divided: inboxes and dead letters belong to others"),
            ));
        }
        let broker = self.broker.connect().await?;
        let divided = broker.partitions(topic).await?;
        if divided == 0 {
            let stats = stats(&*broker, topic).await?.unwrap_or_default();
            let asks = is_used(&stats) || self.confirm.only_looks();
            if asks && !self.confirm.decide(&preview(topic, &stats))? {
                return self.print(false);
            }
        }
        let partitions = broker.divide(topic, self.partitions).await?;
        if partitions != self.partitions {
            return Err(Failure::new(
                Exit::Conflict,
                "topic-divided",
                format!(
                    "{topic} is divided into {partitions} partitions already, and their number cannot change"
                ),
            )
            .with_help(format!(
                "use --partitions {partitions}, or a new topic"
            )));
        }
        self.print(true)
    }

    fn print(&self, divided: bool) -> Result<()> {
        let created = Created {
            topic: self.topic.to_string(),
            partitions: self.partitions,
            divided,
        };
        match self.output {
            Format::Json => output::json(&created)?,
            Format::Table if divided => {
                output::line(format!("{} {}", created.topic, created.partitions).as_bytes())?;
            }
            Format::Table => {}
        }
        Ok(())
    }
}

/// Whether somebody relies on the topic as it is.
fn is_used(stats: &TopicStats) -> bool {
    stats.length > 0 || stats.scheduled > 0 || !stats.groups.is_empty()
}

/// Whom it concerns.
fn preview(topic: &Topic, stats: &TopicStats) -> Vec<String> {
    let groups = stats.groups.iter().map(|group| {
        let members = counted(group.members.len() as u64, "member", "members");
        format!("{} ({members})", group.name)
    });
    let groups = match groups.collect::<Vec<_>>() {
        none if none.is_empty() => "no groups".to_owned(),
        groups => format!("groups: {}", groups.join(", ")),
    };
    let held = format!(
        "topic {topic}: {}, {} scheduled, {groups}",
        counted(stats.length, "message", "messages"),
        stats.scheduled
    );
    let cut_off = "once it is divided, workers on it get nothing more and end (topic-divided), unless they use ordered_topic";
    match is_used(stats) {
        true => vec![held, cut_off.to_owned()],
        false => vec![held],
    }
}
