//! What the tests share: a broker that fails on demand, a served router, and bounded waits.

// Each test binary uses its part; a failed expectation is a failed test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use streamerson::core::broker::Capabilities;
use streamerson::core::memory::MemoryBroker;
use streamerson::core::retention::{Retention, Trimmed};
use streamerson::core::retry::RetryPolicy;
use streamerson::core::stats::TopicStats;
use streamerson::core::{
    Append, Broker, Delivery, Entry, Error, Inbox, Member, Membership, Position, Reader, Result,
    Settlement, Settler, Start, Topic,
};
use streamerson::worker::{Counters, WorkerStats};
use streamerson::{Attempt, Json, Message, Meta, Router, Worker};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

const BOUND: Duration = Duration::from_secs(10);

/// The output of `future`, which must come in time.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(BOUND, future)
        .await
        .expect("this should have happened by now")
}

/// Waits until `condition` holds, which must happen in time.
pub async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

pub fn topic(name: &str) -> Topic {
    Topic::new(name.to_owned()).unwrap()
}

/// A worker at work on the topic `work`, in the group `workers`.
pub struct Serving {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<()>>,
    counters: Counters,
}

impl Serving {
    pub fn start(broker: Arc<dyn Broker>, router: Router) -> Serving {
        Serving::with(broker, router, |worker| worker)
    }

    pub fn with(
        broker: Arc<dyn Broker>,
        router: Router,
        configure: impl FnOnce(Worker) -> Worker,
    ) -> Serving {
        let worker = configure(Worker::new(broker).topic("work").group("workers"));
        let (stop, stopped) = oneshot::channel::<()>();
        let counters = worker.counters();
        let serve = worker.serve(router).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        Serving {
            stop: Some(stop),
            task: tokio::spawn(serve.into_future()),
            counters,
        }
    }

    pub fn stats(&self) -> WorkerStats {
        self.counters.read()
    }

    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Asks the worker to end.
    pub fn ask_to_stop(&mut self) {
        self.stop.take();
    }

    /// Waits for its end.
    pub async fn ended(self) -> Result<()> {
        soon(self.task).await.unwrap()
    }

    pub async fn stop(self) -> Result<()> {
        soon(self.stopped()).await
    }

    /// The same, however long it takes.
    pub async fn stopped(mut self) -> Result<()> {
        self.ask_to_stop();
        self.task.await.unwrap()
    }

    /// Ends it as a crash would.
    pub async fn kill(self) {
        self.task.abort();
        assert!(soon(self.task).await.is_err());
    }
}

/// Five attempts with delays too short to notice.
pub fn hasty() -> RetryPolicy {
    RetryPolicy {
        base: Duration::from_millis(1),
        ..RetryPolicy::default()
    }
}

/// Handlers that begin, and end when they are let; and one that answers at once.
#[derive(Clone)]
pub struct Gate {
    attempts: Arc<Mutex<Vec<u32>>>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub fn new() -> Gate {
        Gate {
            attempts: Arc::default(),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    /// How many handlers have begun.
    pub fn begun(&self) -> usize {
        self.attempts.lock().len()
    }

    /// Of each handler that has begun, which attempt of its message it was.
    pub fn attempts(&self) -> Vec<u32> {
        self.attempts.lock().clone()
    }

    /// Lets `n` handlers end.
    pub fn release(&self, n: usize) {
        self.open.add_permits(n);
    }

    /// Waits at the gate.
    pub async fn pass(&self, attempt: u32) {
        self.attempts.lock().push(attempt);
        self.open.acquire().await.unwrap().forget();
    }

    /// `hold` waits at the gate, `echo` does not.
    pub fn router(&self) -> Router {
        let gate = self.clone();
        let hold = move |Attempt(attempt): Attempt| {
            let gate = gate.clone();
            async move { gate.pass(attempt).await }
        };
        let echo = |Json(value): Json<serde_json::Value>| async { Json(value) };
        Router::new().on("hold", hold).on("echo", echo)
    }
}

/// The first `n` entries of a topic.
pub async fn entries(broker: &dyn Broker, topic: &Topic, n: usize) -> Vec<Message> {
    let mut reader = broker.read(topic, Start::Earliest).await.unwrap();
    let mut messages = Vec::new();
    while messages.len() < n {
        let entries = soon(reader.next(n - messages.len())).await.unwrap();
        messages.extend(entries.into_iter().map(|entry| entry.message.unwrap()));
    }
    messages
}

/// The only dead letter of the topic `work`, and why it is one.
pub async fn dead_letter(broker: &dyn Broker) -> (Message, Meta) {
    let topic = topic("work").dead_letters();
    let message = entries(broker, &topic, 1).await.remove(0);
    assert_eq!(broker.stats(&topic).await.unwrap().length, 1);
    let meta = message.parse_meta().unwrap();
    (message, meta)
}

/// The in-memory broker, with faults: each operation takes the next fault of its queue, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Faulty {
    pub broker: MemoryBroker,
    pub faults: Arc<Faults>,
}

#[derive(Debug, Default)]
pub struct Faults {
    pub append: Mutex<Vec<Fault>>,
    pub join: Mutex<Vec<Fault>>,
    pub next: Mutex<Vec<Fault>>,
    pub settle: Mutex<Vec<Fault>>,
    pub extend: Mutex<Vec<Fault>>,
    pub inbox: Mutex<Vec<Fault>>,
    /// Of leases and upkeep, by the name of the operation; the first of that name is taken.
    pub upkeep: Mutex<Vec<(&'static str, Error)>>,
    /// The next operation of that name, of those too, waits here before it happens.
    pub stall: Mutex<Option<(&'static str, Arc<Semaphore>)>>,
    /// What the broker's clock says, and not what this machine's does.
    pub time: Mutex<Option<Result<u64>>>,
    /// The next settlement panics.
    pub panics: AtomicBool,
    /// Appends wait for this gate, when there is one.
    pub gate: Mutex<Option<Arc<tokio::sync::Semaphore>>>,
    /// How many appends have come to the gate.
    pub at_gate: AtomicUsize,
}

/// How an operation fails.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It does not happen.
    Refused(Error),
    /// It happens, but the answer is lost.
    Lost(Error),
}

pub fn away() -> Error {
    Error::unavailable("broker-unreachable", "the broker is away")
}

pub fn unanswered() -> Error {
    Error::unknown("broker-unanswered", "the connection broke")
}

fn next_fault(faults: &Mutex<Vec<Fault>>) -> Option<Fault> {
    let mut faults = faults.lock();
    (!faults.is_empty()).then(|| faults.remove(0))
}

impl Faults {
    /// Waits until `n` appends have come to the gate.
    pub async fn at_gate(&self, n: usize) {
        until(|| self.at_gate.load(Ordering::SeqCst) == n).await;
    }

