//! Directs messages for divided topics to their partitions.
//!
//! How many partitions a topic has is asked once and remembered: a topic is divided once, and never divided otherwise. That a
//! topic is not divided is asked again now and then, in the background, because it may be later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use streamerson_core::{
    Append, Broker, Error, ErrorKind, Outcome, Position, Result, Settlement, Settler, Topic,
    partition,
};

/// How long an answer counts before the broker is asked again.
const FRESH: Duration = Duration::from_secs(10);

/// Of so many topics the answer is remembered; then the one that was asked about longest ago is forgotten.
const MOST_TOPICS: usize = 10_000;

/// The code of what is refused because nobody sends there.
const RESERVED: &str = "topic-reserved";

/// About so many topics is asked at the same time.
const AT_ONCE: usize = 64;

/// Knows which topics are divided. Clones share what they know.
#[derive(Debug, Clone)]
pub(crate) struct Partitions {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: Arc<dyn Broker>,
    known: Mutex<HashMap<Topic, Known, ahash::RandomState>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    partitions: u32,
    asked: Instant,
}

impl Partitions {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Partitions {
        let shared = Shared {
            broker,
            known: Mutex::default(),
        };
        Partitions {
            shared: Arc::new(shared),
        }
    }

    /// Appends each message to its topic, or to its partition of it.
    pub(crate) async fn append(&self, mut batch: Vec<Append>) -> Vec<Result<Position>> {
        let unknown = self.direct(batch.iter_mut());
        if unknown.is_empty() {
            return self.shared.broker.append(batch).await;
        }
        let answers = self.ask(unknown).await;
        answers.direct(batch.iter_mut());
        let refusal = |append: &Append| answers.refusal(&append.topic);
        pass_on(batch, refusal, |rest| self.shared.broker.append(rest)).await
    }

    /// A settler whose outputs go to partitions.
    pub(crate) fn settler(&self, inner: Arc<dyn Settler>) -> Arc<dyn Settler> {
        let partitions = self.clone();
        Arc::new(Directing { partitions, inner })
    }

    /// Directs what goes to topics that are known; answers the others.
    fn direct<'a>(&self, appends: impl Iterator<Item = &'a mut Append>) -> HashSet<Topic> {
        let mut unknown = HashSet::new();
        let mut stale = Vec::new();
        let mut known = None;
        let now = Instant::now();
        for append in appends {
            let topic = &append.topic;
            if topic.is_inbox() || topic.is_dead_letters() {
                continue;
            }
            let known = known.get_or_insert_with(|| self.shared.known.lock());
            let Some(found) = known.get_mut(topic) else {
                unknown.insert(topic.clone());
                continue;
            };
            if now.saturating_duration_since(found.asked) >= FRESH {
                found.asked = now;
                stale.push(topic.clone());
            }
            place(append, found.partitions);
        }
        drop(known);
        if !stale.is_empty() {
            let partitions = self.clone();
            tokio::spawn(async move { partitions.ask(stale).await });
        }
        unknown
    }

    /// Asks about `topics`, some at a time, and learns.
    async fn ask(&self, topics: impl IntoIterator<Item = Topic>) -> Answers {
        let asking = topics.into_iter().map(|topic| {
            let broker = self.shared.broker.clone();
            async move {
                let answer = count(&*broker, &topic).await;
                (topic, answer)
            }
        });
        let answers = futures::stream::iter(asking.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let answers: HashMap<Topic, Result<u32>> = answers.collect().await;
        for (topic, answer) in &answers {
            match answer {
                Ok(partitions) => self.learn(topic.clone(), *partitions),
                // It may have been a topic of its own before.
                Err(error) if error.code() == RESERVED => {
                    self.shared.known.lock().remove(topic);
                }
                Err(_) => (),
            }
        }
        Answers(answers)
    }

    fn learn(&self, topic: Topic, partitions: u32) {
        let mut known = self.shared.known.lock();
        if known.len() >= MOST_TOPICS && !known.contains_key(&topic) {
            let oldest = known.iter().min_by_key(|(_, known)| known.asked);
            if let Some(oldest) = oldest.map(|(topic, _)| topic.clone()) {
                known.remove(&oldest);
            }
        }
        let asked = Instant::now();
        known.insert(topic, Known { partitions, asked });
    }
}

/// What was answered about topics.
struct Answers(HashMap<Topic, Result<u32>>);

impl Answers {
    /// Directs what goes to topics that there is an answer about.
    fn direct<'a>(&self, appends: impl Iterator<Item = &'a mut Append>) {
        for append in appends {
            if let Some(Ok(partitions)) = self.0.get(&append.topic) {
                place(append, *partitions);
            }
        }
    }

    /// Why nothing can be sent to `topic`, if so.
    fn refusal(&self, topic: &Topic) -> Option<Error> {
        let error = self.0.get(topic)?.as_ref().err()?;
        if error.code() == RESERVED {
            return Some(error.clone());
        }
        let kind = match error.kind() {
            // Whatever became of the question: what it was asked for did not happen.
            ErrorKind::Unknown => ErrorKind::Unavailable,
            kind => kind,
        };
        let detail = format!(
            "it is not known whether {topic} is divided: {}",
            error.detail()
        );
        Some(Error::new(kind, error.code(), detail))
    }
}

