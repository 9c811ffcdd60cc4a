//! `append`: appends messages on terms.
//!
//! `KEYS`: their streams. `ARGV`: outputs. Answers the id of each; `0-0` for one that is kept aside until it is due.

use super::outputs::Outputs;
use super::{Call, one_by_one};
use crate::port::commands::Answer;
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) async fn run(session: &Session, mut call: Call) -> Answer {
    let outputs = Outputs::of(&call, session.keys(), 1)?;
    let batch = outputs.rest(&mut call.arguments)?;
    let stored = session.engine().append_messages(batch).await;
    let answers = stored.into_iter().map(|stored| Ok(Reply::Id(stored?)));
    one_by_one(answers.collect())
}
