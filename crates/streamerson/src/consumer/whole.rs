//! A topic as a whole, which may be divided into partitions while it is read.
//!
//! From then on producers send to the partitions, and what is sent to the topic as a whole all the same is forwarded to
//! them. So the topic is read up to where it stood once forwarding had begun, and then its partitions are, from their first
//! message on: in the order of keys, and without a gap. What was forwarded before that comes twice.

use std::sync::Arc;
use std::time::Duration;

use streamerson_core::{Entry, ErrorKind, Position, Result, partition};
use tokio::time::Instant;

use super::cursor::Claim;
use super::opening::{Opener, Part};
use super::source::{Source, is_away};

/// How often to look whether the topic was divided.
const PERIOD: Duration = Duration::from_secs(2);

/// A topic being read, as long as there is something in it that is in none of its partitions.
pub(super) struct Whole {
    source: Source,
    claim: Option<Claim>,
    opener: Arc<Opener>,
    /// When to look next.
    look: Instant,
    /// Its partitions, until they are read too; `None` while it is not divided.
    parts: Option<Vec<Part>>,
    /// What comes after this is forwarded.
    end: Option<Position>,
}

/// What there is to read.
pub(super) enum Read {
    Entries(Vec<Entry>),
    /// Begin with these; with `ended`, the topic as a whole has no more.
    Parts {
        parts: Vec<Part>,
        ended: bool,
    },
}

impl Whole {
    pub(super) fn new(
        source: Source,
        claim: Option<Claim>,
        opener: Arc<Opener>,
        parts: Option<Vec<Part>>,
    ) -> Whole {
        let now = Instant::now();
        Whole {
            source,
            claim,
            opener,
            look: if parts.is_some() { now } else { now + PERIOD },
            parts,
            end: None,
        }
    }

    pub(super) async fn read(&mut self) -> Result<Read> {
        loop {
            if let Some(end) = self.end {
                let rest = self.source.rest(end).await?;
                if !rest.is_empty() {
                    return Ok(Read::Entries(rest));
                }
                let parts = self.parts.take().unwrap_or_default();
                return Ok(Read::Parts { parts, ended: true });
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.look) => {
                    self.look = Instant::now() + PERIOD;
                    match self.look().await {
                        Ok(parts) if parts.is_empty() => (),
                        Ok(parts) => return Ok(Read::Parts { parts, ended: false }),
                        Err(error) if is_away(&error) => {
                            tracing::debug!(topic = %self.source.topic, %error, "it cannot be seen at the moment whether the topic is divided");
                        }
                        Err(error) => return Err(error),
                    }
                }
                entries = self.source.read() => return Ok(Read::Entries(entries?)),
            }
        }
    }

    /// Looks whether the topic is divided, and where it ends then. Answers partitions that are to be read beside it, because
    /// nobody forwards yet.
    async fn look(&mut self) -> Result<Vec<Part>> {
        let topic = &self.source.topic;
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => match self.opener.broker.partitions(topic).await? {
                0 => return Ok(Vec::new()),
                n => {
                    let parts = self.opener.parts(topic, n, true, self.claim.as_ref());
                    self.parts.insert(parts.await?)
                }
            },
        };
        let stats = match self.opener.broker.stats(topic).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(std::mem::take(parts)),
            stats => stats?,
        };
        if stats
            .groups
            .iter()
            .any(|group| group.name == partition::FORWARDER)
        {
            self.end = Some(stats.last.unwrap_or(Position::ZERO));
            return Ok(Vec::new());
        }
        Ok(std::mem::take(parts))
    }
}
