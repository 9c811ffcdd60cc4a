//! The other steps of a commit: what is written, and, once it is, what becomes visible and who is answered.

use streamerson_core::time::Millis;
use streamerson_core::{Position, Result};
use tokio::sync::oneshot;

use super::cold::Place;
use super::op::{End, Op, Pending, Verdict};
use super::state::{After, State};
use super::topic::Stored;
use crate::log::encode::Encoder;
use crate::log::record::HeldRecord;

/// Writes what was decided into a frame. With `compact`, bodies get memory of their own.
pub(crate) fn encode(batch: &mut [Op], encoder: &mut Encoder, compact: bool) {
    let put = |encoder: &mut Encoder, entry: &mut Pending, position, output| {
        entry.at = match output {
            true => encoder.output(&entry.topic, position, &entry.body),
            false => encoder.append(&entry.topic, position, &entry.body),
        };
        if compact {
            entry.body = entry.body.clone().compact();
        }
    };
    for op in batch {
        match op {
            Op::Append { entries, .. } => {
                for entry in entries {
                    if let Ok(position) = entry.position {
                        put(encoder, entry, position, false);
                    }
                }
            }
            Op::Settle { key, items, .. } => {
                for item in items {
                    match (&mut item.end, &item.verdict) {
                        (End::Complete(outputs), Verdict::Won(_)) => {
                            let count = outputs.len() as u32;
                            encoder.settle(&key.topic, &key.group, item.position, count);
                            for output in outputs {
                                let position = output.position.clone().unwrap_or_default();
                                put(encoder, output, position, true);
                            }
                        }
                        (
                            _,
                            Verdict::Returned {
                                before,
                                due_unix_ms,
                            },
                        ) => {
                            let held = HeldRecord {
                                position: item.position,
                                due_unix_ms: *due_unix_ms,
                                attempt: before.attempt,
                            };
                            encoder.retry(&key.topic, &key.group, held);
                        }
                        _ => {}
                    }
                }
            }
            Op::Change { .. } => {}
        }
    }
}

/// An answer, to be sent once the lock is released.
pub(crate) enum Answer {
    /// To an append.
    Append(
        oneshot::Sender<Vec<Result<Position>>>,
        Vec<Result<Position>>,
    ),
    /// To settlements.
    Settle(oneshot::Sender<Vec<Result<()>>>, Vec<Result<()>>),
}

impl Answer {
    /// Sends it. Who no longer waits does not need it.
    pub(crate) fn send(self) {
        match self {
            Answer::Append(to, results) => drop(to.send(results)),
            Answer::Settle(to, results) => drop(to.send(results)),
        }
    }
}

/// Makes a committed batch visible; its frame stands at `place`.
pub(crate) fn apply(
    state: &mut State,
    batch: Vec<Op>,
    place: Place,
    now: Millis,
    after: &mut After,
) -> Vec<Answer> {
    let mut show = |state: &mut State, entry: Pending, position: Position| {
        let stored = Stored {
            position,
            place: Place {
                at: entry.at,
                ..place
            },
            body: entry.body,
        };
        state.show(&entry.topic, stored, now, after);
    };
    let mut answers = Vec::with_capacity(batch.len());
    let mut settled = Vec::new();
    for op in batch {
        match op {
            Op::Append { entries, answer } => {
                let mut results = Vec::with_capacity(entries.len());
                for mut entry in entries {
                    let result = std::mem::replace(&mut entry.position, Ok(Position::ZERO));
                    if let Ok(position) = result {
                        show(state, entry, position);
                    }
                    results.push(result);
                }
                answers.push(Answer::Append(answer, results));
            }
            Op::Settle {
                key, items, answer, ..
            } => {
                let mut results = Vec::with_capacity(items.len());
                let mut returned = false;
                for item in items {
                    results.push(match (item.verdict, item.end) {
                        (Verdict::Won(_), End::Complete(outputs)) => {
                            for output in outputs {
                                let position = output.position.clone().unwrap_or_default();
                                show(state, output, position);
                            }
                            Ok(())
                        }
                        (Verdict::Lost(error), _) => Err(error),
                        _ => {
                            returned = true;
                            Ok(())
                        }
                    });
                }
                settled.push((key.topic, returned));
                answers.push(Answer::Settle(answer, results));
            }
            Op::Change { .. } => {}
        }
    }
    for (topic, returned) in settled {
        state.forget_processed(&topic, after);
        if returned && let Some(topic) = state.topic(&topic) {
            after.wake.push(topic.changed.clone());
        }
    }
    state.evict(after);
    answers
}
