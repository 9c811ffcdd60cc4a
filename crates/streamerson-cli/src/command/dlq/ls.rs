//! `streamerson dlq ls`.

use clap::Args;
use serde::Serialize;
use streamerson_core::{Broker, Topic};

use super::filter::Filter;
use super::letter::{Letter, Letters};
use super::summary::{CAUSES, Cause, Causes};
use crate::command::topic::{note_missing, parts};
use crate::duration::short;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::output::{self, Format, message};

/// How many characters of a reason the table shows.
const SHOWN: usize = 60;

/// List dead letters, the oldest first, or count them by cause
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Topic whose dead letters to list
    #[arg(required_unless_present = "all")]
    topic: Option<Topic>,

    /// Those of all topics
    #[arg(long, conflicts_with = "topic")]
    all: bool,

    /// Count them by code and type
    #[arg(long)]
    summary: bool,

    #[command(flatten)]
    filter: Filter,

    /// List so many at most
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    max: u64,

    /// How to print them
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

/// A dead letter of one of several topics.
#[derive(Serialize)]
struct Listed {
    topic: String,
    #[serde(flatten)]
    letter: Letter,
}

impl Ls {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let topics = match &self.topic {
            Some(topic) => parts(&*broker, topic).await?,
            None => broker.topics().await?,
        };
        let is_empty = match self.summary {
            true => self.summarize(&*broker, &topics).await?,
            false => self.list(&*broker, &topics).await?,
        };
        match &self.topic {
            Some(topic) if is_empty => note_missing(&*broker, topic).await,
            _ => Ok(()),
        }
    }

    /// Answers whether there are none.
    async fn list(&self, broker: &dyn Broker, topics: &[Topic]) -> Result<bool> {
        let now = broker.time().await?;
        let mut listed: Vec<Listed> = Vec::new();
        let mut more = false;
        for topic in topics {
            let (after, to) = self.filter.bounds(now);
            let mut letters = Letters::of(broker, topic, after, to).await?;
            'walk: loop {
                let page = letters.next().await?;
                if page.is_empty() {
                    break;
                }
                for letter in page
                    .into_iter()
                    .filter(|letter| self.filter.matches(letter))
                {
                    if listed.len() as u64 >= self.max {
                        more = true;
                        break 'walk;
                    }
                    let topic = name(topic);
                    listed.push(Listed { topic, letter });
                }
            }
        }
        match self.output {
            Format::Json => output::json(&listed)?,
            Format::Table => output::table(
                &[
                    "TOPIC", "POSITION", "AGE", "TYPE", "GROUP", "TRIES", "CODE", "REASON",
                ],
                listed.iter().map(|listed| listed.row(now)).collect(),
            )?,
        }
        if more {
            message(&format!(
                "there are more: --max N lists more than {}, --from POSITION later ones, --summary counts all",
                self.max
            ));
        }
        Ok(listed.is_empty())
    }

    /// Answers whether there are none.
    async fn summarize(&self, broker: &dyn Broker, topics: &[Topic]) -> Result<bool> {
        let now = broker.time().await?;
        let mut found: Vec<Cause> = Vec::new();
        for topic in topics {
            let (after, to) = self.filter.bounds(now);
            let mut letters = Letters::of(broker, topic, after, to).await?;
            let mut causes = Causes::default();
            loop {
                let page = letters.next().await?;
                if page.is_empty() {
                    break;
                }
                for letter in page.iter().filter(|letter| self.filter.matches(letter)) {
                    causes.add(&name(topic), letter);
                }
            }
            found.extend(causes.into_causes());
        }
        match self.output {
            Format::Json => output::json(&found)?,
            Format::Table => {
                output::table(&CAUSES, found.iter().map(|cause| cause.row(now)).collect())?;
            }
        }
        Ok(found.is_empty())
    }
}

impl Listed {
    fn row(&self, now_unix_ms: u64) -> Vec<String> {
        let Listed { topic, letter } = self;
        vec![
            topic.clone(),
            letter.position.to_string(),
            short(letter.age(now_unix_ms)),
            letter.kind().to_owned(),
            letter.why.group.clone(),
            letter.why.attempts.to_string(),
            letter.why.code.clone(),
            cut(&letter.why.reason),
        ]
    }
}

/// The topic whose dead letters these are.
fn name(topic: &Topic) -> String {
    let name = topic.as_str();
    name.strip_suffix(":dlq").unwrap_or(name).to_owned()
}

/// As much of a reason as a table shows.
pub(super) fn cut(reason: &str) -> String {
    match reason.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}
