//! Settlements as calls of the settle script.

use streamerson_core::broker::{Append, Outcome, Settlement};
use streamerson_core::{Error, ErrorKind, Result};

use super::settler::Seat;
use crate::append::{self, INBOX_BOUND, INBOX_TTL_MS};
use crate::output::{self, Topics};
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
        let sent: usize = outputs(&settlement).iter().map(output::sent).sum();
        if !call.is_empty() && (call.len() == MOST || bytes + sent > MOST_BYTES) {
            calls.push(std::mem::take(&mut call));
            bytes = 0;
        }
        bytes += sent;
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
    if let Outcome::Complete {
        once: Some(once), ..
    } = &settlement.outcome
    {
        once.check()?;
    }
    outputs.iter().try_for_each(append::check)
}

/// The call of the settle script for `settlements`.
pub(crate) fn request(seat: &Seat, settlements: &[Settlement]) -> Request {
    // Keys count from one, and the first two are taken.
    let topics = Topics::of(settlements.iter().flat_map(outputs), 3);
    let arguments: usize = settlements.iter().map(arguments).sum();
    let bytes: usize = settlements.iter().map(size).sum();
    let mut call = script::SETTLE.call(2 + topics.list().len(), 6 + arguments, 512 + bytes);
    call.arg(seat.stream.as_bytes());
    call.arg(seat.delays.as_bytes());
    for topic in topics.list() {
        seat.keys.write(&mut call, topic);
    }
    call.arg(seat.membership.group.as_str().as_bytes());
    call.arg(seat.membership.member.as_str().as_bytes());
    call.number(INBOX_BOUND);
    call.number(INBOX_TTL_MS);
    seat.write_fence(&mut call);
    for settlement in settlements {
        write(&mut call, settlement, &topics);
    }
    call
}

fn write(call: &mut Request, settlement: &Settlement, topics: &Topics<'_>) {
    let position = settlement.receipt.position();
    match &settlement.outcome {
        Outcome::Complete { outputs, once } => {
            match once {
                None => {
                    call.verbatim(b"$1\r\nC\r\n");
                    call.position(position);
                }
                Some(once) => {
                    call.verbatim(b"$1\r\nE\r\n");
                    call.position(position);
                    output::write_once(call, once);
                }
            }
            call.number(outputs.len() as u64);
            for output in outputs {
                output::write(call, output, topics);
            }
        }
        Outcome::Retry { after } => {
            call.verbatim(b"$1\r\nR\r\n");
            call.position(position);
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            call.number(after.min(LONGEST_DELAY_MS));
            call.number(settlement.receipt.attempt().into());
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
    let own = match &settlement.outcome {
        Outcome::Complete { once: None, .. } => 3,
        Outcome::Complete { once: Some(_), .. } => 5,
        Outcome::Retry { .. } => 4,
    };
    own + outputs(settlement)
        .iter()
        .map(output::arguments)
        .sum::<usize>()
}

fn size(settlement: &Settlement) -> usize {
    64 + outputs(settlement).iter().map(output::size).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::broker::Receipt;
    use streamerson_core::{Message, Position, Topic};

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
    fn a_call_is_bounded_in_count_and_bytes() {
        let batch = (0..300).map(|n| settlement(n, &["a"])).collect();
        let lengths: Vec<usize> = calls(batch).iter().map(Vec::len).collect();
        assert_eq!(lengths, [128, 128, 44]);

        let large = |n| {
            let mut settlement = settlement(n, &["a"]);
            if let Outcome::Complete { outputs, .. } = &mut settlement.outcome {
                outputs[0].message.data = vec![0; 600_000].into();
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
