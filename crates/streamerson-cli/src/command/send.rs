//! `streamerson send`: appends a message that wants no answer.

use std::time::Duration;

use bytestring::ByteString;
use clap::Args;
use serde::Serialize;
use streamerson::Client;
use streamerson::client::IDEMPOTENCY_KEEP;
use streamerson_core::meta::IDEMPOTENCY_KEY;
use streamerson_core::time::millis;
use streamerson_core::{Append, Broker, Message, Once, Position, partition};

use crate::destination::Destination;
use crate::duration;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::output::{self, Format, message};
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

    /// Store it once: of all messages of this type with the same key, the first of a day is stored, and what is printed is its id
    /// and position; workers see the key too
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

/// The message that is stored: with a key it may be an earlier one.
#[derive(Serialize)]
struct Sent<'a> {
    /// None when only the broker knows: with a key, when it is scheduled, or gone again.
    id: Option<&'a str>,
    /// None while it is scheduled.
    position: Option<String>,
    /// Whether it was stored before, so that nothing was stored now; none when that is not known.
    repeat: Option<bool>,
}

impl Send {
    pub(crate) async fn run(self) -> Result<()> {
        self.destination.check()?;
        let mut append = self.append()?;
        let id = append.message.id.clone();
        let broker = self.broker.connect().await?;
        let client = Client::open(broker.clone()).await?;
        if let Some(delay) = self.delay {
            append = append.due_at(client.broker_unix_ms().saturating_add(millis(delay)));
        }
        let position = client.store(append.clone()).await?;
        let stored = match self.idempotency_key {
            Some(_) => id_at(&*broker, &append, position).await,
            None => Some(id.clone()),
        };
        let sent = Sent {
            repeat: stored.as_ref().map(|stored| *stored != id),
            id: stored.as_deref(),
            position: (position != Position::ZERO).then(|| position.to_string()),
        };
        match self.output {
            Format::Table => sent.print()?,
            Format::Json => output::json(&sent)?,
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

impl Sent<'_> {
    fn print(&self) -> Result<()> {
        match self.repeat {
            Some(false) => (),
            Some(true) => {
                message("note: a message with this key was stored before; nothing was stored now");
            }
            None => {
                message("note: it is not known whether a message with this key was sent before")
            }
        }
        let id = self.id.unwrap_or("-");
        let place = self.position.as_deref().unwrap_or("scheduled");
        output::line(format!("{id} {place}").as_bytes())?;
        Ok(())
    }
}

/// The id of the message that stands where `append` was answered to be. None when that is not to be seen, which is no failure: what
/// was to be sent is sent.
async fn id_at(broker: &dyn Broker, append: &Append, position: Position) -> Option<ByteString> {
    let before = position.predecessor()?;
    let mut topic = append.topic.clone();
    let partitions = broker.partitions(&topic).await.ok()?;
    if partitions > 0 {
        let number = partition::of(&partition::key(&append.message), partitions);
        topic = partition::topic(&topic, number).ok()?;
    }
    let found = broker.range(&topic, before, 1).await.ok()?.pop()?;
    let message = found.message.ok()?;
    (found.position == position).then_some(message.id)
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
