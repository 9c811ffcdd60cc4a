//! The worker of a run, in a process of its own: handles messages, and says on its standard output what it does.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use streamerson::worker::Counters;
use streamerson::{
    Dedupe, IntoReply, Json, Publish, Reply, Request, Worker, connect_in, shutdown_signal,
};
use streamerson_core::{Broker, ErrorKind, Name, Topic};
use tower::service_fn;

use super::child;
use super::clock;
use super::journal::Line;
use super::record::{Place, Turn};
use super::settings::{EFFECT, Names, PARTITIONS, POISON, QUEUE, Settings};
use super::system::unusable;
use crate::duration;
use crate::failure::Result;

/// Handlers at the same time, per worker: few enough that a lost worker does not hold everything.
const CONCURRENCY: usize = 16;
/// How long the id of a message that had its effect is remembered: longer than any run.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60);
/// How soon a broker that is away is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// How often refused results are told of.
const TELL: Duration = Duration::from_millis(100);

/// A worker of `streamerson chaos`
#[derive(Debug, Clone, Args)]
pub(crate) struct ChaosWorker {
    #[arg(long)]
    broker: String,
    #[arg(long)]
    namespace: Name,
    #[arg(long)]
    topic: Topic,
    #[arg(long)]
    keyed: Topic,
    #[arg(long)]
    effects: Topic,
    #[arg(long)]
    group: Name,
    #[arg(long, value_parser = duration::parse)]
    lease: Duration,
    /// How long a handler takes, at the most.
    #[arg(long, value_parser = duration::parse)]
    work: Duration,
    #[arg(long)]
    concurrency: usize,
}

/// What the load sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) nonce: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) turn: Option<Turn>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) padding: String,
}

/// What a handler publishes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) id: String,
    pub(crate) nonce: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) turn: Option<Turn>,
}

/// What a handler answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) nonce: u64,
}

impl ChaosWorker {
    /// A worker of a run, whose handlers take up to `work`.
    pub(crate) fn new(broker: String, settings: &Settings, names: &Names, work: Duration) -> Self {
        ChaosWorker {
            broker,
            namespace: settings.namespace.clone(),
            topic: names.work.clone(),
            keyed: names.keyed.clone(),
            effects: names.effects.clone(),
            group: names.group.clone(),
            lease: settings.lease,
            work,
            concurrency: CONCURRENCY,
        }
    }

    /// The arguments that make this program that worker.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let ms = |duration: Duration| format!("{}ms", duration.as_millis());
        let flags = [
            ("--broker", self.broker.clone()),
            ("--namespace", self.namespace.to_string()),
            ("--topic", self.topic.to_string()),
            ("--keyed", self.keyed.to_string()),
            ("--effects", self.effects.to_string()),
            ("--group", self.group.to_string()),
            ("--lease", ms(self.lease)),
            ("--work", ms(self.work)),
            ("--concurrency", self.concurrency.to_string()),
        ];
        let flags = flags.into_iter();
        std::iter::once("chaos-worker".to_owned())
            .chain(flags.flat_map(|(flag, value)| [flag.to_owned(), value]))
            .collect()
    }

    pub(crate) async fn run(self) -> Result<()> {
        child::end_with_parent().map_err(unusable)?;
        let worker = Worker::new(self.connect().await?)
            .topic(self.topic.to_byte_string())
            .ordered_topic(self.keyed.to_byte_string(), PARTITIONS)
            .group(self.group.to_string())
            .lease(self.lease)
            .concurrency(self.concurrency)
            .dedupe(Dedupe::by_id(REMEMBERED))
            // The oracle reads the whole topic at the end.
            .retention(None);
        say(Line::Named(worker.member_name()?));
        let counters = worker.counters();
        let telling = tokio::spawn(tell_of_refusals(counters.clone()));
        let this = Arc::new(self);
        let service = service_fn(move |request| {
            let this = this.clone();
            async move { Ok::<Reply, Infallible>(this.handle(request).await) }
        });
        let served = worker
            .serve(service)
            .with_graceful_shutdown(shutdown_signal())
            .await;
        telling.abort();
        say(Line::Fenced(counters.read().fenced));
        Ok(served?)
    }

    async fn connect(&self) -> Result<Arc<dyn Broker>> {
        loop {
            match connect_in(&self.broker, self.namespace.clone()).await {
                Err(error)
                    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) =>
                {
                    tokio::time::sleep(AGAIN).await;
                }
                connected => return Ok(connected?),
            }
        }
    }

    async fn handle(&self, request: Request) -> Reply {
        let place = self.place(&request);
        say(Line::Began {
            at: clock::now(),
            place,
            attempt: request.attempt(),
        });
        if request.kind() == POISON {
            std::process::abort();
        }
        let payload: Payload = match serde_json::from_slice(&request.message().data) {
            Ok(payload) => payload,
            Err(error) => {
                let problem = streamerson::Problem::bad_request("not-ours", error.to_string());
                return problem.into_reply();
            }
        };
        tokio::time::sleep(self.share_of_work(payload.nonce)).await;
        say(Line::Ended {
            at: clock::now(),
            place,
        });
        let nonce = payload.nonce;
        let published = Published {
            id: request.message().id.to_string(),
            nonce,
            turn: payload.turn,
        };
        let effect = Publish::to(self.effects.to_byte_string(), EFFECT).json(&published);
        (effect, Json(Answer { nonce })).into_reply()
    }

    /// Where the message stands: in the topic of queued work, or in a partition, whose number its topic ends with.
    fn place(&self, request: &Request) -> Place {
        let number = request.topic().as_str().rsplit('.').next();
        let partition = number.and_then(|number| number.parse::<u32>().ok());
        Place {
            stream: match (request.topic() == &self.topic, partition) {
                (false, Some(partition)) => partition + 1,
                _ => QUEUE,
            },
            position: request.position(),
        }
    }

    /// Handlers take different times, the same message always the same.
    fn share_of_work(&self, nonce: u64) -> Duration {
        let eighths = u32::try_from(nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61).unwrap_or(0);
        self.work * (eighths + 1) / 8
    }
}

async fn tell_of_refusals(counters: Counters) {
    let mut told = 0;
    loop {
        tokio::time::sleep(TELL).await;
        let fenced = counters.read().fenced;
        if fenced != told {
            told = fenced;
            say(Line::Fenced(fenced));
        }
    }
}

/// One line in one write: whoever is killed has said it, or not.
fn say(line: Line) {
    let text = format!("{line}\n");
    // The run that reads it may be gone; then this process is about to end too.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        worker: ChaosWorker,
    }

    #[test]
    fn arguments_make_the_same_worker() {
        let worker = ChaosWorker {
            broker: "redis://127.0.0.1:1".into(),
            namespace: Name::new("n").unwrap(),
            topic: Topic::new("work").unwrap(),
            keyed: Topic::new("keyed").unwrap(),
            effects: Topic::new("effects").unwrap(),
            group: Name::new("g").unwrap(),
            lease: Duration::from_secs(1),
            work: Duration::from_millis(20),
            concurrency: 8,
        };
        let read = Line::parse_from(worker.arguments()).worker;
        assert_eq!(read.arguments(), worker.arguments());
    }
}
