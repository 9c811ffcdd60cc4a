//! The other steps of a commit: what is written, and, once it is, what becomes visible and who is answered.

use streamerson_core::time::Millis;
use streamerson_core::{Position, Result};
use tokio::sync::oneshot;

use super::cold::Place;
use super::op::{End, Op, Pending, Verdict};
use super::state::{After, State};
use super::terms::{self, Way};
use super::topic::Stored;
use crate::log::encode::Encoder;
use crate::log::record::{HeldRecord, Record};

/// Writes what was decided into a frame. With `compact`, bodies get memory of their own.
pub(crate) fn encode(batch: &mut [Op], encoder: &mut Encoder, compact: bool) {
    let mut put = Put { encoder, compact };
    for op in batch {
        match op {
            Op::Append { entries, .. } => {
                for entry in entries {
                    if let Ok(position) = entry.position {
                        put.entry(entry, position);
                    }
                }
            }
            Op::Settle { key, items, .. } => {
                for item in items {
                    match (&mut item.end, &item.verdict) {
                        (End::Complete(outputs), Verdict::Won(_)) => {
                            let count = standing(outputs);
                            let encoder = &mut *put.encoder;
                            encoder.settle(&key.topic, &key.group, item.position, count);
                            put.outputs(outputs);
                            if let Some(effect) = &item.effect {
                                effect.encode(put.encoder, key, outputs);
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
                            put.encoder.retry(&key.topic, &key.group, held);
                        }
                        _ => {}
                    }
                }
            }
            Op::Take {
                topic,
                position,
                outputs,
                taken: Ok(true),
                ..
            } => {
                put.encoder.taken(topic, *position, standing(outputs));
                put.outputs(outputs);
            }
            Op::Deliver { key, grants, .. } if !grants.is_empty() => {
                let grants = grants.iter().map(|grant| (grant.position, grant.attempt));
                put.encoder.record(&Record::Delivered {
                    topic: key.topic.clone(),
                    group: key.group.clone(),
                    grants: grants.collect(),
                });
            }
            Op::Take { .. } | Op::Deliver { .. } | Op::Change { .. } => {}
        }
    }
}

/// How many of `outputs` stand in the record they belong to; the others have records of their own.
fn standing(outputs: &[Pending]) -> u32 {
    let standing = outputs.iter().filter(|output| output.way() == Way::Stands);
    standing.count() as u32
}

/// Puts entries into a frame.
struct Put<'a> {
    encoder: &'a mut Encoder,
    compact: bool,
}

impl Put<'_> {
    fn entry(&mut self, entry: &mut Pending, position: Position) {
        entry.at = match entry.terms {
            None => self.encoder.append(&entry.topic, position, &entry.body),
            Some(_) => terms::encode(self.encoder, entry),
        };
        terms::encode_key(self.encoder, entry);
        self.compact(entry);
    }

    fn outputs(&mut self, outputs: &mut [Pending]) {
        let stands = |output: &&mut Pending| output.way() == Way::Stands;
        for output in outputs.iter_mut().filter(stands) {
            let position = output.position.clone().unwrap_or_default();
            output.at = self.encoder.output(&output.topic, position, &output.body);
            self.compact(output);
        }
        for output in outputs.iter_mut().filter(|output| output.terms.is_some()) {
            if output.way() != Way::Stands {
                output.at = terms::encode(self.encoder, output);
                self.compact(output);
            }
            terms::encode_key(self.encoder, output);
        }
    }

    fn compact(&self, entry: &mut Pending) {
        if self.compact {
            entry.body = entry.body.clone().compact();
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
    /// To who takes an entry out.
    Take(oneshot::Sender<Result<bool>>, Result<bool>),
    /// To who delivers again.
    Deliver(oneshot::Sender<Result<()>>),
}

impl Answer {
    /// Sends it. Who no longer waits does not need it.
    pub(crate) fn send(self) {
        match self {
            Answer::Append(to, results) => drop(to.send(results)),
            Answer::Settle(to, results) => drop(to.send(results)),
            Answer::Take(to, result) => drop(to.send(result)),
            Answer::Deliver(to) => drop(to.send(Ok(()))),
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
    let show = |state: &mut State, entry: Pending, position: Position, after: &mut After| {
        let place = Place {
            at: entry.at,
            ..place
        };
        if entry.terms.is_some() {
            return terms::apply(state, entry, place, now, after);
        }
        let stored = Stored {
            position,
            place,
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
                        entry.position = Ok(position);
                        show(state, entry, position, after);
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
                        (Verdict::Won(held), End::Complete(outputs)) => {
                            returned |= held.is_suspect();
                            for output in outputs {
                                let position = output.position.clone().unwrap_or_default();
                                show(state, output, position, after);
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
            Op::Take {
                topic,
                position,
                outputs,
                taken,
                answer,
            } => {
                if let Ok(true) = taken {
                    state.take_out(&topic, position, after);
                    for output in outputs {
                        let position = output.position.clone().unwrap_or_default();
                        show(state, output, position, after);
                    }
                }
                answers.push(Answer::Take(answer, taken));
            }
            Op::Deliver { answer, .. } => answers.push(Answer::Deliver(answer)),
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
