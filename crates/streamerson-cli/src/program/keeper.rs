//! Keeps one process of a program running, and restarts it when it dies.

use std::sync::Arc;
use std::time::Duration;

use streamerson_core::retry::RetryPolicy;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Spec;
use super::line::answer;
use super::process::Process;
use super::queue::{Died, Job, Queue};
use crate::failure::{Exit, Failure, Result};

/// After so many deaths in a row without an answer the fault is not in the messages.
const MAX_DEATHS: u32 = 10;

/// How long to wait before a process is started again.
const RESTART: RetryPolicy = RetryPolicy {
    max_attempts: MAX_DEATHS,
    base: Duration::from_millis(100),
    cap: Duration::from_secs(1),
    jitter: 0.0,
    max_age: None,
};

pub(crate) struct Keeper {
    spec: Arc<Spec>,
    jobs: mpsc::Receiver<Job>,
    queue: Queue,
    /// In a row, without an answer in between.
    deaths: u32,
}

/// How a process ended.
enum End {
    /// There is nothing more to do.
    Finished,
    Died(String),
    /// Killed, because it did not answer in time.
    Silent(String),
    /// Killed for a line it wrote, with which a question has failed.
    OutOfStep(String),
}

impl Keeper {
    pub(crate) fn new(spec: Arc<Spec>, jobs: mpsc::Receiver<Job>) -> Keeper {
        Keeper {
            spec,
            jobs,
            queue: Queue::default(),
            deaths: 0,
        }
    }

    /// Serves until nobody asks any more, or the program dies too often.
    pub(crate) async fn run(mut self, first: Process) -> Result<()> {
        let mut process = Ok(first);
        loop {
            let end = match process {
                Ok(process) => self.serve(process).await,
                Err(error) => End::Died(format!("the program cannot be started: {error}")),
            };
            let busy = matches!(end, End::Silent(_));
            let out_of_step = matches!(end, End::OutOfStep(_));
            let (End::Died(reason) | End::Silent(reason) | End::OutOfStep(reason)) = end else {
                return Ok(());
            };
            self.deaths += 1;
            tracing::warn!(
                deaths = self.deaths,
                ?reason,
                "the program is started again"
            );
            if out_of_step {
                self.queue.replaced();
            } else {
                let reason = reason.clone();
                self.queue.died(Died { reason }, busy);
            }
            if self.deaths >= MAX_DEATHS {
                return Err(gave_up(&reason));
            }
            if !self.rest(RESTART.delay(self.deaths, 0.0)).await {
                return Ok(());
            }
            process = Process::start(&self.spec.command);
        }
    }

    /// Lets `process` answer until it ends, or nobody asks any more.
    async fn serve(&mut self, mut process: Process) -> End {
        let mut open = true;
        let mut since = Instant::now();
        loop {
            if !self.queue.is_waiting() {
                since = Instant::now();
            }
            while let Some(question) = self.queue.ask() {
                process.put(&question);
            }
            if !open && self.queue.is_empty() {
                process.finish().await;
                return End::Finished;
            }
            tokio::select! {
                job = self.jobs.recv(), if open && self.queue.len() < self.spec.depth => match job {
                    Some(job) => self.queue.push(job),
                    None => open = false,
                },
                line = process.next() => {
                    let Some(line) = line else {
                        return End::Died(process.status().await);
                    };
                    if let Err(why) = self.queue.answer(answer(line)) {
                        process.kill().await;
                        return End::OutOfStep(format!("{why}, and was killed"));
                    }
                    self.deaths = 0;
                    since = Instant::now();
                }
                () = sleep_until(since + self.spec.answer_within), if self.queue.is_waiting() => {
                    process.kill().await;
                    let limit = self.spec.answer_within;
                    return End::Silent(format!("the program did not answer within {limit:?}, and was killed"));
                }
            }
        }
    }

    /// Waits before a restart. False when nobody asks any more.
    async fn rest(&mut self, delay: Duration) -> bool {
        let until = Instant::now() + delay;
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                job = self.jobs.recv(), if self.queue.len() < self.spec.depth => match job {
                    Some(job) => self.queue.push(job),
                    None if self.queue.is_empty() => return false,
                    None => {
                        sleep_until(until).await;
                        return true;
                    }
                },
            }
        }
    }
}

fn gave_up(reason: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        "program-keeps-dying",
        format!("{reason}; this was the {MAX_DEATHS}th time in a row without an answer"),
    )
    .with_help("what was not answered is kept on the topic: correct the program, and start this command again")
}
