//! `seek`, `remove`, `divide`: a group goes on elsewhere, something goes, a topic is divided. `KEYS`: stream.
//!
//! * `seek`: group, where (an id, or `$`), fence lease, fence epoch. Creates the group if needed. Answers 1.
//! * `remove`: `topic`, or `group` and its name: answers 1, or 0: there was none; `members`, group, ms of silence: answers who went.
//! * `divide`: into how many partitions, or 0 to ask. Answers into how many it is; 0: it is not.

use super::Call;
use crate::engine::GroupKey;
use crate::port::commands::{Answer, no_group, start};
use crate::port::failure::Failure;
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) async fn seek(session: &Session, mut call: Call) -> Answer {
    let topic = call.topic(session.keys())?;
    let Call { arguments, .. } = &mut call;
    let group = arguments.name()?;
    let to = start(arguments)?;
    let fence = arguments.fence()?;
    let key = GroupKey { topic, group };
    let engine = session.engine();
    engine.begin_or_seek(&key, to, fence.as_ref()).await?;
    Ok(Reply::Integer(1))
}

pub(super) async fn remove(session: &Session, mut call: Call) -> Answer {
    let topic = call.topic(session.keys())?;
    let Call { arguments, .. } = &mut call;
    let engine = session.engine();
    match arguments.next()?.as_ref() {
        b"topic" => {
            let removed = engine.remove_topic(&topic).await?;
            Ok(Reply::Integer(removed.into()))
        }
        b"group" => {
            let group = arguments.name()?;
            let removed = engine.remove_group(&GroupKey { topic, group }).await?;
            Ok(Reply::Integer(removed.into()))
        }
        b"members" => {
            let (group, silent) = (arguments.name()?, arguments.millis()?);
            let key = GroupKey { topic, group };
            let gone = engine.with_group(&key, |group, now| group.remove_silent(silent, now));
            let gone = gone.map_err(|error| no_group(session, &key, error))?;
            let names = gone.iter().map(|name| Reply::text(name.as_str()));
            Ok(Reply::List(names.collect()))
        }
        _ => Err(Failure::err("remove: topic, group or members")),
    }
}

pub(super) async fn divide(session: &Session, mut call: Call) -> Answer {
    let topic = call.topic(session.keys())?;
    let partitions = call.arguments.count()?;
    let divided = match u32::try_from(partitions).unwrap_or(u32::MAX) {
        0 => session.engine().partitions(&topic),
        partitions => session.engine().divide(&topic, partitions).await?,
    };
    Ok(Reply::Integer(divided.into()))
}
