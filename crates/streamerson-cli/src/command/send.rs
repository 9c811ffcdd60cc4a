//! `streamerson send`: appends a message that wants no answer.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use streamerson::Client;
use streamerson::client::IDEMPOTENCY_KEEP;
use streamerson_core::meta::IDEMPOTENCY_KEY;
use streamerson_core::time::millis;
use streamerson_core::{Append, Message, Once, Position};

use crate::destination::Destination;
use crate::duration;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::output::{self, Format};
use crate::payload::PayloadArgs;

/// Append a message to a topic, and print its id and position
#[derive(Debug, Args)]
pub(crate) struct Send {
    #[command(flatten)]
    destination: Destination,

    #[command(flatten)]
    payload: PayloadArgs,

    /// Let it appear at this time, for example 2026-12-24T18:00:00+01:00
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "delay")]
    at: Option<u64>,

    /// Let it appear after this time, for example 90s, 12h or 7d
    #[arg(long, value_name = "DURATION", value_parser = duration::age, allow_hyphen_values = true)]
    delay: Option<Duration>,

    /// Store it once: of all messages of this type with the same key, the first of a day is stored; workers see the key too
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Serialize)]
struct Sent<'a> {
    id: &'a str,
    /// Of the message that is stored; none while it is scheduled.
    position: Option<String>,
}

impl Send {
    pub(crate) async fn run(self) -> Result<()> {
        self.destination.check()?;
        let mut append = self.append()?;
        let id = append.message.id.clone();
        let client = Client::open(self.broker.connect().await?).await?;
        if let Some(delay) = self.delay {
            append = append.due_at(client.broker_unix_ms().saturating_add(millis(delay)));
        }
        let position = client.store(append).await?;
        let position = (position != Position::ZERO).then(|| position.to_string());
        match self.output {
            Format::Table => {
                let place = position.as_deref().unwrap_or("scheduled");
                output::line(format!("{id} {place}").as_bytes())?;
            }
            Format::Json => output::json(&Sent { id: &id, position })?,
        }
        Ok(())
    }

    /// What is to be stored, and how often; when, unless that depends on what the broker's clock says.
    fn append(&self) -> Result<Append> {
        let Destination { topic, kind } = &self.destination;
        let data = self.payload.read()?;
        let mut meta = self.payload.meta();
        let mut once = None;
        if let Some(key) = &self.idempotency_key {
            once = Some(Once::of_caller(kind, key, IDEMPOTENCY_KEEP)?);
            meta.hdr.append(IDEMPOTENCY_KEY, key);
        }
        let message = Message::new(kind.clone(), data).with_meta(&meta);
        let mut append = Append::new(topic.clone(), message);
        if let Some(due) = self.at {
            append = append.due_at(due);
        }
        if let Some(once) = once {
            append = append.once(once);
        }
        Ok(append)
    }
}

/// Reads a time with its offset, as milliseconds since 1970.
fn time(text: &str) -> Result<u64, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        format!("{text:?} is not a time with its offset, such as 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00")
    })?;
    Ok(u64::try_from(time.as_millisecond()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_an_offset() {
        assert_eq!(time("1970-01-01T00:00:01.5Z"), Ok(1500));
        assert_eq!(time("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(time("1969-12-31T23:00:00Z"), Ok(0));
        for text in [
            "",
            "tomorrow",
            "2026-12-24",
            "2026-12-24T18:00:00",
            "1763900000000",
        ] {
            assert!(time(text).is_err(), "{text:?}");
        }
    }
}
