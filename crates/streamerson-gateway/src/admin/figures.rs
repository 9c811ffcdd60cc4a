//! How topics and groups stand, as the broker tells it. It is asked when somebody looks, not more often than figures stay
//! fresh, and about no more than is worth a look: never on the way of a request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use streamerson_core::stats::{GroupStats, TopicStats};
use streamerson_core::{Broker, ErrorKind, Result, Topic, partition};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

/// How long figures stay fresh.
const FRESH: Duration = Duration::from_secs(1);
/// How long the broker may take to tell them all.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many topics are asked about at one time, and how many partitions of each.
const AT_ONCE: usize = 16;
/// How many topics are asked about.
const MOST: usize = 1000;

/// What is known of all topics.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Whether the broker told which topics there are.
    pub(super) broker_up: bool,
    pub(super) topics: Vec<TopicFigures>,
    /// Topics that are not among them: there are too many, or the broker took too long.
    pub(super) unseen: usize,
}

impl Figures {
    /// The consumer groups of `topic`; none when that is not known.
    pub(super) fn groups(&self, topic: &Topic) -> Option<Vec<&str>> {
        match self.topics.iter().find(|known| known.name == *topic) {
            Some(known) => Some(
                known
                    .stats
                    .groups
                    .iter()
                    .map(|group| &*group.name)
                    .collect(),
            ),
            // It will begin with its first message, or its first worker.
            None => (self.broker_up && self.unseen == 0).then(Vec::new),
        }
    }
}

/// What is known of one topic; a divided one is the sum of its partitions.
#[derive(Debug)]
pub(super) struct TopicFigures {
    pub(super) name: Topic,
    pub(super) stats: TopicStats,
    pub(super) dead_letters: u64,
}

/// Figures that are asked for by many, and from the broker by one.
#[derive(Debug)]
pub(super) struct Known {
    broker: Arc<dyn Broker>,
    figures: Mutex<Option<(Instant, Arc<Figures>)>>,
}

impl Known {
    pub(super) fn new(broker: Arc<dyn Broker>) -> Known {
        Known {
            broker,
            figures: Mutex::default(),
        }
    }

    /// The figures of all topics, fresh enough.
    pub(super) async fn all(&self) -> Arc<Figures> {
        let mut known = self.figures.lock().await;
        if let Some((at, figures)) = &*known
            && at.elapsed() < FRESH
        {
            return figures.clone();
        }
        let figures = Arc::new(collect(&self.broker, Instant::now() + PATIENCE).await);
        *known = Some((Instant::now(), figures.clone()));
        figures
    }
}

async fn collect(broker: &Arc<dyn Broker>, until: Instant) -> Figures {
    let Ok(Ok(topics)) = timeout_at(until, whole_topics(&**broker)).await else {
        return Figures::default();
    };
    let asked = topics.len().min(MOST);
    let mut figures = Figures {
        broker_up: true,
        unseen: topics.len() - asked,
        ..Figures::default()
    };
    let asking = topics.into_iter().take(MOST).map(|topic| {
        let broker = broker.clone();
        async move { look(&*broker, topic).await }
    });
    let mut answers = stream::iter(asking).buffered(AT_ONCE);
    let mut answered = 0;
    while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
        answered += 1;
        match answer {
            Ok(topic) => figures.topics.extend(topic),
            Err(error) => {
                tracing::debug!(%error, "the broker does not tell how a topic stands");
                figures.unseen += 1;
            }
        }
    }
    figures.unseen += asked - answered;
    figures
}

/// The topics there are, without those that are partitions of another: they are counted there.
async fn whole_topics(broker: &dyn Broker) -> Result<Vec<Topic>> {
    let mut topics = broker.topics().await?;
    let names: BTreeSet<Topic> = topics.iter().cloned().collect();
    let mut partitions: BTreeMap<Topic, u32> = BTreeMap::new();
    for (whole, _) in topics.iter().filter_map(partition::number) {
        // `mail.1` is a partition only if there is `mail`, and it is divided.
        if names.contains(&whole) && !partitions.contains_key(&whole) {
            let count = broker.partitions(&whole).await?;
            partitions.insert(whole, count);
        }
    }
    let is_part = |topic: &Topic| {
        let part = partition::number(topic);
        part.is_some_and(|(whole, number)| partitions.get(&whole).is_some_and(|n| number < *n))
    };
    topics.retain(|topic| !is_part(topic));
    Ok(topics)
}

async fn look(broker: &dyn Broker, name: Topic) -> Result<Option<TopicFigures>> {
    let parts = parts(broker, &name).await?;
    let with_letters = parts.iter().map(Topic::dead_letters).collect();
    let Some(stats) = taken_together(broker, &name, parts).await? else {
        return Ok(None);
    };
    let letters = sum(found(broker, with_letters).await?);
    Ok(Some(TopicFigures {
        name,
        stats,
        dead_letters: letters.map_or(0, |letters| letters.length),
    }))
}

/// How `topic` stands, its partitions taken together; none when there is no such topic.
pub(super) async fn of(broker: &dyn Broker, topic: &Topic) -> Result<Option<TopicStats>> {
    let parts = parts(broker, topic).await?;
    taken_together(broker, topic, parts).await
}

