//! `settle`: ends deliveries, each with its outputs in one step.
//!
//! `KEYS`: stream, delay, output streams. `ARGV`: group, member, limit of inboxes, time to live of inboxes, then per
//! delivery `C id n` with n outputs of eight (key number, inbox flag, the six fields of the message), or `R id ms`.
//! Answers a list with 1 per delivery that was settled, 0 per one that was fenced. Inboxes are bounded by the broker
//! itself, whatever the arguments say.

use std::time::Duration;

use streamerson_core::{Append, ErrorKind, Message, Outcome, Receipt, Settlement, Topic};

use super::Call;
use crate::port::arguments::Arguments;
use crate::port::commands::{Answer, no_key_or_group};
use crate::port::failure::Failure;
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) async fn run(session: &Session, mut call: Call) -> Answer {
    let (key, member) = call.membership(session.keys())?;
    let outputs = outputs(session, &call)?;
    let Call { arguments, .. } = &mut call;
    let (_limit, _time_to_live) = (arguments.integer()?, arguments.integer()?);
    let mut batch = Vec::new();
    while arguments.left() > 0 {
        batch.push(settlement(arguments, &outputs)?);
    }
    let engine = session.engine();
    let known = engine.with_group(&key, |_, _| ());
    known.map_err(|error| no_key_or_group(session, &key, error))?;
    let mut answers = Vec::with_capacity(batch.len());
    for result in engine.settle(&key, &member, batch).await {
        match result {
            Ok(()) => answers.push(Reply::Integer(1)),
            Err(error) if error.kind() == ErrorKind::Fenced => answers.push(Reply::Integer(0)),
            Err(error) => return Err(no_key_or_group(session, &key, error)),
        }
    }
    Ok(Reply::List(answers))
}

/// The topics that outputs may name, by their place among the keys: the third on.
fn outputs(session: &Session, call: &Call) -> Result<Vec<Topic>, Failure> {
    let keys = call.keys.iter().skip(2);
    keys.map(|key| session.keys().stream(key)).collect()
}

fn settlement(arguments: &mut Arguments, outputs: &[Topic]) -> Result<Settlement, Failure> {
    let kind = arguments.next()?;
    // Which attempt it is does not matter: the first settlement wins, whoever makes it.
    let receipt = Receipt::new(arguments.id(0)?, 0);
    let outcome = match kind.as_ref() {
        b"C" => Outcome::Complete {
            outputs: appends(arguments, outputs)?,
            once: None,
        },
        b"R" => Outcome::Retry {
            after: Duration::from_millis(arguments.millis()?),
        },
        _ => return Err(Failure::err("settle: a settlement begins with C or R")),
    };
    Ok(Settlement { receipt, outcome })
}

fn appends(arguments: &mut Arguments, outputs: &[Topic]) -> Result<Vec<Append>, Failure> {
    let count = arguments.count()?;
    let mut appends = Vec::new();
    for _ in 0..count {
        let number = arguments.count()?;
        let topic = number.checked_sub(3).and_then(|index| outputs.get(index));
        let topic =
            topic.ok_or_else(|| Failure::err("settle: an output names a key that is not there"))?;
        let _inbox = arguments.next()?;
        let message = Message {
            id: arguments.text()?,
            kind: arguments.text()?,
            corr: arguments.text()?,
            reply: arguments.text()?,
            meta: arguments.next()?,
            data: arguments.next()?,
        };
        appends.push(Append::new(topic.clone(), message));
    }
    Ok(appends)
}
