//! Who runs the committer.
//!
//! Class `disk`: a thread of its own, because a sync takes long. Class `os`: a write is only a copy to the operating
//! system, and waking a thread for it costs more than the write. So the first caller that finds nobody committing does
//! it, for all who come meanwhile; the thread steps in when writes turn slow or a segment is full. Class `memory`: callers.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use streamerson_core::{Durability, Error, Result};

use super::commit::Committer;
use super::op::Op;
use super::shared::Shared;

/// Batches that one caller commits for others before the thread relieves it.
const ROUNDS: usize = 4;

/// Runs the committer.
#[derive(Debug)]
pub(crate) struct Drive {
    shared: Arc<Shared>,
    committer: Arc<Mutex<Committer>>,
    durability: Durability,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drive {
    /// Without a thread: class `memory`.
    pub(crate) fn new(shared: Arc<Shared>, committer: Committer, durability: Durability) -> Drive {
        Drive {
            shared,
            committer: Arc::new(Mutex::new(committer)),
            durability,
            thread: Mutex::new(None),
        }
    }

    /// With a thread, for a committer that has a log.
    pub(crate) fn start(
        shared: Arc<Shared>,
        mut committer: Committer,
        durability: Durability,
    ) -> Result<Drive> {
        committer.reclaim();
        let mut drive = Drive::new(shared, committer, durability);
        let thread = spawn(drive.shared.clone(), drive.committer.clone())?;
        drive.thread = Mutex::new(Some(thread));
        Ok(drive)
    }

    /// Has `op` committed, now or soon.
    pub(crate) fn submit(&self, op: Op) {
        let bytes = op.bound();
        self.shared.queue.push(op, bytes);
        match self.durability {
            Durability::Memory | Durability::Os => self.combine(),
            _ => self.shared.queue.call(),
        }
    }

    /// Commits what is queued, unless somebody is at it: then they will see it, because they look again afterwards.
    fn combine(&self) {
        for round in 0.. {
            let Some(mut committer) = self.committer.try_lock() else {
                return;
            };
            let thread = self.durability > Durability::Memory;
            if thread && (round == ROUNDS || !committer.is_quick()) {
                drop(committer);
                return self.shared.queue.call();
            }
            committer.work();
            drop(committer);
            if self.shared.queue.is_empty() {
                return;
            }
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.shared.queue.close();
        // The committer's thread may itself drop the last handle, with a task it wakes; it cannot wait for itself.
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

fn spawn(shared: Arc<Shared>, committer: Arc<Mutex<Committer>>) -> Result<JoinHandle<()>> {
    let run = move || {
        // If a commit should panic, nobody must wait for ever.
        let _abandon = Abandon(&shared);
        while shared.queue.wait() {
            // Again, for callers that found the committer busy and left their operation to it.
            while !shared.queue.is_empty() {
                let gathering = committer.lock().gathering();
                if !gathering.is_zero() {
                    std::thread::sleep(gathering);
                }
                committer.lock().work();
            }
        }
        committer.lock().finish();
    };
    std::thread::Builder::new()
        .name("streamerson-commit".into())
        .spawn(run)
        .map_err(|error| {
            let detail = format!("the committer's thread could not be started: {error}");
            Error::unavailable("no-thread", detail)
        })
}

struct Abandon<'a>(&'a Shared);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.queue.abandon();
    }
}
