//! `take`: takes one entry out of a stream, and appends in the same step.
//!
//! `KEYS`: stream, output streams. `ARGV`: id, limit of inboxes, time to live of inboxes, outputs. Answers 1, or 0: it was not
//! there, and nothing happened.

use super::Call;
use super::outputs::Outputs;
use crate::port::commands::Answer;
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) async fn run(session: &Session, mut call: Call) -> Answer {
    let topic = call.topic(session.keys())?;
    let outputs = Outputs::of(&call, session.keys(), 2)?;
    let Call { arguments, .. } = &mut call;
    let position = arguments.id(0)?;
    let (_limit, _time_to_live) = (arguments.integer()?, arguments.integer()?);
    let outputs = outputs.rest(arguments)?;
    let taken = session.engine().take_out(&topic, position, outputs).await?;
    Ok(Reply::Integer(taken.into()))
}
