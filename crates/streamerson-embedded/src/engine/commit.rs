//! The committer: everything that changes what is stored, in one place, a batch at a time.
//!
//! It takes what is queued, decides it under the lock, writes one frame without the lock (and syncs it, for class
//! `disk`), makes it visible under the lock, and answers. While one frame is written, the next batch gathers.
//!
//! Class `disk` under load: a sync costs the processor as much as a dozen requests, and each answered batch brings the next one,
//! in small pieces. So after a batch of many operations the next one gathers for twice as long as the last write took. That
//! halves the syncs, and callers wait less, not longer; who comes alone never waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use streamerson_core::time::Millis;
use streamerson_core::{Error, Result};

use super::apply::{apply, encode};
use super::change;
use super::checkpoint::checkpoint;
use super::cold::Place;
use super::decide::{Moment, decide, undo};
use super::op::{Change, Changed, Op};
use super::shared::Shared;
use super::state::After;
use crate::log::encode::Encoder;
use crate::log::segment::{HEAD, LARGEST};
use crate::log::writer::{Failure, Log, Priority};

/// Batches are cut at this size, so that reading back one entry never reads much.
const FRAME: usize = 1 << 20;

/// Bodies in memory beyond this get memory of their own, instead of keeping the buffer they were read from.
const COMPACT: usize = 4 << 20;

/// What has expired is looked for this often.
const SWEEP: Millis = 5_000;

/// No change takes more than this.
const CHANGE: usize = 1024;

/// Room that a quick batch may need in the active segment.
const QUICK: u64 = 64 << 10;

/// After a slow write, callers' threads do not write for so long.
const REST: Duration = Duration::from_secs(1);

/// A write that takes longer is not for the threads of callers. Longer than the scheduler makes one wait on a busy machine.
const SLOW: Duration = Duration::from_millis(20);

/// A batch of so many operations is a sign of load.
const MANY: usize = 8;

/// The next batch gathers for so many times as long as the last synced write took,
const GATHER: u32 = 2;

/// but no longer than this.
const GATHER_MOST: Duration = Duration::from_millis(1);

/// Writes the log.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    /// `None` for class `memory`.
    log: Option<Log>,
    encoder: Encoder,
    ops: Vec<(Op, usize)>,
    swept: Millis,
    /// When a write last took long.
    slow: Option<Instant>,
    /// Until when the next batch should gather.
    gather: Option<Instant>,
}

impl Committer {
    /// Commits to `log`, or only to memory.
    pub(crate) fn new(shared: Arc<Shared>, log: Option<Log>) -> Committer {
        Committer {
            shared,
            log,
            encoder: Encoder::default(),
            ops: Vec::new(),
            swept: 0,
            slow: None,
            gather: None,
        }
    }

    /// Whether the next batch is likely to be committed without waiting for the disk. Not for class `disk`.
    pub(crate) fn is_quick(&self) -> bool {
        let was_slow = self.slow.is_some_and(|at| at.elapsed() < REST);
        let fits = |log: &Log| log.fits(QUICK, Priority::Append);
        !was_slow && self.log.as_ref().is_none_or(fits)
    }

    /// How long the next batch should gather before it is committed.
    pub(crate) fn gathering(&self) -> Duration {
        self.gather.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// Commits what is queued now.
    pub(crate) fn work(&mut self) {
        let mut ops = std::mem::take(&mut self.ops);
        self.shared.queue.take(&mut ops);
        let bytes = ops.iter().map(|(_, bytes)| *bytes).sum();
        self.commit_all(ops.drain(..));
        self.shared.queue.done(bytes);
        self.ops = ops;
    }

    /// Commits what is left, and closes the log.
    pub(crate) fn finish(&mut self) {
        self.work();
        let broken = self.shared.state.lock().failure.is_some();
        if let Some(log) = self.log.as_mut().filter(|_| !broken) {
            log.close(&mut self.encoder);
        }
    }

    /// Commits operations in order: changes alone, the rest in batches.
    fn commit_all(&mut self, ops: impl Iterator<Item = (Op, usize)>) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (op, bound) in ops {
            let change = matches!(op, Op::Change { .. });
            if !batch.is_empty() && (change || bytes + bound > FRAME) {
                self.commit(std::mem::take(&mut batch), bytes);
                bytes = 0;
            }
            match op {
                Op::Change { change, answer } => {
                    let _ = answer.send(self.change(&change));
                }
                op => {
                    batch.push(op);
                    bytes += bound;
                }
            }
        }
        if !batch.is_empty() {
            self.commit(batch, bytes);
        }
    }

