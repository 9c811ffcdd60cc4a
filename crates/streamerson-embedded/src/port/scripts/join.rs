//! `join`: makes a member known, and its group where there is none.
//!
//! `KEYS`: stream, delay. `ARGV`: group, member, where a new group begins, fence lease, fence epoch, 1 if the member knows that
//! there was a group. Answers 1 if that was lost and is there again, and up to where the group was delivered.

use super::Call;
use crate::port::commands::{Answer, no_key_or_group, start};
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) async fn run(session: &Session, mut call: Call) -> Answer {
    let (key, member) = call.membership(session.keys())?;
    let Call { arguments, .. } = &mut call;
    let begin = start(arguments)?;
    let fence = arguments.fence()?;
    let was_there = arguments.count()? == 1;
    let engine = session.engine();
    engine.check_fence(&key.topic, &member, fence.as_ref())?;
    let begins_again = engine.begin_group(&key, begin, was_there).await?;
    let joined = engine.join(&key, &member, fence.as_ref());
    let cursor = joined.map_err(|error| no_key_or_group(session, &key, error))?;
    Ok(Reply::List(vec![
        Reply::Integer(begins_again.into()),
        Reply::Id(cursor),
    ]))
}
