//! How much a topic holds and how far its groups are.

use std::time::Duration;

use streamerson_core::stats::{GroupStats, MemberStats, TopicStats};
use streamerson_core::{Error, ErrorKind, Name, Position, Result, Topic};

use crate::broker::RedisBroker;
use crate::entry;
use crate::wire::{Reply, Request};

/// Not a member: holds what members that left gave back.
pub(crate) const RELEASED: &str = "~released";

pub(crate) async fn stats(broker: &RedisBroker, topic: &Topic) -> Result<TopicStats> {
    let about = format!("looking at topic {topic}");
    let key = broker.keys().stream(topic);
    let mut request = Request::of(&["XINFO", "STREAM", &key]);
    request.command(&["XINFO", "GROUPS", &key]);
    request.command(&["ZCARD", &broker.keys().later(topic)]);
    let mut answer = broker.commands().call(request, 3).await?;
    if answer.is_refused_with("ERR no such key") {
        return Err(not_found(topic));
    }
    let stream = answer.next(&about)?;
    let groups = answer.next(&about)?;
    let scheduled = answer.next(&about)?.as_number().unwrap_or_default();
    let last = position(stream.field("last-generated-id"));
    let mut stats = TopicStats {
        scheduled,
        length: number(&stream, "length"),
        appended: stream.field("entries-added").and_then(Reply::as_number),
        first: stream
            .field("first-entry")
            .and_then(Reply::as_list)
            .and_then(|entry| position(entry.first())),
        last,
        groups: Vec::new(),
    };
    for group in groups.as_list().unwrap_or_default() {
        stats
            .groups
            .extend(self::group(broker, topic, &about, group, last).await?);
    }
    stats.groups.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(stats)
}

/// `None` when the group was deleted meanwhile.
async fn group(
    broker: &RedisBroker,
    topic: &Topic,
    about: &str,
    info: &Reply,
    last: Option<Position>,
) -> Result<Option<GroupStats>> {
    let Some(name) = info.field("name").and_then(Reply::as_text) else {
        return Ok(None);
    };
    let Ok(group) = Name::new(name.to_owned()) else {
        return Ok(None);
    };
    let key = broker.keys().stream(topic);
    let delays = broker.keys().delays(topic, &group);
    let cursor = position(info.field("last-delivered-id"));
    let after = format!("({}", cursor.unwrap_or_default());
    let mut request = Request::of(&["XINFO", "CONSUMERS", &key, name]);
    request.command(&["XPENDING", &key, name]);
    request.command(&["ZCARD", &delays]);
    request.command(&["XRANGE", &key, &after, "+", "COUNT", "1"]);
    let mut answer = broker.commands().call(request, 4).await?;
    if answer.is_refused_with("NOGROUP") {
        return Ok(None);
    }
    let members = answer.next(about)?;
    let pending = answer.next(about)?;
    let retrying = answer.next(about)?.as_number().unwrap_or_default();
    let next = answer.next(about)?;
    let members = members.as_list().unwrap_or_default().iter();
    let mut members: Vec<MemberStats> = members.filter_map(member).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(GroupStats {
        name: name.to_owned(),
        cursor,
        lag: lag(info, cursor, last),
        next: next
            .as_list()
            .and_then(<[Reply]>::first)
            .and_then(Reply::as_list)
            .and_then(|entry| position(entry.first())),
        pending: number(info, "pending"),
        retrying,
        oldest_pending: pending
            .as_list()
            .and_then(|summary| position(summary.get(1))),
        members,
    }))
}

/// Redis tells the lag since 7.0, not after deletions in between, and not always right after a group began in the middle of
/// a stream; that there is none can always be told.
fn lag(info: &Reply, cursor: Option<Position>, last: Option<Position>) -> Option<u64> {
    match cursor >= last {
        true => Some(0),
        false => info.field("lag").and_then(Reply::as_number),
    }
}

fn member(info: &Reply) -> Option<MemberStats> {
    let name = info.field("name").and_then(Reply::as_text)?;
    (name != RELEASED).then(|| MemberStats {
        name: name.to_owned(),
        pending: number(info, "pending"),
        idle: Duration::from_millis(number(info, "idle")),
    })
}

fn number(info: &Reply, field: &str) -> u64 {
    info.field(field)
        .and_then(Reply::as_number)
        .unwrap_or_default()
}

/// A position, unless it stands before everything: then there is none.
fn position(id: Option<&Reply>) -> Option<Position> {
    let position = entry::position(id?.as_text()?.as_bytes()).ok()?;
    (position > Position::ZERO).then_some(position)
}

pub(crate) fn not_found(topic: &Topic) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "topic-not-found",
        format!("there is no topic {topic}; a topic begins with its first message"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_that_redis_does_not_tell_is_absent_unless_it_is_zero() {
        let at = |n| Some(Position::new(n, 0));
        let silent = Reply::List(vec![Reply::Text("lag".into()), Reply::Nil]);
        assert_eq!(lag(&silent, at(1), at(2)), None);
        assert_eq!(lag(&silent, at(2), at(2)), Some(0));
        assert_eq!(lag(&silent, None, None), Some(0));
        let told = Reply::List(vec![Reply::Text("lag".into()), Reply::Number(3)]);
        assert_eq!(lag(&told, at(1), at(2)), Some(3));
        // As seen of a group that was destroyed and created again, when all was delivered.
        assert_eq!(lag(&told, at(2), at(2)), Some(0));
    }
}