/// Into how many partitions `topic` is divided. One that is a partition itself is refused: its topic knows which keys belong there.
async fn count(broker: &dyn Broker, topic: &Topic) -> Result<u32> {
    if let Some((whole, number)) = partition::number(topic)
        && number < broker.partitions(&whole).await?
    {
        return Err(Error::invalid(
            RESERVED,
            format!("{topic} is a partition: send to {whole}, with a key"),
        ));
    }
    broker.partitions(topic).await
}

/// Has `append` go to its partition of so many; there may be none.
fn place(append: &mut Append, partitions: u32) {
    if partitions > 0 {
        let number = partition::of(&key(append), partitions);
        // A name too long for a partition could not be divided.
        if let Ok(topic) = partition::topic(&append.topic, number) {
            append.topic = topic;
        }
    }
}

/// Passes on what there is no refusal for; the answers of all, in order.
async fn pass_on<T, R>(
    batch: Vec<T>,
    refusal: impl Fn(&T) -> Option<Error>,
    call: impl AsyncFnOnce(Vec<T>) -> Vec<Result<R>>,
) -> Vec<Result<R>> {
    let refusals: Vec<Option<Error>> = batch.iter().map(refusal).collect();
    let rest = batch.into_iter().zip(&refusals);
    let rest = rest.filter_map(|(one, refused)| refused.is_none().then_some(one));
    let mut answers = call(rest.collect()).await.into_iter();
    let answers = refusals.into_iter().map(|refused| match refused {
        Some(error) => Err(error),
        None => answers.next().unwrap_or_else(|| Err(unanswered())),
    });
    answers.collect()
}

/// What decides about the partition: the key; without one what makes the message the same one when it is sent again.
fn key(append: &Append) -> ByteString {
    let written = partition::written_key(&append.message);
    let once = || append.only_once().map(|once| once.key.clone());
    let key = written.or_else(once);
    key.unwrap_or_else(|| append.message.id.clone())
}

fn unanswered() -> Error {
    Error::unknown(
        "broker-unanswered",
        "the broker answered fewer results than it was asked for",
    )
}

/// Directs the outputs of settlements.
struct Directing {
    partitions: Partitions,
    inner: Arc<dyn Settler>,
}

impl Settler for Directing {
    fn settle(&self, mut batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
        let unknown = self.partitions.direct(outputs(&mut batch));
        if unknown.is_empty() {
            return self.inner.settle(batch);
        }
        async move {
            let answers = self.partitions.ask(unknown).await;
            answers.direct(outputs(&mut batch));
            let refusal = |settlement: &Settlement| match &settlement.outcome {
                Outcome::Complete { outputs, .. } => {
                    let mut topics = outputs.iter().map(|output| &output.topic);
                    topics.find_map(|topic| answers.refusal(topic))
                }
                Outcome::Retry { .. } => None,
            };
            pass_on(batch, refusal, |rest| self.inner.settle(rest)).await
        }
        .boxed()
    }

    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>> {
        self.inner.extend(held)
    }
}

fn outputs(batch: &mut [Settlement]) -> impl Iterator<Item = &mut Append> {
    let outputs = batch
        .iter_mut()
        .filter_map(|settlement| match &mut settlement.outcome {
            Outcome::Complete { outputs, .. } => Some(outputs),
            Outcome::Retry { .. } => None,
        });
    outputs.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::memory::MemoryBroker;
    use streamerson_core::{Message, Upkeep};

    fn topic(name: &str) -> Topic {
        Topic::new(name.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn a_topic_that_becomes_a_partition_is_refused_once_that_is_seen() {
        let broker = MemoryBroker::new();
        let partitions = Partitions::new(Arc::new(broker.clone()));
        let send = async || {
            let to = |name| Append::new(topic(name), Message::new("a", ""));
            let batch = vec![to("mail.1"), to("mail.7")];
            let sent = partitions.append(batch).await.into_iter();
            sent.map(|sent| sent.map_err(|error| error.code().to_owned()))
                .map(|sent| sent.err())
                .collect::<Vec<_>>()
        };
        assert_eq!(send().await, [None, None]);
        broker.divide(&topic("mail"), 2).await.unwrap();
        partitions.ask([topic("mail.1"), topic("mail.7")]).await;
        let reserved = Some(RESERVED.to_owned());
        for _ in 0..2 {
            assert_eq!(send().await, [reserved.clone(), None]);
        }
    }

    #[tokio::test]
    async fn what_was_just_learnt_counts_also_when_too_much_is_known() {
        let broker = MemoryBroker::new();
        broker.divide(&topic("orders"), 1).await.unwrap();
        let partitions = Partitions::new(Arc::new(broker.clone()));
        for n in 1..MOST_TOPICS {
            partitions.learn(topic(&format!("t{n}")), 0);
        }
        let batch = ["orders", "new"].map(|to| Append::new(topic(to), Message::new("a", "")));
        for stored in partitions.append(batch.into()).await {
            stored.unwrap();
        }
        assert_eq!(broker.stats(&topic("orders.0")).await.unwrap().length, 1);
        let known = partitions.shared.known.lock();
        assert_eq!(known.len(), MOST_TOPICS);
        assert!(known.contains_key(&topic("orders")) && known.contains_key(&topic("new")));
    }
}