    fn commit(&mut self, mut batch: Vec<Op>, mut bytes: usize) {
        if let Err(error) = self.make_room(bytes, Priority::Append) {
            // What frees space goes on: it may use the reserve.
            let (appends, rest): (Vec<Op>, Vec<Op>) = batch.into_iter().partition(Op::is_append);
            appends.into_iter().for_each(|op| op.refuse(&error));
            batch = rest;
            bytes = bound(&batch);
            if batch.is_empty() {
                return;
            }
            if let Err(error) = self.make_room(bytes, Priority::Settle) {
                batch.into_iter().for_each(|op| op.refuse(&error));
                return;
            }
        }
        let (moment, compact) = match self.decide(&mut batch, bytes) {
            Ok(decided) => decided,
            Err(error) => return batch.into_iter().for_each(|op| op.refuse(&error)),
        };
        let begun = Instant::now();
        let place = match self.store(&mut batch, compact) {
            Ok(place) => place,
            Err(failure) => return self.fail(batch, failure),
        };
        let written = Instant::now();
        let took = written - begun;
        if took > SLOW {
            self.slow = Some(begun);
        }
        let syncs = self.log.as_ref().is_some_and(Log::syncs);
        self.gather = syncs.then(|| written + gather(batch.len(), took));

        let mut after = After::default();
        let mut state = self.shared.state.lock();
        state.commits += 1;
        let answers = apply(&mut state, batch, place, moment.now, &mut after);
        if self.swept + SWEEP <= moment.now {
            self.swept = moment.now;
            state.sweep(moment.now, &mut after);
            state.forget(moment.unix_ms);
        }
        drop(state);
        after
            .wake
            .iter()
            .for_each(|changed| changed.notify_waiters());
        if after.due {
            self.shared.alarm.ring();
        }
        answers.into_iter().for_each(|answer| answer.send());
    }

    /// Decides a batch for which there is room for `bytes`. Answers when, and whether bodies are to get memory of their own.
    fn decide(&mut self, batch: &mut [Op], mut bytes: usize) -> Result<(Moment, bool)> {
        // The same when it is decided again: what was a repetition must stay one.
        let moment = self.moment();
        loop {
            let mut state = self.shared.state.lock();
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            decide(&mut state, batch, moment);
            if bound(batch) <= bytes {
                return Ok((moment, state.memory > COMPACT));
            }
            // An answer that is remembered took the place of a smaller one.
            undo(&mut state, batch);
            drop(state);
            bytes = bound(batch);
            self.make_room(bytes, Priority::Settle)?;
        }
    }

    /// Writes the decided batch as one frame.
    fn store(&mut self, batch: &mut [Op], compact: bool) -> Result<Place, Failure> {
        let Some(log) = &mut self.log else {
            return Ok(Place::default());
        };
        self.encoder.begin();
        encode(batch, &mut self.encoder, compact);
        if self.encoder.is_empty() {
            return Ok(Place::default());
        }
        let segment = log.active().number();
        let frame = log.write(&mut self.encoder)? as u32;
        Ok(Place {
            segment,
            frame,
            at: 0,
        })
    }

    fn fail(&self, batch: Vec<Op>, failure: Failure) {
        undo(&mut self.shared.state.lock(), &batch);
        let error = self.refused(failure);
        batch.into_iter().for_each(|op| op.refuse(&error));
    }

    /// Commits one change.
    fn change(&mut self, change: &Change) -> Result<Changed> {
        self.make_room(CHANGE, Priority::Settle)?;
        let mut state = self.shared.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let moment = self.moment();
        let record = change::record(&mut state, change, moment)?;
        drop(state);
        if let (Some(log), Some(record)) = (&mut self.log, &record) {
            self.encoder.begin();
            self.encoder.record(record);
            if let Err(failure) = log.write(&mut self.encoder) {
                return Err(self.refused(failure));
            }
        }
        let mut after = After::default();
        let mut state = self.shared.state.lock();
        let changed = change::commit(&mut state, change, record, moment, &mut after);
        drop(state);
        after
            .wake
            .iter()
            .for_each(|changed| changed.notify_waiters());
        self.reclaim();
        Ok(changed)
    }

