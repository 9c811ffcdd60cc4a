//! `streamerson group seek`.

use clap::Args;
use serde::Serialize;
use streamerson_core::stats::{GroupStats, TopicStats};
use streamerson_core::{Broker, Name, Position, Start, Topic};

use super::look;
use crate::confirm::Confirm;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::output::{self, Format};

/// How many messages are counted one by one for the preview.
const COUNTED: u64 = 10_000;
/// How many are looked at in one call.
const PAGE: usize = 256;

/// Let a consumer group go on elsewhere: again with the earliest message, with what comes next, or after a position
///
/// The preview says how many messages will be delivered again, or passed over. What is pending stays with its members.
/// A group that its topic does not have yet is created there.
#[derive(Debug, Args)]
pub(super) struct Seek {
    /// Topic of the group
    topic: Topic,

    /// Group to move
    group: Name,

    /// Where it goes on; after a position, the message at that position is not delivered again
    #[arg(value_name = "earliest|latest|POSITION")]
    to: Start,

    #[command(flatten)]
    confirm: Confirm,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

/// What moving the group means.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Moved {
    topic: String,
    group: String,
    from: Option<String>,
    to: String,
    moved: bool,
    /// Messages that come again.
    again: u64,
    /// Messages that this group will not see.
    passed_over: u64,
    /// Whether there may be more than these figures say.
    at_least: bool,
}

impl Seek {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let (topic, group) = look(&*broker, &self.topic, &self.group).await?;
        let group = group.as_ref();
        let mut moved = self.preview(&*broker, &topic, group).await?;
        let line = moved.line(group.is_some());
        let decided = self.confirm.decide(&[line]);
        if let Ok(true) = decided {
            broker.seek(&self.topic, &self.group, self.to, None).await?;
            moved.moved = true;
        }
        match self.output {
            Format::Json => output::json(&moved)?,
            Format::Table if moved.moved => {
                output::line(format!("{} {} {}", moved.topic, moved.group, moved.to).as_bytes())?;
            }
            Format::Table => {}
        }
        decided.map(drop)
    }

    async fn preview(
        &self,
        broker: &dyn Broker,
        topic: &TopicStats,
        group: Option<&GroupStats>,
    ) -> Result<Moved> {
        let from = group.and_then(|group| group.cursor);
        let target = match self.to {
            Start::Earliest => Position::ZERO,
            Start::Latest => topic.last.unwrap_or_default(),
            Start::After(position) => position,
        };
        let mut moved = Moved {
            topic: self.topic.to_string(),
            group: self.group.to_string(),
            from: from.map(|position| position.to_string()),
            to: match self.to {
                Start::Earliest => "earliest".to_owned(),
                Start::Latest => "latest".to_owned(),
                Start::After(position) => position.to_string(),
            },
            moved: false,
            again: 0,
            passed_over: 0,
            at_least: false,
        };
        let Some(group) = group else {
            return Ok(moved);
        };
        let cursor = from.unwrap_or_default();
        // The ends are known without looking at the messages.
        match (self.to, group.lag) {
            (Start::Earliest, Some(lag)) => moved.again = topic.length.saturating_sub(lag),
            (Start::Latest, Some(lag)) => moved.passed_over = lag,
            _ => {
                let (low, high) = (cursor.min(target), cursor.max(target));
                let between = count(broker, &self.topic, low, high).await?;
                moved.at_least = between >= COUNTED;
                match target < cursor {
                    true => moved.again = between,
                    false => moved.passed_over = between,
                }
            }
        }
        Ok(moved)
    }
}

/// How many messages stand after `low`, up to and with `high`; no further than to [`COUNTED`].
async fn count(broker: &dyn Broker, topic: &Topic, low: Position, high: Position) -> Result<u64> {
    let (mut after, mut counted) = (low, 0);
    while counted < COUNTED {
        let page = broker.range(topic, after, PAGE).await?;
        let Some(last) = page.last() else {
            break;
        };
        after = last.position;
        counted += page.iter().filter(|entry| entry.position <= high).count() as u64;
        if after >= high {
            break;
        }
    }
    Ok(counted)
}

impl Moved {
    fn line(&self, exists: bool) -> String {
        let Moved {
            topic, group, to, ..
        } = self;
        if !exists {
            return format!("group {group} of {topic} does not exist, and is created at {to}");
        }
        let at_least = if self.at_least { "at least " } else { "" };
        let what = match (self.again, self.passed_over) {
            (0, 0) => "no message comes again, and none is passed over".to_owned(),
            (again, 0) => format!("{at_least}{again} messages come again"),
            (_, passed) => format!("{at_least}{passed} messages are passed over"),
        };
        let from = self.from.as_deref().unwrap_or("the beginning");
        format!("group {group} of {topic} goes from {from} to {to}: {what}")
    }
}
