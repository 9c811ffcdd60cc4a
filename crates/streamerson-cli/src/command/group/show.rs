//! `streamerson group show`.

use clap::Args;
use serde::Serialize;
use streamerson_core::stats::GroupStats;
use streamerson_core::{Broker, Name, Pending, Position, Topic};

use super::find;
use crate::command::topic::{found, parts};
use crate::duration::short;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::{self, GROUP, GroupFigures, MEMBER, counted};
use crate::output::{self, Format, message};

/// Show one consumer group: its members and what they hold, and its oldest pending messages
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Topic of the group
    topic: Topic,

    /// Group to show
    group: Name,

    /// How many pending messages to show, the oldest first
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(0..=1000))]
    top: u16,

    /// How to print it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

/// A group as `-o json` prints it.
#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    figures: GroupFigures,
    oldest: Vec<Waiting>,
}

/// A pending message as `-o json` prints it.
#[derive(Serialize)]
struct Waiting {
    position: String,
    member: String,
    age_ms: u64,
    idle_ms: u64,
    attempt: u32,
    /// Time until it is delivered again; null: somebody works on it, or died.
    due_ms: Option<u64>,
}

impl Show {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let mut stats = find(&*broker, &self.topic, &self.group).await?;
        let unread = self.add_unread(&*broker, &mut stats).await?;
        if unread > 0 {
            message(&format!(
                "warning: {topic} is divided, and nobody of this group reads {}: workers have to use ordered_topic; \
                 `streamerson group ls {topic}` shows all partitions",
                counted(unread, "message", "messages"),
                topic = self.topic,
            ));
        }
        let now = broker.time().await?;
        let pending = match self.top {
            0 => Vec::new(),
            top => {
                let from = Position::ZERO;
                let top = usize::from(top);
                broker.pending(&self.topic, &self.group, from, top).await?
            }
        };
        let figures = GroupFigures::new(&self.topic, stats, now);
        if self.output == Format::Json {
            let oldest = pending.iter().map(|pending| waiting(pending, now));
            return Ok(output::json(&Described {
                figures,
                oldest: oldest.collect(),
            })?);
        }
        output::table(&GROUP, vec![figures.row()])?;
        if !figures.stats.members.is_empty() {
            output::line(b"")?;
            let rows = figures.stats.members.iter().map(figures::member);
            output::table(&MEMBER, rows.collect())?;
        }
        if !pending.is_empty() {
            output::line(b"")?;
            let rows = pending.iter().map(|pending| row(pending, now));
            output::table(
                &["PENDING", "AGE", "MEMBER", "IDLE", "ATTEMPT", "AGAIN IN"],
                rows.collect(),
            )?;
        }
        Ok(())
    }
}

impl Show {
    /// Adds to the lag of a group what stands in partitions of the topic where it has not begun; answers how much that is.
    async fn add_unread(&self, broker: &dyn Broker, stats: &mut GroupStats) -> Result<u64> {
        let mut parts = parts(broker, &self.topic).await?;
        let partitions = found(broker, parts.split_off(1)).await?;
        let mut unread = 0;
        for (_, part) in partitions {
            if part.groups.iter().all(|group| group.name != stats.name) {
                unread += part.length;
                stats.next = stats.next.into_iter().chain(part.first).min();
            }
        }
        stats.lag = stats.lag.map(|lag| lag + unread);
        Ok(unread)
    }
}

fn waiting(pending: &Pending, now_unix_ms: u64) -> Waiting {
    Waiting {
        position: pending.position.to_string(),
        member: pending.member.to_string(),
        age_ms: pending.position.age(now_unix_ms).as_millis() as u64,
        idle_ms: pending.idle.as_millis() as u64,
        attempt: pending.attempt,
        due_ms: pending.due.map(|due| due.as_millis() as u64),
    }
}

fn row(pending: &Pending, now_unix_ms: u64) -> Vec<String> {
    vec![
        pending.position.to_string(),
        short(pending.position.age(now_unix_ms)),
        pending.member.to_string(),
        short(pending.idle),
        pending.attempt.to_string(),
        pending.due.map_or_else(|| "-".to_owned(), short),
    ]
}