    /// What to answer to who asked for what failed. If nobody knows what is stored, that was the last commit.
    fn refused(&self, failure: Failure) -> Error {
        match failure {
            Failure::Undone(error) => {
                tracing::warn!(%error, "a commit failed and was taken back");
                error
            }
            Failure::Broken(error) => {
                tracing::error!(%error, "a commit failed; nothing more is accepted");
                let unknown = Error::unknown(error.code(), error.detail().to_owned());
                let mut state = self.shared.state.lock();
                state.failure = Some(error);
                let everyone: Vec<_> = state.topics().map(|(_, t)| t.changed.clone()).collect();
                drop(state);
                everyone.iter().for_each(|changed| changed.notify_waiters());
                unknown
            }
        }
    }

    /// Makes sure that a frame of `bytes` fits, if need be in another segment. Segments in which nothing is held end with the
    /// one before.
    fn make_room(&mut self, bytes: usize, priority: Priority) -> Result<()> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let bytes = (bytes + crate::log::frame::HEADER) as u64;
        if log.fits(bytes, priority) {
            return Ok(());
        }
        if let Some(failure) = &self.shared.state.lock().failure {
            return Err(failure.clone());
        }
        let mut prepared = log.next(bytes)?;
        let mut head = Encoder::default();
        let next = log.active().number() + 1;
        let dead = self.shared.state.lock().dead_segments(next);
        checkpoint(&self.shared, log.sealed_by_roll(&dead), &mut head);
        let length = head.frame().len() as u64;
        if HEAD + length + bytes > LARGEST {
            return Err(checkpoint_too_large(length));
        }
        if !Log::has_room(prepared.size, length, bytes) {
            let room = bytes.max(length).min(LARGEST - HEAD - length);
            prepared = log.next(length + room)?;
        }
        let rolled = log.roll(prepared, &mut head, &dead);
        let segment = log.active().clone();
        if let Err(failure) = rolled {
            return Err(self.refused(failure));
        }
        let mut state = self.shared.state.lock();
        state.add_segment(segment);
        state.forget_segments(&dead);
        Ok(())
    }

    /// Deletes segments in which nothing is held any more, as far as there is room to note it.
    pub(crate) fn reclaim(&mut self) {
        let Some(log) = &mut self.log else {
            return;
        };
        let mut state = self.shared.state.lock();
        let mut dead = state.dead_segments(log.active().number());
        dead.truncate(log.removable());
        if dead.is_empty() || state.failure.is_some() {
            return;
        }
        drop(state);
        match log.remove(&dead, &mut self.encoder) {
            Ok(()) => {
                state = self.shared.state.lock();
                state.forget_segments(&dead);
            }
            Err(failure) => {
                let error = self.refused(failure);
                tracing::warn!(%error, "segments that are no longer needed could not be deleted");
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.shared.clock.now(),
            unix_ms: (self.shared.unix_ms)(),
        }
    }
}

/// No more bytes than this are written for `batch`.
fn bound(batch: &[Op]) -> usize {
    batch.iter().map(Op::bound).sum()
}

/// How long to gather after a batch of `ops` whose write `took` so long.
fn gather(ops: usize, took: Duration) -> Duration {
    match ops < MANY {
        true => Duration::ZERO,
        false => (GATHER * took).min(GATHER_MOST),
    }
}

fn checkpoint_too_large(bytes: u64) -> Error {
    Error::unavailable(
        "checkpoint-too-large",
        format!(
            "what is known of topics and groups takes {bytes} bytes, which is more than a segment holds: settle what is pending, or remove \
             groups and topics"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_alone_does_not_wait_for_others_and_who_comes_with_many_not_for_long() {
        let quick = Duration::from_micros(150);
        assert_eq!(gather(1, quick), Duration::ZERO);
        assert_eq!(gather(100, quick), 2 * quick);
        assert_eq!(gather(100, Duration::from_secs(1)), GATHER_MOST);
    }
}
