//! The workers of a run: processes that are started again whenever one ends, and can be killed, stopped and continued.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use streamerson_core::Name;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::child::Child;
use super::clock;
use super::journal::Journal;
use super::record::Kill;
use super::worker::ChaosWorker;
use crate::failure::{Exit, Failure, Result};

/// How long a worker may take to end when it is asked to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause before a worker that could not be started is started again.
const AGAIN: Duration = Duration::from_millis(100);

/// Who starts workers, and hears what they say.
#[derive(Debug, Clone)]
pub(crate) struct Hiring {
    pub(crate) journal: Arc<Mutex<Journal>>,
    /// Where workers log to.
    pub(crate) log: PathBuf,
    started: Arc<AtomicU32>,
}

/// A place that always has a worker: when one ends, the next is started.
#[derive(Debug)]
pub(crate) struct Post {
    hiring: Hiring,
    orders: mpsc::Sender<Order>,
    /// The number of the worker in it; every process has its own.
    worker: Arc<AtomicU32>,
    is_stopped: AtomicBool,
    _keeping: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Order {
    Kill(oneshot::Sender<Kill>),
    Signal(Signal, oneshot::Sender<()>),
    Finish(oneshot::Sender<()>),
}

impl Hiring {
    pub(crate) fn new(log: PathBuf) -> Hiring {
        Hiring {
            journal: Arc::default(),
            log,
            started: Arc::default(),
        }
    }

    /// A post for workers like `worker`.
    pub(crate) fn post(&self, worker: &ChaosWorker) -> Post {
        let (orders, received) = mpsc::channel(1);
        let current = Arc::new(AtomicU32::new(0));
        let keeper = Keeper {
            hiring: self.clone(),
            arguments: worker.arguments(),
            current: current.clone(),
        };
        Post {
            hiring: self.clone(),
            orders,
            worker: current,
            is_stopped: AtomicBool::new(false),
            _keeping: AbortOnDropHandle::new(tokio::spawn(keeper.keep(received))),
        }
    }
}

impl Post {
    /// How many messages its worker has in its handlers.
    pub(crate) fn holding(&self) -> usize {
        let worker = self.worker.load(Ordering::Relaxed);
        self.hiring.journal.lock().holding(worker)
    }

    /// The name in its groups of a worker that was here.
    pub(crate) fn name(&self, worker: u32) -> Option<Name> {
        self.hiring.journal.lock().name(worker)
    }

    /// Whether its worker is stopped, and has not gone on.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Kills its worker.
    pub(crate) async fn kill(&self) -> Result<Kill> {
        self.order(Order::Kill).await
    }

    /// Stops its worker where it stands.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.order(|done| Order::Signal(Signal::STOP, done)).await
    }

    /// Lets it go on.
    pub(crate) async fn go_on(&self) -> Result<()> {
        let gone_on = self.order(|done| Order::Signal(Signal::CONT, done)).await;
        self.is_stopped.store(false, Ordering::Relaxed);
        gone_on
    }

    /// Lets its worker finish what it has in hand; there is no next one.
    pub(crate) async fn finish(&self) -> Result<()> {
        self.order(Order::Finish).await
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let gone = |()| Failure::new(Exit::Failed, "worker-gone", "a post of the run is given up");
        self.orders
            .send(order(answer))
            .await
            .map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))
    }
}

/// Keeps one post.
struct Keeper {
    hiring: Hiring,
    arguments: Vec<String>,
    current: Arc<AtomicU32>,
}

/// How the time of one worker ended.
enum Ended {
    /// The next one, please.
    Killed,
    Finished,
}

impl Keeper {
    async fn keep(self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let Ok(mut child) = self.start() else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let number = self.hiring.started.fetch_add(1, Ordering::Relaxed) + 1;
            self.current.store(number, Ordering::Relaxed);
            let listening = child
                .take_stdout()
                .map(|said| listen(said, number, self.hiring.journal.clone()));
            let ended = self.watch(&mut child, number, &mut orders).await;
            if let Some(listening) = listening {
                // Ends with the pipe, which ended with the process.
                let _ = listening.await;
            }
            self.hiring.journal.lock().forget(number);
            match ended {
                Some(Ended::Killed) => (),
                Some(Ended::Finished) | None => return,
            }
        }
    }

    fn start(&self) -> std::io::Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.hiring.log)?;
        Child::start(&self.arguments, Stdio::from(log))
    }

    /// Obeys until the worker is gone; none: nobody gives orders any more.
    async fn watch(
        &self,
        child: &mut Child,
        number: u32,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Option<Ended> {
        let begun = clock::now();
        loop {
            let order = tokio::select! {
                _ = child.ended() => {
                    if clock::now().saturating_sub(begun) < AGAIN {
                        tokio::time::sleep(AGAIN).await;
                    }
                    return Some(Ended::Killed);
                }
                order = orders.recv() => order?,
            };
            match order {
                Order::Kill(answer) => {
                    let holding = self.hiring.journal.lock().holding(number);
                    let at = clock::now();
                    child.kill().await;
                    let kill = Kill {
                        worker: number,
                        at,
                        holding,
                        owned: None,
                    };
                    // Who gave the order may have given up.
                    let _ = answer.send(kill);
                    return Some(Ended::Killed);
                }
                Order::Signal(signal, answer) => {
                    child.signal(signal);
                    let _ = answer.send(());
                }
                Order::Finish(answer) => {
                    child.signal(Signal::TERM);
                    if tokio::time::timeout(PATIENCE, child.ended()).await.is_err() {
                        child.kill().await;
                    }
                    let _ = answer.send(());
                    return Some(Ended::Finished);
                }
            }
        }
    }
}

/// Notes what a worker says until it is gone.
fn listen(said: ChildStdout, worker: u32, journal: Arc<Mutex<Journal>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(said).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(line) = line.parse() {
                journal.lock().note(worker, line);
            }
        }
    })
}
