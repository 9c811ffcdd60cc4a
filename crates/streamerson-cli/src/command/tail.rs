//! `streamerson tail`: follows a topic.

use std::io;
use std::time::Duration;

use clap::Args;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use streamerson_core::{Entry, Error, ErrorKind, Reader, Start, Topic};
use tokio::time::{Instant, sleep};

use super::topic::{note_missing, parts};
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::output::{self, Format, message, plain};
use crate::view::Record;

/// How many entries are read at once.
const BATCH: usize = 256;
/// How many characters of a payload the table shows.
const SHOWN: usize = 200;
/// How long a broker that is away is left alone before it is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is told that the broker is away.
const REMINDER: Duration = Duration::from_secs(10);

/// Print the messages of a topic as they arrive, until Ctrl-C
///
/// Reading takes nothing from anyone: every reader sees every message. With `-o json`, one object per line. Of a divided topic all
/// partitions are read, each in its order. A broker that goes away meanwhile is waited for: reading goes on where it was.
#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Topic to read; NAME:dlq for its dead letters
    topic: Topic,

    /// Where to begin
    #[arg(
        long,
        value_name = "earliest|latest|POSITION",
        default_value = "latest"
    )]
    from: Start,

    /// End after so many messages
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// How to print each message: table cuts long payloads, and shows why a dead letter is dead; json has everything but the names of inboxes
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

impl Tail {
    pub(crate) async fn run(self) -> Result<()> {
        let broker = self.broker.connect_existing().await?;
        let mut reading = FuturesUnordered::new();
        for topic in parts(&*broker, &self.topic).await? {
            let reader = broker.read(&topic, self.from).await?;
            reading.push(read(topic, reader, Duration::ZERO));
        }
        let is_divided = reading.len() > 1;
        if !is_divided {
            note_missing(&*broker, &self.topic).await?;
        }
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut absence = Absence::default();
        while left > 0
            && let Some((topic, reader, entries)) = reading.next().await
        {
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    absence.bear(error)?;
                    reading.push(read(topic, reader, PAUSE));
                    continue;
                }
            };
            let entries = entries.into_iter().take(left.min(BATCH as u64) as usize);
            left -= entries.len() as u64;
            let lines: io::Result<Vec<String>> = entries
                .map(|entry| match self.output {
                    Format::Json => json(&topic, &entry),
                    Format::Table if is_divided => Ok(format!("{topic}  {}", text(&entry))),
                    Format::Table => Ok(text(&entry)),
                })
                .collect();
            output::line(lines?.join("\n").as_bytes())?;
            reading.push(read(topic, reader, Duration::ZERO));
        }
        Ok(())
    }
}

/// What was told of a broker that is away.
#[derive(Default)]
struct Absence {
    told: Option<Instant>,
}

impl Absence {
    /// Tells of a failure that passes, once for all partitions; any other is the end.
    fn bear(&mut self, error: Error) -> Result<()> {
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) {
            return Err(error.into());
        }
        if self.told.is_none_or(|told| told.elapsed() >= REMINDER) {
            self.told = Some(Instant::now());
            let what = format!("note: {error}; reading goes on where it was once that has passed");
            message(&plain(&what));
        }
        Ok(())
    }
}

/// The next entries of a topic, after a pause, with what is needed to go on.
async fn read(
    topic: Topic,
    mut reader: Box<dyn Reader>,
    pause: Duration,
) -> (Topic, Box<dyn Reader>, streamerson_core::Result<Vec<Entry>>) {
    if !pause.is_zero() {
        sleep(pause).await;
    }
    let entries = reader.next(BATCH).await;
    (topic, reader, entries)
}

fn json(topic: &Topic, entry: &Entry) -> io::Result<String> {
    /// An entry, with where it stands; of a divided topic, that is the partition.
    #[derive(Serialize)]
    struct Listed<'a> {
        topic: &'a str,
        #[serde(flatten)]
        record: Record<'a>,
    }
    let listed = Listed {
        topic: topic.as_str(),
        record: Record(entry),
    };
    Ok(serde_json::to_string(&listed)?)
}

/// Position, type, id, why it is dead, and payload; the payload last, because it is long.
fn text(entry: &Entry) -> String {
    let position = entry.position;
    match &entry.message {
        Ok(message) => {
            let why = message.parse_meta().ok().and_then(|meta| meta.dlq);
            let why = why.map_or_else(String::new, |why| {
                format!("  {}: {}", plain(&why.code), plain(&short(&why.reason)))
            });
            let data = beginning(&message.data);
            format!(
                "{position}  {}  {}{why}  {}",
                plain(&message.kind),
                plain(&message.id),
                plain(&data)
            )
        }
        Err(foreign) => format!("{position}  (not a message: {})", plain(&foreign.reason)),
    }
}

/// The beginning of `data` as text, without reading all of a large payload.
fn beginning(data: &[u8]) -> String {
    // A character has at most four bytes; one more tells that there is more.
    let read = &data[..data.len().min(4 * (SHOWN + 1))];
    short(&String::from_utf8_lossy(read))
}

/// `text`, cut to what is shown.
fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_payload_is_cut() {
        let fits = "ä".repeat(SHOWN);
        assert_eq!(beginning(fits.as_bytes()), fits);
        assert_eq!(beginning("ä".repeat(9_000).as_bytes()), format!("{fits}…"));
    }
}
