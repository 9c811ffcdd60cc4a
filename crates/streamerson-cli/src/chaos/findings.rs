//! What a broker holds after a run: read as anybody may read it, not as a member of the group.

use streamerson_core::{Broker, Entry, ErrorKind, Start, Topic};

use super::record::{Effect, Letter, Place, Record, Stored};
use super::settings::Names;
use super::worker::Published;
use crate::failure::Result;

/// How many entries are read at once.
const PAGE: usize = 1024;

/// Reads the work, its effects and the dead letters into `record`.
pub(crate) async fn read(broker: &dyn Broker, names: &Names, record: &mut Record) -> Result<()> {
    for (stream, topic) in names.streams()? {
        for entry in all(broker, &topic).await? {
            let position = entry.position;
            if let Ok(message) = entry.message {
                record.entries.push(Stored {
                    place: Place { stream, position },
                    id: message.id,
                });
            }
        }
        for entry in all(broker, &topic.dead_letters()).await? {
            record.letters.extend(letter(stream, entry));
        }
    }
    for entry in all(broker, &names.effects).await? {
        // An effect that cannot be read is one of nobody, which the oracle reports.
        let message = entry.message.ok();
        let published = message.and_then(|m| serde_json::from_slice::<Published>(&m.data).ok());
        record.effects.push(match published {
            Some(Published { id, nonce, turn }) => Effect {
                id: id.into(),
                nonce,
                turn,
            },
            None => Effect {
                id: format!("unreadable effect at {}", entry.position).into(),
                nonce: 0,
                turn: None,
            },
        });
    }
    Ok(())
}

fn letter(stream: u32, entry: Entry) -> Option<Letter> {
    let message = entry.message.ok()?;
    let why = message.parse_meta().ok().and_then(|meta| meta.dlq);
    let why = why.unwrap_or_default();
    let position = why.position.parse().ok();
    Some(Letter {
        place: position.map(|position| Place { stream, position }),
        attempts: why.attempts,
        id: message.id,
    })
}

/// Every entry of `topic`.
async fn all(broker: &dyn Broker, topic: &Topic) -> Result<Vec<Entry>> {
    let last = match broker.stats(topic).await {
        Ok(stats) => stats.last,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let Some(last) = last else {
        return Ok(Vec::new());
    };
    let mut reader = broker.read(topic, Start::Earliest).await?;
    let mut entries: Vec<Entry> = Vec::new();
    while entries.last().is_none_or(|entry| entry.position < last) {
        entries.extend(reader.next(PAGE).await?);
    }
    Ok(entries)
}
