//! `streamerson tail`: follows a topic.

use clap::Args;
use streamerson_core::{Entry, Start, Topic};

use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::output::{self, Format, plain};
use crate::view::Record;

/// How many entries are read at once.
const BATCH: u64 = 256;
/// How many characters of a payload the table shows.
const SHOWN: usize = 200;

/// Print the messages of a topic as they arrive, until Ctrl-C
///
/// Reading takes nothing from anyone: every reader sees every message. With `-o json`, one object per line.
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

    /// How to print each message: table cuts long payloads, and shows why a dead letter is dead; json has everything
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

impl Tail {
    pub(crate) async fn run(self) -> Result<()> {
        let broker = self.broker.connect().await?;
        let mut reader = broker.read(&self.topic, self.from).await?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let entries = reader.next(left.min(BATCH) as usize).await?;
            left = left.saturating_sub(entries.len() as u64);
            let mut lines = Vec::new();
            for (at, entry) in entries.iter().enumerate() {
                if at > 0 {
                    lines.push(b'\n');
                }
                self.show(entry, &mut lines)?;
            }
            output::line(&lines)?;
        }
        Ok(())
    }

    fn show(&self, entry: &Entry, line: &mut Vec<u8>) -> std::io::Result<()> {
        match self.output {
            Format::Json => Ok(serde_json::to_writer(line, &Record(entry))?),
            Format::Table => {
                line.extend_from_slice(text(entry).as_bytes());
                Ok(())
            }
        }
    }
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
