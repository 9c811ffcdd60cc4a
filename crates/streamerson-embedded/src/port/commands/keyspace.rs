//! Commands about keys as such: what there is, of which kind, and for how long.

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::group::{Group, Holding};

use super::{Answer, Arguments, Command, READ, Run, Session, WRITE};
use crate::engine::TopicView;
use crate::port::failure::Failure;
use crate::port::glob;
use crate::port::keys::Key;
use crate::port::reply::Reply;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("exists", -2, Run::Now(exists))
        .flags(READ)
        .keys(1, -1, 1),
    Command::new("type", 2, Run::Now(kind))
        .flags(READ)
        .keys(1, 1, 1),
    Command::new("keys", 2, Run::Now(keys)).flags(READ),
    Command::new("scan", -2, Run::Now(scan)).flags(READ),
    Command::new("del", -2, Run::Later(delete))
        .flags(WRITE)
        .keys(1, -1, 1),
    Command::new("unlink", -2, Run::Later(delete))
        .flags(WRITE)
        .keys(1, -1, 1),
    Command::new("expire", -3, Run::Now(expire))
        .flags(WRITE)
        .keys(1, 1, 1),
    Command::new("pexpire", -3, Run::Now(expire))
        .flags(WRITE)
        .keys(1, 1, 1),
    Command::new("ttl", 2, Run::Now(left_seconds))
        .flags(READ)
        .keys(1, 1, 1),
    Command::new("pttl", 2, Run::Now(left_millis))
        .flags(READ)
        .keys(1, 1, 1),
];

impl Key {
    /// The type that Redis gives it; `none` if there is no such key.
    pub(super) fn kind(&self, session: &Session) -> &'static str {
        let engine = session.engine();
        match self {
            Key::Stream(topic) => engine.with_topic(topic, |_| "stream").unwrap_or("none"),
            Key::Delay(key) => match engine.with_group(key, |group, _| has_retries(group)) {
                Ok(true) => "zset",
                // No such group: nothing waits.
                Ok(false) | Err(_) => "none",
            },
            Key::Later(topic) => match engine.with_topic(topic, |view| view.scheduled) {
                None | Some(0) => "none",
                Some(_) => "zset",
            },
        }
    }
}

/// Every key there is, with its kind.
pub(super) fn all(session: &Session) -> Vec<(String, &'static str)> {
    let keys = session.keys();
    let mut all = Vec::new();
    for topic in session.engine().topics() {
        all.push((keys.of_stream(&topic), "stream"));
        let delays = |view: &TopicView<'_>| {
            let waiting = view.groups.iter().filter(|(_, group)| has_retries(group));
            all.extend(waiting.map(|(name, _)| (keys.of_delay(&topic, name), "zset")));
            if view.scheduled > 0 {
                all.push((keys.of_later(&topic), "zset"));
            }
        };
        session.engine().with_topic(&topic, delays);
    }
    all
}

/// Whether anything of `group` waits for its retry.
fn has_retries(group: &Group) -> bool {
    // Cheap to ask, and mostly enough.
    group.next_claim(u64::MAX).is_some()
        && group
            .held()
            .any(|(_, held)| matches!(held.state, Holding::Released { .. }))
}

fn exists(session: &mut Session, arguments: Arguments) -> Answer {
    let mut count = 0;
    for key in arguments.rest() {
        count += usize::from(session.keys().parse(key)?.kind(session) != "none");
    }
    Ok(Reply::count(count))
}

fn kind(session: &mut Session, mut arguments: Arguments) -> Answer {
    let key = session.keys().parse(&arguments.next()?)?;
    Ok(Reply::Simple(key.kind(session)))
}

