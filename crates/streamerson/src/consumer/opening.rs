//! Where a consumer begins in its topics.

use std::sync::Arc;

use streamerson_core::stats::TopicStats;
use streamerson_core::{Broker, ErrorKind, Name, Position, Result, Start, Topic, partition};

use super::cursor::{Claim, Cursor};
use super::source::{Source, patiently};
use super::whole::Whole;

/// Opens topics and partitions for one consumer.
pub(super) struct Opener {
    pub(super) broker: Arc<dyn Broker>,
    /// Those that it was told to read, in order.
    pub(super) topics: Vec<Topic>,
    pub(super) start: Start,
    /// The name of the cursor, and of this consumer.
    pub(super) cursor: Option<(Name, Name)>,
}

/// A topic or a partition about to be read.
pub(super) struct Part {
    pub(super) source: Source,
    pub(super) cursor: Option<Cursor>,
}

/// A topic that was opened.
pub(super) struct Opened {
    pub(super) topic: Topic,
    /// `None`: it is divided, and nothing is to be read in it any more.
    pub(super) whole: Option<Whole>,
    pub(super) cursor: Option<Cursor>,
    /// Its partitions, if there is nothing to be read before them.
    pub(super) parts: Vec<Part>,
}

impl Opener {
    /// Opens `topic`, and its partitions if it is divided.
    pub(super) async fn open(self: &Arc<Self>, topic: &Topic) -> Result<Opened> {
        let claim = self.claim(topic);
        let cursor = take(claim.as_ref(), topic).await?;
        let ask = patiently(topic, || self.broker.partitions(topic));
        let partitions = ask.await?;
        let (mut succeeding, mut done) = (false, false);
        if let Some(claim) = claim.as_ref().filter(|_| partitions > 0) {
            succeeding = claim.exists(topic).await?;
            done = !succeeding && claim.exists(&partition::topic(topic, 0)?).await?;
        }
        let mut opened = Opened {
            topic: topic.clone(),
            whole: None,
            cursor,
            parts: Vec::new(),
        };
        if done {
            let parts = self.parts(topic, partitions, true, claim.as_ref());
            opened.parts = parts.await?;
            return Ok(opened);
        }
        // The cursor of the whole first: by it the next consumer knows what those of the partitions mean.
        let source = self.source(topic, self.start, opened.cursor.as_mut());
        let source = source.await?;
        let parts = match partitions {
            0 => None,
            n => Some(self.parts(topic, n, succeeding, claim.as_ref()).await?),
        };
        opened.whole = Some(Whole::new(source, claim, self.clone(), parts));
        Ok(opened)
    }

    /// The `n` partitions of `topic`, without those that are read as topics of their own. `succeeding`: they are read because
    /// the topic as a whole was, so that everything in them is new.
    pub(super) async fn parts(
        &self,
        topic: &Topic,
        n: u32,
        succeeding: bool,
        claim: Option<&Claim>,
    ) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for number in 0..n {
            let part = partition::topic(topic, number)?;
            if !self.topics.contains(&part) {
                parts.push(self.part(part, succeeding, claim).await?);
            }
        }
        Ok(parts)
    }

    async fn part(&self, topic: Topic, succeeding: bool, claim: Option<&Claim>) -> Result<Part> {
        let mut cursor = take(claim, &topic).await?;
        let mut start = self.start;
        if succeeding {
            start = Start::Earliest;
            if let Some(claim) = claim
                && !claim.exists(&topic).await?
                && let Some(stats) = stats(&*self.broker, &topic).await?
                && is_trimmed(&stats)
            {
                tracing::error!(%topic, "messages of this partition were trimmed before the cursor came to it: it will not see them");
            }
        }
        let source = self.source(&topic, start, cursor.as_mut()).await?;
        Ok(Part { source, cursor })
    }

    /// The right to the cursor of `topic`, if there is to be one.
    fn claim(&self, topic: &Topic) -> Option<Claim> {
        let (name, holder) = self.cursor.clone()?;
        Some(Claim::new(self.broker.clone(), topic.clone(), name, holder))
    }

    async fn source(
        &self,
        topic: &Topic,
        start: Start,
        cursor: Option<&mut Cursor>,
    ) -> Result<Source> {
        let after = match cursor {
            Some(cursor) => cursor.begin(start).await?,
            None => match start {
                Start::Earliest => Position::ZERO,
                Start::After(position) => position,
                Start::Latest => {
                    let stats = stats(&*self.broker, topic).await?;
                    stats.and_then(|stats| stats.last).unwrap_or(Position::ZERO)
                }
            },
        };
        Ok(Source::new(self.broker.clone(), topic.clone(), after))
    }
}

/// The cursor in `topic`, if there is to be one, as soon as nobody else has it.
async fn take(claim: Option<&Claim>, topic: &Topic) -> Result<Option<Cursor>> {
    match claim {
        Some(claim) => claim.take(topic).await.map(Some),
        None => Ok(None),
    }
}

/// The topic as it stands; `None` if there is none.
pub(super) async fn stats(broker: &dyn Broker, topic: &Topic) -> Result<Option<TopicStats>> {
    match patiently(topic, || broker.stats(topic)).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        stats => stats.map(Some),
    }
}

/// Whether something that was here is not any more, as far as the broker can tell.
fn is_trimmed(stats: &TopicStats) -> bool {
    let emptied = stats.first.is_none() && stats.last.is_some();
    emptied
        || stats
            .appended
            .is_some_and(|appended| appended > stats.length)
}