/// How `topic` stands, which consists of `parts`: what a group does not read is its lag.
async fn taken_together(
    broker: &dyn Broker,
    topic: &Topic,
    parts: Vec<Topic>,
) -> Result<Option<TopicStats>> {
    let partitions = parts.len() as u32 - 1;
    let mut found = found(broker, parts).await?;
    partition::with_unread(topic, partitions, &mut found);
    Ok(sum(found))
}

/// `topic` itself, and its partitions if it is divided.
async fn parts(broker: &dyn Broker, topic: &Topic) -> Result<Vec<Topic>> {
    let mut parts = vec![topic.clone()];
    for number in 0..broker.partitions(topic).await? {
        parts.push(partition::topic(topic, number)?);
    }
    Ok(parts)
}

/// Those of `topics` that there are, with their stats.
async fn found(broker: &dyn Broker, topics: Vec<Topic>) -> Result<Vec<(Topic, TopicStats)>> {
    let look = async |topic: Topic| match broker.stats(&topic).await {
        Ok(stats) => Ok(Some((topic, stats))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let found = stream::iter(topics).map(look).buffered(AT_ONCE);
    let found: Vec<_> = found.try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// All of them taken together; none of none.
fn sum(stats: Vec<(Topic, TopicStats)>) -> Option<TopicStats> {
    let parts = stats.into_iter().map(|(_, stats)| stats);
    parts.reduce(|mut sum, part| {
        add(&mut sum, part);
        sum
    })
}

/// Adds a partition to the sum of others.
fn add(sum: &mut TopicStats, part: TopicStats) {
    sum.appended = match (sum.length, sum.appended) {
        (0, None) => part.appended,
        (_, appended) => appended.zip(part.appended).map(|(a, b)| a + b),
    };
    sum.length += part.length;
    sum.first = earlier(sum.first, part.first);
    sum.last = sum.last.max(part.last);
    sum.scheduled += part.scheduled;
    let mut groups: BTreeMap<String, GroupStats> = std::mem::take(&mut sum.groups)
        .into_iter()
        .map(|group| (group.name.clone(), group))
        .collect();
    for group in part.groups {
        match groups.get_mut(&group.name) {
            Some(sum) => add_group(sum, group),
            None => {
                groups.insert(group.name.clone(), group);
            }
        }
    }
    sum.groups = groups.into_values().collect();
}

fn add_group(sum: &mut GroupStats, part: GroupStats) {
    sum.lag = sum.lag.zip(part.lag).map(|(a, b)| a + b);
    sum.cursor = sum.cursor.max(part.cursor);
    sum.next = earlier(sum.next, part.next);
    sum.pending += part.pending;
    sum.retrying += part.retrying;
    sum.oldest_pending = earlier(sum.oldest_pending, part.oldest_pending);
    for member in part.members {
        // One member may own several partitions.
        match sum
            .members
            .iter_mut()
            .find(|known| known.name == member.name)
        {
            Some(known) => {
                known.pending += member.pending;
                known.idle = known.idle.min(member.idle);
            }
            None => sum.members.push(member),
        }
    }
}

/// The earlier of two, of which each may be missing.
fn earlier<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::memory::MemoryBroker;
    use streamerson_core::stats::MemberStats;
    use streamerson_core::{Append, Message, Position, Upkeep};

    fn part(next: u64, member: &str) -> TopicStats {
        let at = |ms| Some(Position::new(ms, 0));
        TopicStats {
            length: 10,
            appended: Some(20),
            first: at(next),
            last: at(next + 5),
            scheduled: 1,
            groups: vec![GroupStats {
                name: "billing".into(),
                cursor: at(next),
                lag: Some(3),
                next: at(next),
                pending: 2,
                retrying: 1,
                oldest_pending: at(next),
                members: vec![MemberStats {
                    name: member.into(),
                    pending: 2,
                    idle: Duration::from_secs(next),
                }],
            }],
        }
    }

    #[test]
    fn partitions_are_seen_as_one_topic() {
        let mut sum = TopicStats::default();
        for (next, member) in [(7, "ada"), (4, "bob"), (9, "ada")] {
            add(&mut sum, part(next, member));
        }
        assert_eq!((sum.length, sum.appended, sum.scheduled), (30, Some(60), 3));
        let group = &sum.groups[0];
        assert_eq!((group.lag, group.pending, group.retrying), (Some(9), 6, 3));
        assert_eq!(group.next, Some(Position::new(4, 0)));
        assert_eq!(group.oldest_pending, Some(Position::new(4, 0)));
        let ada = &group.members[0];
        assert_eq!(group.members.len(), 2);
        assert_eq!((ada.pending, ada.idle), (4, Duration::from_secs(7)));
    }

    #[tokio::test]
    async fn a_partition_is_not_a_topic_of_its_own() {
        let broker = MemoryBroker::new();
        let topic = |name: &str| Topic::new(name.to_owned()).unwrap();
        for name in ["orders.0", "orders.2", "orders.eu", "mail", "mail.1"] {
            let append = Append::new(topic(name), Message::new("a", "1"));
            broker.append(vec![append]).await.remove(0).unwrap();
        }
        broker.divide(&topic("orders"), 2).await.unwrap();
        let topics = whole_topics(&broker).await.unwrap();
        let names: Vec<&str> = topics.iter().map(Topic::as_str).collect();
        assert_eq!(names, ["mail", "mail.1", "orders", "orders.2", "orders.eu"]);
    }
}