fn keys(session: &mut Session, mut arguments: Arguments) -> Answer {
    let pattern = arguments.next()?;
    let found = all(session)
        .into_iter()
        .filter(|(key, _)| glob::matches(&pattern, key.as_bytes()));
    Ok(Reply::List(
        found.map(|(key, _)| Reply::text(key)).collect(),
    ))
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`: everything at once, as keys here are topics and not many.
fn scan(session: &mut Session, mut arguments: Arguments) -> Answer {
    let cursor = arguments.next()?;
    let cursor: u64 = std::str::from_utf8(&cursor)
        .ok()
        .and_then(|cursor| cursor.parse().ok())
        .ok_or_else(|| Failure::err("invalid cursor"))?;
    let (mut pattern, mut kind) = (None, None);
    while arguments.left() > 0 {
        if arguments.accept("match") {
            pattern = Some(arguments.next()?);
        } else if arguments.accept("type") {
            kind = Some(arguments.next()?.to_ascii_lowercase());
        } else if arguments.accept("count") {
            if arguments.integer()? < 1 {
                return Err(Failure::SYNTAX);
            }
        } else {
            return Err(Failure::SYNTAX);
        }
    }
    let found = |(key, of): &(String, &'static str)| {
        cursor == 0
            && pattern
                .as_ref()
                .is_none_or(|pattern| glob::matches(pattern, key.as_bytes()))
            && kind.as_ref().is_none_or(|kind| kind == of.as_bytes())
    };
    let keys = all(session)
        .into_iter()
        .filter(found)
        .map(|(key, _)| Reply::text(key));
    Ok(Reply::List(vec![
        Reply::text("0"),
        Reply::List(keys.collect()),
    ]))
}

/// `DEL key…`, `UNLINK key…`: for inboxes only. All keys are looked at before any is removed.
fn delete(session: &mut Session, arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let mut inboxes = Vec::new();
        for key in arguments.rest() {
            let place = session.keys().parse(key)?;
            match place {
                Key::Stream(topic) if topic.is_inbox() => inboxes.push(topic),
                place if place.kind(session) == "none" => {}
                _ => {
                    return Err(Failure::err(format_args!(
                        "'{}' is not an inbox, and topics are not deleted through this port: XTRIM removes what was \
                         processed",
                        String::from_utf8_lossy(key)
                    )));
                }
            }
        }
        let mut removed = 0;
        for inbox in inboxes {
            removed += usize::from(session.engine().remove_topic(&inbox).await?);
        }
        Ok(Reply::count(removed))
    }
    .boxed()
}

/// Inboxes expire by themselves, a while after the last reply came. Asking for it changes nothing, and is answered as
/// done; topics do not expire at all.
fn expire(session: &mut Session, mut arguments: Arguments) -> Answer {
    let key = session.keys().parse(&arguments.next()?)?;
    arguments.integer()?;
    match &key {
        _ if key.kind(session) == "none" => Ok(Reply::Integer(0)),
        Key::Stream(topic) if topic.is_inbox() => Ok(Reply::Integer(1)),
        _ => Err(Failure::err(
            "only inboxes expire; XTRIM removes from a topic what was processed",
        )),
    }
}

fn left_millis(session: &mut Session, arguments: Arguments) -> Answer {
    left(session, arguments, 1)
}

fn left_seconds(session: &mut Session, arguments: Arguments) -> Answer {
    left(session, arguments, 1000)
}

/// -2: there is no such key; -1: it does not expire.
fn left(session: &mut Session, mut arguments: Arguments, unit: u64) -> Answer {
    let key = session.keys().parse(&arguments.next()?)?;
    let expires = match &key {
        _ if key.kind(session) == "none" => return Ok(Reply::Integer(-2)),
        Key::Stream(topic) => session
            .engine()
            .with_topic(topic, |view| view.expires)
            .flatten(),
        Key::Delay(_) | Key::Later(_) => None,
    };
    let Some(expires) = expires else {
        return Ok(Reply::Integer(-1));
    };
    let left = expires
        .saturating_sub(session.engine().now())
        .div_ceil(unit);
    Ok(Reply::Integer(i64::try_from(left).unwrap_or(i64::MAX)))
}