    async fn pass_gate(&self) {
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            self.at_gate.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
        }
    }
}

streamerson_testkit::pass_on_upkeep!(Faulty, broker unless refusal);

impl Faulty {
    /// Lets the next `operation` of leases and upkeep wait until it is given a permit.
    pub fn stall(&self, operation: &'static str) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.faults.stall.lock() = Some((operation, gate.clone()));
        gate
    }

    /// Whether what is to be stalled has come.
    pub fn is_stalled(&self) -> bool {
        self.faults.stall.lock().is_none()
    }

    async fn refusal(&self, operation: &str) -> Option<Error> {
        let stalled = self
            .faults
            .stall
            .lock()
            .take_if(|(name, _)| *name == operation);
        if let Some((_, gate)) = stalled {
            gate.acquire().await.unwrap().forget();
        }
        let mut faults = self.faults.upkeep.lock();
        let found = faults.iter().position(|(name, _)| *name == operation)?;
        Some(faults.remove(found).1)
    }
}

impl Broker for Faulty {
    fn capabilities(&self) -> &Capabilities {
        self.broker.capabilities()
    }

    fn time(&self) -> BoxFuture<'_, Result<u64>> {
        let told = self.faults.time.lock().clone();
        async move {
            match told {
                Some(time) => time,
                None => self.broker.time().await,
            }
        }
        .boxed()
    }

    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
        async move {
            self.faults.pass_gate().await;
            match next_fault(&self.faults.append) {
                None => self.broker.append(batch).await,
                Some(Fault::Refused(error)) => batch.iter().map(|_| Err(error.clone())).collect(),
                Some(Fault::Lost(error)) => {
                    let results = self.broker.append(batch).await;
                    results.iter().map(|_| Err(error.clone())).collect()
                }
            }
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
        self.broker.read(topic, start)
    }

    fn join(&self, membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        async move {
            if let Some(Fault::Refused(error) | Fault::Lost(error)) = next_fault(&self.faults.join)
            {
                return Err(error);
            }
            let member = self.broker.join(membership).await?;
            Ok(Box::new(FaultyMember {
                settler: Arc::new(FaultySettler {
                    settler: member.settler(),
                    faults: self.faults.clone(),
                }),
                member,
                faults: self.faults.clone(),
            }) as Box<dyn Member>)
        }
        .boxed()
    }

    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
        async move {
            let Inbox { address, reader } = self.broker.inbox().await?;
            let faults = self.faults.clone();
            Ok(Inbox {
                address,
                reader: Box::new(FaultyReader { reader, faults }),
            })
        }
        .boxed()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.broker.topics()
    }

    fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
        self.broker.stats(topic)
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Trimmed>> {
        self.broker.trim(topic, retention)
    }
}

struct FaultyReader {
    reader: Box<dyn Reader>,
    faults: Arc<Faults>,
}

impl Reader for FaultyReader {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Entry>>> {
        match next_fault(&self.faults.inbox) {
            Some(Fault::Refused(error) | Fault::Lost(error)) => {
                std::future::ready(Err(error)).boxed()
            }
            None => self.reader.next(max),
        }
    }
}

struct FaultyMember {
    member: Box<dyn Member>,
    settler: Arc<FaultySettler>,
    faults: Arc<Faults>,
}

impl Member for FaultyMember {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        match next_fault(&self.faults.next) {
            Some(Fault::Refused(error) | Fault::Lost(error)) => {
                std::future::ready(Err(error)).boxed()
            }
            None => self.member.next(max),
        }
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.settler.clone()
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.member.leave()
    }
}

struct FaultySettler {
    settler: Arc<dyn Settler>,
    faults: Arc<Faults>,
}

impl Settler for FaultySettler {
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
        async move {
            let panics = self.faults.panics.swap(false, Ordering::SeqCst);
            assert!(!panics, "a defect");
            match next_fault(&self.faults.settle) {
                None => self.settler.settle(batch).await,
                Some(Fault::Refused(error)) => batch.iter().map(|_| Err(error.clone())).collect(),
                Some(Fault::Lost(error)) => {
                    let results = self.settler.settle(batch).await;
                    results.iter().map(|_| Err(error.clone())).collect()
                }
            }
        }
        .boxed()
    }

    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>> {
        match next_fault(&self.faults.extend) {
            Some(Fault::Refused(error) | Fault::Lost(error)) => {
                std::future::ready(Err(error)).boxed()
            }
            None => self.settler.extend(held),
        }
    }
}
