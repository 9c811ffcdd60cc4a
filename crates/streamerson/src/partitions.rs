//! Directs messages for divided topics to their partitions.
//!
//! How many partitions a topic has is asked once and remembered: a topic is divided once, and never divided otherwise. That a
//! topic is not divided is asked again now and then, in the background, because it may be later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use streamerson_core::{
    Append, Broker, Error, ErrorKind, Outcome, Position, Result, Settlement, Settler, Topic,
    partition,
};

/// The group that forwards what is sent to a divided topic as a whole, and the lease of its only member.
pub(crate) const FORWARDER: &str = "streamerson-partitions";

/// How long an answer counts before the broker is asked again.
const FRESH: Duration = Duration::from_secs(10);

/// Of so many topics the answer is remembered; then it is asked anew.
const MOST_TOPICS: usize = 10_000;

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
        let failed = self.ask(unknown).await;
        self.direct(batch.iter_mut());
        let refusal = |append: &Append| failed.get(&append.topic).cloned();
        pass_on(batch, refusal, |rest| self.shared.broker.append(rest)).await
    }

    /// A settler whose outputs go to partitions.
    pub(crate) fn settler(&self, inner: Arc<dyn Settler>) -> Arc<dyn Settler> {
        let partitions = self.clone();
        Arc::new(Directing { partitions, inner })
    }

    /// Directs what goes to topics that are known; answers the others.
    fn direct<'a>(&self, appends: impl Iterator<Item = &'a mut Append>) -> Vec<Topic> {
        let mut unknown = Vec::new();
        let mut stale = Vec::new();
        let mut known = None;
        for append in appends {
            let topic = &append.topic;
            if topic.is_inbox() || topic.is_dead_letters() {
                continue;
            }
            let known = known.get_or_insert_with(|| self.shared.known.lock());
            let Some(found) = known.get_mut(topic) else {
                if !unknown.contains(topic) {
                    unknown.push(topic.clone());
                }
                continue;
            };
            if found.asked.elapsed() >= FRESH {
                found.asked = Instant::now();
                stale.push(topic.clone());
            }
            let partitions = found.partitions;
            if partitions > 0 {
                let number = partition::of(&key(append), partitions);
                // A name too long for a partition could not be divided.
                if let Ok(topic) = partition::topic(&append.topic, number) {
                    append.topic = topic;
                }
            }
        }
        drop(known);
        if !stale.is_empty() {
            let partitions = self.clone();
            tokio::spawn(async move { partitions.ask(stale).await });
        }
        unknown
    }

    /// Learns about `topics`; answers those that could not be asked about.
    async fn ask(&self, topics: Vec<Topic>) -> HashMap<Topic, Error> {
        let mut failed = HashMap::new();
        for topic in topics {
            match self.shared.broker.partitions(&topic).await {
                Ok(partitions) => self.learn(topic, partitions),
                Err(error) => {
                    let kind = match error.kind() {
                        // Whatever became of the question: what it was asked for did not happen.
                        ErrorKind::Unknown => ErrorKind::Unavailable,
                        kind => kind,
                    };
                    let detail = error.detail();
                    let detail = format!("it is not known whether {topic} is divided: {detail}");
                    failed.insert(topic, Error::new(kind, error.code(), detail));
                }
            }
        }
        failed
    }

    fn learn(&self, topic: Topic, partitions: u32) {
        let mut known = self.shared.known.lock();
        if known.len() >= MOST_TOPICS {
            known.clear();
        }
        let asked = Instant::now();
        known.insert(topic, Known { partitions, asked });
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
            let failed = self.partitions.ask(unknown).await;
            self.partitions.direct(outputs(&mut batch));
            let refusal = |settlement: &Settlement| match &settlement.outcome {
                Outcome::Complete { outputs, .. } => {
                    let mut topics = outputs.iter().map(|output| &output.topic);
                    topics.find_map(|topic| failed.get(topic).cloned())
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
