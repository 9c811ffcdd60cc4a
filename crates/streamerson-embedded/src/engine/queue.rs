//! The way to the committer.

use parking_lot::{Condvar, Mutex};
use streamerson_core::Error;

use super::op::Op;

/// Bytes that may wait for the committer.
const LIMIT: usize = 64 << 20;

/// The operations that wait for the committer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    ops: Vec<(Op, usize)>,
    /// Of operations that wait, or were taken and are not done yet.
    bytes: usize,
    /// The committer's thread is wanted.
    called: bool,
    /// It sleeps.
    idle: bool,
    closed: bool,
}

impl Queue {
    /// Adds an operation of `bytes`, or answers it when it cannot be taken.
    pub(crate) fn push(&self, op: Op, bytes: usize) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            drop(waiting);
            return op.refuse(&Error::closed("the broker was closed"));
        }
        if waiting.bytes > 0 && waiting.bytes.saturating_add(bytes) > LIMIT && op.is_append() {
            drop(waiting);
            return op.refuse(&Error::unavailable(
                "overloaded",
                format!("{LIMIT} bytes wait to be stored already: send less, or retry later"),
            ));
        }
        waiting.bytes += bytes;
        waiting.ops.push((op, bytes));
    }

    /// Moves all operations into `ops`, which is empty.
    pub(crate) fn take(&self, ops: &mut Vec<(Op, usize)>) {
        std::mem::swap(&mut self.waiting.lock().ops, ops);
    }

    /// Operations of `bytes` that were taken are done.
    pub(crate) fn done(&self, bytes: usize) {
        self.waiting.lock().bytes -= bytes;
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().ops.is_empty()
    }

    /// Wants the committer's thread.
    pub(crate) fn call(&self) {
        let mut waiting = self.waiting.lock();
        waiting.called = true;
        if std::mem::take(&mut waiting.idle) {
            drop(waiting);
            self.called.notify_one();
        }
    }

    /// Waits until the committer's thread is wanted. `false`: for the last time.
    pub(crate) fn wait(&self) -> bool {
        let mut waiting = self.waiting.lock();
        while !waiting.called && !waiting.closed {
            waiting.idle = true;
            self.called.wait(&mut waiting);
        }
        waiting.idle = false;
        waiting.called = false;
        !waiting.closed
    }

    /// Nothing more is taken; what waits is still done.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.called.notify_one();
    }

    /// Nothing more is done: who waits learns that the answer is lost.
    pub(crate) fn abandon(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        let ops = std::mem::take(&mut waiting.ops);
        drop(waiting);
        drop(ops);
    }
}
