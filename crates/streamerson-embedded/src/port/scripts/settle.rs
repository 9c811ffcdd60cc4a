//! `settle`: ends deliveries, each with its outputs in one step.
//!
//! `KEYS`: stream, delay, output streams. `ARGV`: group, member, limit of inboxes, time to live of inboxes, fence lease, fence
//! epoch, then per delivery `C id n` with n outputs, `E id key ms n` with n outputs of an effect that happens once, or
//! `R id ms attempt`. Answers a list with 1 per delivery that was settled, 0 per one that was fenced. Inboxes are bounded by the
//! broker itself, whatever the arguments say.

use std::time::Duration;

use streamerson_core::{Append, Error, ErrorKind, Once, Outcome, Receipt, Settlement};

use super::outputs::Outputs;
use super::{Call, one_by_one};
use crate::port::arguments::Arguments;
use crate::port::commands::{Answer, no_key_or_group};
use crate::port::failure::Failure;
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) async fn run(session: &Session, mut call: Call) -> Answer {
    let (key, member) = call.membership(session.keys())?;
    let outputs = Outputs::of(&call, session.keys(), 3)?;
    let Call { arguments, .. } = &mut call;
    let (_limit, _time_to_live) = (arguments.integer()?, arguments.integer()?);
    let fence = arguments.fence()?;
    let mut batch = Vec::new();
    while arguments.left() > 0 {
        batch.push(settlement(arguments, &outputs)?);
    }
    let engine = session.engine();
    engine.check_fence(&key.topic, &member, fence.as_ref())?;
    let known = engine.with_group(&key, |_, _| ());
    known.map_err(|error| no_key_or_group(session, &key, error))?;
    let settled = engine.settle_fenced(&key, &member, fence.as_ref(), batch);
    let answer = |settled: Result<(), Error>| match settled {
        Ok(()) => Ok(Reply::Integer(1)),
        Err(error) if error.kind() == ErrorKind::Fenced => Ok(Reply::Integer(0)),
        Err(error) => Err(no_key_or_group(session, &key, error)),
    };
    one_by_one(settled.await.into_iter().map(answer).collect())
}

fn settlement(arguments: &mut Arguments, outputs: &Outputs) -> Result<Settlement, Failure> {
    let kind = arguments.next()?;
    let position = arguments.id(0)?;
    // Who completes need not say which attempt it is: the first settlement wins, whoever makes it.
    let receipt = Receipt::new(position, 0);
    match kind.as_ref() {
        b"C" => Ok(complete(receipt, appends(arguments, outputs)?)),
        b"E" => {
            let key = arguments.text()?;
            let keep = Duration::from_millis(arguments.millis()?);
            let settlement = complete(receipt, appends(arguments, outputs)?);
            Ok(settlement.once(Once::new(key, keep)))
        }
        b"R" => {
            let after = Duration::from_millis(arguments.millis()?);
            let attempt = u32::try_from(arguments.count()?).unwrap_or(u32::MAX);
            Ok(Settlement::retry(Receipt::new(position, attempt), after))
        }
        _ => Err(Failure::err("settle: a settlement begins with C, E or R")),
    }
}

fn complete(receipt: Receipt, outputs: Vec<Append>) -> Settlement {
    Settlement {
        receipt,
        outcome: Outcome::Complete {
            outputs,
            once: None,
        },
    }
}

fn appends(arguments: &mut Arguments, outputs: &Outputs) -> Result<Vec<Append>, Failure> {
    let count = arguments.count()?;
    let mut appends = Vec::new();
    for _ in 0..count {
        appends.push(outputs.next(arguments)?);
    }
    Ok(appends)
}
