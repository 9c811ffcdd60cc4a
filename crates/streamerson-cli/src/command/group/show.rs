//! `streamerson group show`.

use clap::Args;
use serde::Serialize;
use streamerson_core::time::unix_ms;
use streamerson_core::{Name, Pending, Position, Topic};

use super::find;
use crate::duration::short;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::figures::{self, GROUP, GroupFigures, MEMBER};
use crate::output::{self, Format};

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
        let broker = self.broker.connect().await?;
        let stats = find(&*broker, &self.topic, &self.group).await?;
        let now = unix_ms();
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
