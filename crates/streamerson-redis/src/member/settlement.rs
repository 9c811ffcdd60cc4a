//! Settlements as calls of the settle script.

use std::collections::HashMap;

use streamerson_core::broker::{Append, Outcome, Settlement};
use streamerson_core::{Error, ErrorKind, Result, Topic};

use super::settler::Seat;
use crate::append::{INBOX_BOUND, INBOX_TTL_MS, too_large};
use crate::entry;
use crate::script;
use crate::wire::Request;

/// One call settles no more than this, so that Redis is not blocked for long: about a millisecond.
const MOST: usize = 128;
const MOST_BYTES: usize = 1024 * 1024;
/// The outputs of one settlement are one step, so they cannot be split.
const MOST_OUTPUTS: usize = 1000;
/// Longer delays than about 30 years are cut.
const LONGEST_DELAY_MS: u64 = 1 << 40;

/// Cuts `batch` into calls.
pub(crate) fn calls(batch: Vec<Settlement>) -> Vec<Vec<Settlement>> {
    let mut calls = Vec::new();
    let mut call = Vec::with_capacity(batch.len().min(MOST));
    let mut bytes = 0;
    for settlement in batch {
        let size = size(&settlement);
        if !call.is_empty() && (call.len() == MOST || bytes + size > MOST_BYTES) {
            calls.push(std::mem::take(&mut call));
            bytes = 0;
        }
        bytes += size;
        call.push(settlement);
    }
    calls.push(call);
    calls
}

/// Refuses what cannot be settled in one step.
pub(crate) fn check(settlement: &Settlement) -> Result<()> {
    let outputs = outputs(settlement);
    if outputs.len() > MOST_OUTPUTS {
        return Err(Error::new(
            ErrorKind::Invalid,
            "too-many-outputs",
            format!(
                "{} outputs of one delivery are more than {MOST_OUTPUTS}: append what need not appear in the same step",
                outputs.len()
            ),
        ));
    }
    outputs.iter().try_for_each(too_large)
}

/// The call of the settle script for `settlements`.
pub(crate) fn request(seat: &Seat, settlements: &[Settlement]) -> Request {
    let topics = Topics::of(settlements);
    let arguments: usize = settlements.iter().map(arguments).sum();
    let bytes: usize = settlements.iter().map(size).sum();
    let mut call = script::SETTLE.call(2 + topics.list.len(), 4 + arguments, 512 + bytes);
    call.arg(seat.stream.as_bytes());
    call.arg(seat.delays.as_bytes());
    for topic in &topics.list {
        seat.keys.write(&mut call, topic);
    }
    call.arg(seat.membership.group.as_str().as_bytes());
    call.arg(seat.membership.member.as_str().as_bytes());
    call.number(INBOX_BOUND);
    call.number(INBOX_TTL_MS);
    for settlement in settlements {
        write(&mut call, settlement, &topics);
    }
    call
}

fn write(call: &mut Request, settlement: &Settlement, topics: &Topics<'_>) {
    let position = settlement.receipt.position();
    match &settlement.outcome {
        Outcome::Complete { outputs, .. } => {
            call.verbatim(b"$1\r\nC\r\n");
            call.position(position);
            call.number(outputs.len() as u64);
            for output in outputs {
                call.number(topics.key(&output.topic));
                call.arg(if output.topic.is_inbox() { b"1" } else { b"0" });
                entry::write_values(call, &output.message);
            }
        }
        Outcome::Retry { after } => {
            call.verbatim(b"$1\r\nR\r\n");
            call.position(position);
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            call.number(after.min(LONGEST_DELAY_MS));
        }
    }
}

fn outputs(settlement: &Settlement) -> &[Append] {
    match &settlement.outcome {
        Outcome::Complete { outputs, .. } => outputs,
        Outcome::Retry { .. } => &[],
    }
}

fn arguments(settlement: &Settlement) -> usize {
    3 + 8 * outputs(settlement).len()
}

fn size(settlement: &Settlement) -> usize {
    let outputs = outputs(settlement).iter();
    64 + outputs
        .map(|output| entry::copied(&output.message) + 64)
        .sum::<usize>()
}

/// The topics that outputs go to, each once.
struct Topics<'a> {
    list: Vec<&'a Topic>,
    numbers: HashMap<&'a Topic, u64, ahash::RandomState>,
}

impl<'a> Topics<'a> {
    fn of(settlements: &'a [Settlement]) -> Topics<'a> {
        let mut topics = Topics {
            list: Vec::new(),
            numbers: HashMap::default(),
        };
        for output in settlements.iter().flat_map(outputs) {
            // Neighbours often go to the same place.
            if topics.list.last() == Some(&&output.topic) {
                continue;
            }
            // Keys count from one, and the first two are taken.
            let next = topics.list.len() as u64 + 3;
            topics.numbers.entry(&output.topic).or_insert_with(|| {
                topics.list.push(&output.topic);
                next
            });
        }
        topics
    }

    fn key(&self, topic: &Topic) -> u64 {
        self.numbers.get(topic).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::broker::Receipt;
    use streamerson_core::{Message, Position};

    fn settlement(n: u64, outputs: &[&str]) -> Settlement {
        let output = |topic: &&str| {
            Append::new(
                Topic::new(topic.to_string()).unwrap(),
                Message::new("t", "d"),
            )
        };
        Settlement::complete_with(
            Receipt::new(Position::new(n, 0), 1),
            outputs.iter().map(output).collect(),
        )
    }

    #[test]
    fn each_topic_is_a_key_once() {
        let batch = [settlement(1, &["a", "b"]), settlement(2, &["b", "a", "c"])];
        let topics = Topics::of(&batch);
        let names: Vec<&str> = topics.list.iter().map(|topic| topic.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(topics.key(&Topic::new("c").unwrap()), 5);
    }

    #[test]
    fn a_call_is_bounded_in_count_and_bytes() {
        let batch = (0..300).map(|n| settlement(n, &["a"])).collect();
        let lengths: Vec<usize> = calls(batch).iter().map(Vec::len).collect();
        assert_eq!(lengths, [128, 128, 44]);

        let large = |n| {
            let mut settlement = settlement(n, &["a"]);
            if let Outcome::Complete { outputs, .. } = &mut settlement.outcome {
                outputs[0].message.kind = "k".repeat(600_000).into();
            }
            settlement
        };
        let lengths: Vec<usize> = calls((0..3).map(large).collect())
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(lengths, [1, 1, 1]);
    }

    #[test]
    fn too_many_outputs_are_refused() {
        assert!(check(&settlement(1, &["a"; 1000])).is_ok());
        assert_eq!(
            check(&settlement(1, &["a"; 1001])).unwrap_err().code(),
            "too-many-outputs"
        );
    }
}
