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

/// After so many deaths in a row that no message explains the fault is in the program.
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
    /// In a row, that no message explains.
    deaths: u32,
}

/// How a process ended.
enum End {
    /// There is nothing more to do.
    Finished,
    /// With this reason; a message has been charged with it.
    Charged(String),
    /// With this reason, which is no message's fault.
    Unexplained(String),
}

impl Keeper {
    pub(crate) fn new(spec: Arc<Spec>, jobs: mpsc::Receiver<Job>) -> Keeper {
        Keeper {
            queue: Queue::new(spec.depth),
            spec,
            jobs,
            deaths: 0,
        }
    }

    /// Serves until nobody asks any more, or the program dies too often.
    pub(crate) async fn run(mut self, first: Process) -> Result<()> {
        let mut process = Ok(first);
        loop {
            let end = match process {
                Ok(process) => self.serve(process).await,
                Err(error) => End::Unexplained(format!("the program cannot be started: {error}")),
            };
            let reason = match end {
                End::Finished => return Ok(()),
                End::Charged(reason) => reason,
                End::Unexplained(reason) => {
                    self.deaths += 1;
                    reason
                }
            };
            self.queue.replaced();
            tracing::warn!(
                unexplained = self.deaths,
                ?reason,
                "the program is started again"
            );
            if self.deaths >= MAX_DEATHS {
                return Err(gave_up(&reason));
            }
            if !self.rest(RESTART.delay(self.deaths, 0.0)).await {
                return Ok(());
            }
            process = Process::start(&self.spec.command);
        }
    }

    /// Lets `process` answer until it ends, or nobody asks any more: then nobody waits for what it still owes, either.
    async fn serve(&mut self, mut process: Process) -> End {
        loop {
            while let Some(question) = self.queue.ask(Instant::now()) {
                process.put(&question);
            }
            let waiting_since = self.queue.waiting_since();
            let overdue = waiting_since.map(|since| since + self.spec.answer_within);
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => self.queue.push(job),
                    None => {
                        process.finish().await;
                        return End::Finished;
                    }
                },
                line = process.next() => {
                    let Some(line) = line else {
                        let begun = process.unread_bytes() < self.queue.owed_bytes();
                        let reason = process.status().await;
                        return self.died(reason, begun);
                    };
                    let asked = self.queue.is_waiting();
                    if let Err(why) = self.queue.answer(answer(line), Instant::now()) {
                        process.kill().await;
                        let reason = format!("{why}, and was killed");
                        return if asked { End::Charged(reason) } else { End::Unexplained(reason) };
                    }
                    self.deaths = 0;
                }
                () = at(overdue), if overdue.is_some() => {
                    process.kill().await;
                    let limit = self.spec.answer_within;
                    let reason = format!("the program did not answer within {limit:?}, and was killed");
                    return self.died(reason, true);
                }
            }
        }
    }

    /// A process died: the message it was working on is charged if it had `begun` one. What died before it read any has not
    /// even started, and says nothing about messages.
    fn died(&mut self, reason: String, begun: bool) -> End {
        if !begun {
            return End::Unexplained(reason);
        }
        self.queue.charge(Died {
            reason: reason.clone(),
        });
        End::Charged(reason)
    }

    /// Waits before a restart. False when nobody asks any more.
    async fn rest(&mut self, delay: Duration) -> bool {
        let until = Instant::now() + delay;
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                job = self.jobs.recv() => match job {
                    Some(job) => self.queue.push(job),
                    None => return false,
                },
            }
        }
    }
}

/// Waits until `time`, which is there.
async fn at(time: Option<Instant>) {
    if let Some(time) = time {
        sleep_until(time).await;
    }
}

fn gave_up(reason: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        "program-keeps-dying",
        format!("{reason}; this was the {MAX_DEATHS}th time in a row, before it had read a message"),
    )
    .with_help("what was not answered is kept on the topic: correct the program, and start this command again")
}
