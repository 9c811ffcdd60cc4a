//! `streamerson dlq show`.

use std::time::Duration;

use clap::Args;
use streamerson_core::meta::DeadLetter;
use streamerson_core::{Entry, Position, Topic, dead_letter};

use super::letter::Letter;
use crate::duration::short;
use crate::endpoint::BrokerArgs;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Format, plain};
use crate::view::Record;

/// Show one dead letter: why it is dead, and the whole message
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Topic whose dead letter it is
    topic: Topic,

    /// Its position among the dead letters, as `dlq ls` prints it
    position: Position,

    /// How to print it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

impl Show {
    pub(super) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let letters = self.topic.dead_letters();
        let after = self.position.predecessor().unwrap_or_default();
        let found = broker.range(&letters, after, 1).await?;
        let found = found
            .into_iter()
            .find(|entry| entry.position == self.position);
        let entry = found.ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                "letter-not-found",
                format!("there is no dead letter at {} of {letters}", self.position),
            )
            .with_help(format!(
                "it may have been retried or dropped; `streamerson dlq ls {}` lists what is there",
                self.topic
            ))
        })?;
        match self.output {
            Format::Json => output::json(&Record(&entry))?,
            Format::Table => output::line(text(entry, broker.time().await?).as_bytes())?,
        }
        Ok(())
    }
}

/// How often it was tried, and for how long.
fn attempts(why: &DeadLetter) -> String {
    let tried = Duration::from_millis(why.at.saturating_sub(why.first));
    match why.first {
        0 => why.attempts.to_string(),
        _ => format!("{} within {}", why.attempts, short(tried)),
    }
}

/// A line per fact, then the payload.
fn text(entry: Entry, now_unix_ms: u64) -> String {
    let letter = Letter::new(entry);
    let why = &letter.why;
    let position = letter.position;
    let mut facts = vec![
        (
            "position",
            format!("{position} ({} ago)", short(letter.age(now_unix_ms))),
        ),
        ("code", why.code.clone()),
        ("reason", why.reason.clone()),
        ("from", format!("{} at {}", why.topic, why.position)),
        ("group", why.group.clone()),
        ("member", why.member.clone()),
        ("attempts", attempts(why)),
    ];
    let mut payload = String::new();
    if let Some(message) = &letter.message {
        facts.push(("type", message.kind.to_string()));
        facts.push(("id", message.id.to_string()));
        if let Err(error) = dead_letter::original(message) {
            facts.push(("no retry", error.detail().to_owned()));
        }
        payload = format!("\n\n{}", plain(&String::from_utf8_lossy(&message.data)));
    }
    let facts: Vec<String> = facts
        .iter()
        .map(|(name, fact)| format!("{name:<10}{}", plain(fact)))
        .collect();
    facts.join("\n") + &payload
}
