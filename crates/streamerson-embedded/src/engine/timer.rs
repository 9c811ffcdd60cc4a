//! The timer: what was kept aside appears in its topic when it is due.
//!
//! A thread of its own, begun with the first message that is kept aside. It sleeps until the next is due.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use streamerson_core::{ErrorKind, Result};
use tokio::sync::oneshot;

use super::drive::Drive;
use super::op::{Op, Pending};
use super::read::Loading;
use super::request::NewEntry;
use super::shared::Shared;
use super::terms::Terms;

/// Messages that appear in one go.
const MOST: usize = 256;

/// Bytes that appear in one go, apart from the last message.
const BYTES: usize = 1 << 20;

/// No sleep is longer: the wall clock may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// What cannot appear, for example because the disk is full, is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// Wakes the timer's thread.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    signal: Mutex<Signal>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Signal {
    /// Something is due before what was.
    earlier: bool,
    closed: bool,
}

impl Alarm {
    /// Something is due before what was.
    pub(crate) fn ring(&self) {
        self.signal.lock().earlier = true;
        self.changed.notify_one();
    }

    fn close(&self) {
        self.signal.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits, at most so long. `false`: for the last time.
    fn wait(&self, time: Option<Duration>) -> bool {
        let mut signal = self.signal.lock();
        if !signal.earlier && !signal.closed {
            match time {
                Some(time) => drop(self.changed.wait_for(&mut signal, time)),
                None => self.changed.wait(&mut signal),
            }
        }
        signal.earlier = false;
        !signal.closed
    }
}

/// The timer of an engine. Ends with it.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    thread: Mutex<Option<(Arc<Shared>, JoinHandle<()>)>>,
}

impl Timer {
    /// Begins, if it has not begun.
    pub(crate) fn begin(&self, shared: &Arc<Shared>, drive: &Arc<Drive>) {
        let mut thread = self.thread.lock();
        if thread.is_some() {
            return;
        }
        let (timed, drive) = (shared.clone(), drive.clone());
        let spawned = std::thread::Builder::new()
            .name("streamerson-timer".into())
            .spawn(move || run(&timed, &drive));
        match spawned {
            Ok(handle) => *thread = Some((shared.clone(), handle)),
            // The next message that is scheduled tries again.
            Err(error) => {
                tracing::error!(%error, "the timer's thread could not be started: what is scheduled waits")
            }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some((shared, thread)) = self.thread.lock().take() else {
            return;
        };
        shared.alarm.close();
        // The timer's thread may itself drop the last handle, with a task it wakes; it cannot wait for itself.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Arc<Shared>, drive: &Drive) {
    let mut pause = Some(Duration::ZERO);
    while shared.alarm.wait(pause) {
        pause = match appear(shared, drive) {
            Ok(next) => next.map(|next| next.min(LONGEST)),
            Err(error) => {
                tracing::warn!(%error, "what is due cannot appear yet");
                Some(AGAIN)
            }
        };
    }
}

/// Has appear what is due. Answers how long the next has to wait, if there is one.
fn appear(shared: &Shared, drive: &Drive) -> Result<Option<Duration>> {
    loop {
        let now = (shared.unix_ms)();
        let state = shared.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let due = state.aside.due(now, MOST);
        if due.is_empty() {
            let next = state.aside.next_due();
            return Ok(next.map(|next| Duration::from_millis(next.saturating_sub(now).max(1))));
        }
        let due = Loading::new(&state, due);
        drop(state);
        let (mut ids, mut entries) = (Vec::new(), Vec::new());
        due.each(BYTES, |(id, topic), body| {
            match body {
                Ok(Some(body)) => {
                    let position = None;
                    let mut entry = Pending::new(NewEntry {
                        topic,
                        body,
                        position,
                    });
                    entry.terms = Some(Terms::due(id));
                    entries.push(entry);
                    ids.push(id);
                }
                Ok(None) => {}
                // The others must not wait for it.
                Err(error) => {
                    tracing::error!(%topic, due = id.major(), %error, "a scheduled message cannot be read: it is kept, and does not appear");
                    shared.state.lock().aside.skip(id);
                }
            }
            Ok(())
        })?;
        let (answer, answered) = oneshot::channel();
        drive.submit(Op::Append { entries, answer });
        let stored = answered.blocking_recv().map_err(|_| super::unanswered())?;
        for (id, stored) in ids.into_iter().zip(stored) {
            match stored {
                // Its topic was removed meanwhile.
                Err(error) if error.code() == "topic-not-found" => {}
                // No other try will help, and the others must not wait for it.
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    tracing::error!(due = id.major(), %error, "a scheduled message is refused: it is kept, and does not appear");
                    shared.state.lock().aside.skip(id);
                }
                stored => drop(stored?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use streamerson_core::{Append, Message, Position, Topic};

    use super::*;
    use crate::Options;
    use crate::engine::{Body, Direction, Engine};

    static UNIX_MS: AtomicU64 = AtomicU64::new(1);

    #[tokio::test]
    async fn what_can_never_appear_does_not_keep_others_from_appearing() {
        let engine = Engine::in_memory(&Options::default(), || UNIX_MS.load(SeqCst));
        let (full, orders) = (Topic::new("full").unwrap(), Topic::new("orders").unwrap());
        let last = NewEntry {
            topic: full.clone(),
            body: Body::Message(Message::new("test", "last")),
            position: Some(Position::new(u64::MAX, u64::MAX - 1)),
        };
        engine.append([last]).await.remove(0).unwrap();
        let later = |topic: &Topic, due| {
            let message = Message::new("test", "x");
            Append::new(topic.clone(), message).due_at(due)
        };
        let mut batch: Vec<Append> = (0..2 * MOST).map(|_| later(&full, 2)).collect();
        batch.push(later(&orders, 3));
        for stored in engine.append_messages(batch).await {
            stored.unwrap();
        }
        let changed = engine.changed(&orders).notified_owned();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        UNIX_MS.store(4, SeqCst);
        engine.inner.shared.alarm.ring();
        let appeared = tokio::time::timeout(Duration::from_secs(30), changed).await;
        assert!(appeared.is_ok());
        let end = Position::new(u64::MAX, u64::MAX);
        let found = engine.range(&orders, Position::ZERO, end, 9, Direction::Forward);
        assert_eq!(found.await.unwrap().len(), 1);
    }
}
