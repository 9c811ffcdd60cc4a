//! A dead letter as commands see it, and the walk over those of a topic.

use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};
use streamerson_core::meta::DeadLetter;
use streamerson_core::{Broker, Entry, Message, Position, Topic};

use crate::command::topic::stats;
use crate::failure::Result;

/// How many entries are read at once; their payloads are in memory meanwhile.
const PAGE: usize = 64;

/// A dead letter. What stands among the dead letters and is none has no reason.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) position: Position,
    pub(super) message: Option<Message>,
    pub(super) why: DeadLetter,
}

impl Letter {
    pub(super) fn new(entry: Entry) -> Letter {
        let position = entry.position;
        match entry.message {
            Ok(message) => {
                let why = message.parse_meta().ok().and_then(|meta| meta.dlq);
                Letter {
                    position,
                    why: why.unwrap_or_default(),
                    message: Some(message),
                }
            }
            Err(foreign) => Letter {
                position,
                message: None,
                why: DeadLetter {
                    code: "foreign-entry".into(),
                    reason: foreign.reason,
                    ..DeadLetter::default()
                },
            },
        }
    }

    pub(super) fn id(&self) -> &str {
        self.message.as_ref().map_or("", |message| &message.id)
    }

    pub(super) fn kind(&self) -> &str {
        self.message.as_ref().map_or("", |message| &message.kind)
    }

    /// Time since it became a dead letter.
    pub(super) fn age(&self, now_unix_ms: u64) -> Duration {
        self.position.age(now_unix_ms)
    }
}

/// As `-o json` prints it; the payload is what `dlq show` is for.
impl Serialize for Letter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("position", &self.position.to_string())?;
        map.serialize_entry("id", self.id())?;
        map.serialize_entry("type", self.kind())?;
        map.serialize_entry("why", &self.why)?;
        map.end()
    }
}

/// The dead letters that are there now, in order, page by page. Those that come meanwhile are not among them: a retry
/// that fails again must not be found again.
pub(super) struct Letters<'a> {
    broker: &'a dyn Broker,
    topic: Topic,
    after: Position,
    last: Position,
}

impl<'a> Letters<'a> {
    /// Those of `topic`, from after `after` up to and with `to`.
    pub(super) async fn of(
        broker: &'a dyn Broker,
        topic: &Topic,
        after: Position,
        to: Position,
    ) -> Result<Letters<'a>> {
        let topic = topic.dead_letters();
        let newest = stats(broker, &topic).await?.and_then(|stats| stats.last);
        Ok(Letters {
            broker,
            topic,
            after,
            last: newest.unwrap_or_default().min(to),
        })
    }

    /// The next ones; none at the end.
    pub(super) async fn next(&mut self) -> Result<Vec<Letter>> {
        if self.after >= self.last {
            return Ok(Vec::new());
        }
        let page = self.broker.range(&self.topic, self.after, PAGE).await?;
        self.after = page.last().map_or(self.last, |entry| entry.position);
        let page = page.into_iter().filter(|entry| entry.position <= self.last);
        Ok(page.map(Letter::new).collect())
    }
}
