//! A program as a worker: processes that stay, asked by one JSON line and answering with one.
//!
//! * [`mod@line`]: the protocol.
//! * [`queue`]: what a process owes, and who is blamed when it dies; without I/O.
//! * [`process`]: one running process.
//! * [`keeper`]: keeps one running.

mod keeper;
pub(crate) mod line;
mod process;
mod queue;

use std::ffi::OsString;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::keeper::Keeper;
pub(crate) use self::line::Answer;
use self::process::Process;
pub(crate) use self::queue::Died;
use self::queue::Job;
use crate::failure::{Exit, Failure, Result};

/// What to run, and how.
#[derive(Debug)]
pub(crate) struct Spec {
    /// The program and its arguments.
    pub(crate) command: Vec<OsString>,
    /// How many processes.
    pub(crate) processes: usize,
    /// How many messages one process is given before it answers the first.
    pub(crate) depth: usize,
    /// How long a process may take to answer a message, once it has answered those before it.
    pub(crate) answer_within: Duration,
}

/// Asks the processes of a program. Clones ask the same processes.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    lanes: Arc<[Lane]>,
}

#[derive(Debug)]
struct Lane {
    jobs: mpsc::Sender<Job>,
    open: AtomicUsize,
}

/// The processes of a program, or of none: killed when this is dropped.
#[derive(Default)]
pub(crate) struct Running {
    keepers: JoinSet<Result<()>>,
}

impl Program {
    /// Starts the processes. A command that cannot be started is an error.
    pub(crate) fn start(spec: Spec) -> Result<(Program, Running)> {
        let spec = Arc::new(spec);
        let mut keepers = JoinSet::new();
        let mut lanes = Vec::new();
        for _ in 0..spec.processes {
            let process =
                Process::start(&spec.command).map_err(|error| not_started(&spec, &error))?;
            let (jobs, receiver) = mpsc::channel(1);
            keepers.spawn(Keeper::new(spec.clone(), receiver).run(process));
            lanes.push(Lane {
                jobs,
                open: AtomicUsize::new(0),
            });
        }
        let lanes = lanes.into();
        Ok((Program { lanes }, Running { keepers }))
    }

    /// Asks the process that has the least to do; `given` is told when it is given the message. Once the program is given up this never completes, so that whoever
    /// asks keeps what it has until it is dropped, and other workers get it.
    pub(crate) async fn ask(
        &self,
        id: &ByteString,
        question: Bytes,
        given: Option<oneshot::Sender<()>>,
    ) -> Result<Answer, Died> {
        let load = |lane: &&Lane| lane.open.load(Ordering::Relaxed);
        let Some(lane) = self.lanes.iter().min_by_key(load) else {
            return pending().await;
        };
        let _open = Open::count(&lane.open);
        let (done, answer) = oneshot::channel();
        let job = Job {
            id: id.clone(),
            question,
            given,
            done,
        };
        if lane.jobs.send(job).await.is_err() {
            return pending().await;
        }
        match answer.await {
            Ok(answer) => answer,
            Err(_) => pending().await,
        }
    }
}

impl Running {
    /// Waits until the processes have ended because nobody asks any more, or one keeps dying.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        while let Some(keeper) = self.keepers.join_next().await {
            keeper.map_err(|error| {
                Failure::new(Exit::Failed, "internal", format!("a task failed: {error}"))
            })??;
        }
        Ok(())
    }

    /// Kills the processes, with what they started.
    pub(crate) async fn kill(&mut self) {
        self.keepers.shutdown().await;
    }

    /// Waits until a process keeps dying.
    pub(crate) async fn failed(&mut self) -> Failure {
        match self.ended().await {
            Err(failure) => failure,
            Ok(()) => pending().await,
        }
    }
}

/// Counts one open question for as long as it is held.
struct Open<'a>(&'a AtomicUsize);

impl Open<'_> {
    fn count(open: &AtomicUsize) -> Open<'_> {
        open.fetch_add(1, Ordering::Relaxed);
        Open(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn not_started(spec: &Spec, error: &std::io::Error) -> Failure {
    let program = spec.command.first().map(|word| word.to_string_lossy());
    Failure::new(
        Exit::Failed,
        "program-not-started",
        format!(
            "{} cannot be started: {error}",
            program.as_deref().unwrap_or("the program")
        ),
    )
    .with_help("the words after -- are a program and its arguments; for a shell command write -- sh -c '…'")
}
