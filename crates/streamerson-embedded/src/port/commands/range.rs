//! Reading streams: `XLEN`, `XRANGE`, `XREVRANGE`, `XREAD`.

use std::ops::RangeInclusive;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{Position, Topic};

use super::reading::Reading;
use super::{Answer, Arguments, Command, READ, Run, Session};
use crate::engine::Direction;
use crate::port::arguments;
use crate::port::failure::Failure;
use crate::port::reply::Reply;
use crate::port::waiting::Waiting;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("xlen", 2, Run::Now(length))
        .flags(READ)
        .keys(1, 1, 1),
    Command::new("xrange", -4, Run::Later(forward))
        .flags(READ)
        .keys(1, 1, 1),
    Command::new("xrevrange", -4, Run::Later(backward))
        .flags(READ)
        .keys(1, 1, 1),
    Command::new("xread", -4, Run::Blocking(read)).flags(READ),
];

const LAST: Position = Position::new(u64::MAX, u64::MAX);
/// The largest range, in bytes.
const MOST: usize = 64 * 1024 * 1024;
/// Who reads on gets no more than this at a time, and asks again from where it stands.
const ENOUGH: usize = 8 * 1024 * 1024;
/// Entries asked of the engine at a time.
const PAGE: usize = 1024;

fn length(session: &mut Session, mut arguments: Arguments) -> Answer {
    let topic = session.keys().stream(&arguments.next()?)?;
    let length = session.engine().with_topic(&topic, |view| view.length);
    Ok(Reply::Integer(length.unwrap_or(0) as i64))
}

fn forward(session: &mut Session, arguments: Arguments) -> BoxFuture<'_, Answer> {
    range(session, arguments, Direction::Forward).boxed()
}

fn backward(session: &mut Session, arguments: Arguments) -> BoxFuture<'_, Answer> {
    range(session, arguments, Direction::Backward).boxed()
}

/// `XRANGE key start end [COUNT count]`, and the same from the end.
async fn range(session: &mut Session, mut arguments: Arguments, direction: Direction) -> Answer {
    let topic = session.keys().stream(&arguments.next()?)?;
    let (mut start, mut end) = (arguments.next()?, arguments.next()?);
    if direction == Direction::Backward {
        std::mem::swap(&mut start, &mut end);
    }
    let (from, to) = (lower(&start)?, upper(&end)?);
    let mut most = usize::MAX;
    while arguments.left() > 0 {
        if !arguments.accept("count") {
            return Err(Failure::SYNTAX);
        }
        most = arguments.count()?;
    }
    if most == 0 && session.engine().with_topic(&topic, |_| ()).is_some() {
        return Ok(Reply::NilList);
    }
    let read = collect(session, &topic, from..=to, direction, (most, MOST)).await?;
    if read.bytes > MOST {
        return Err(Failure::err(format_args!(
            "the answer would be larger than {} MiB: ask for less, with COUNT",
            MOST >> 20
        )));
    }
    Ok(Reply::List(read.entries))
}

/// Entries of a stream.
struct Read {
    entries: Vec<Reply>,
    /// Their size.
    bytes: usize,
}

/// Reads entries page by page, up to so many, or until they are more than so many bytes.
async fn collect(
    session: &Session,
    topic: &Topic,
    range: RangeInclusive<Position>,
    direction: Direction,
    (most, most_bytes): (usize, usize),
) -> Result<Read, Failure> {
    let (mut from, mut to) = range.into_inner();
    let mut entries = Vec::new();
    let mut bytes = 0;
    while entries.len() < most && bytes <= most_bytes && from <= to {
        let max = PAGE.min(most - entries.len());
        let page = session
            .engine()
            .range(topic, from, to, max, direction)
            .await?;
        let next = page.last().and_then(|(last, _)| match direction {
            Direction::Forward => successor(*last),
            Direction::Backward => predecessor(*last),
        });
        for (position, body) in page {
            bytes += body.footprint();
            entries.push(Reply::Entry(position, Some(body)));
        }
        match (next, direction) {
            (Some(next), Direction::Forward) => from = next,
            (Some(next), Direction::Backward) => to = next,
            (None, _) => break,
        }
    }
    Ok(Read { entries, bytes })
}

pub(super) fn successor(position: Position) -> Option<Position> {
    (position < LAST).then(|| position.successor(0))
}

fn predecessor(position: Position) -> Option<Position> {
    match (position.major(), position.minor()) {
        (0, 0) => None,
        (major, 0) => Some(Position::new(major - 1, u64::MAX)),
        (major, minor) => Some(Position::new(major, minor - 1)),
    }
}

/// The lower end of a range: `-`, an id, or `(` and an id that does not belong to it.
pub(in crate::port) fn lower(text: &Bytes) -> Result<Position, Failure> {
    match text.as_ref() {
        b"-" => Ok(Position::ZERO),
        b"+" => Ok(LAST),
        [b'(', id @ ..] => {
            let position = arguments::id(id, 0).ok_or(Failure::INVALID_ID)?;
            successor(position).ok_or_else(|| Failure::err("invalid start ID for the interval"))
        }
        id => arguments::id(id, 0).ok_or(Failure::INVALID_ID),
    }
}

/// The upper end of a range: `+`, an id, or `(` and an id that does not belong to it.
pub(super) fn upper(text: &Bytes) -> Result<Position, Failure> {
    match text.as_ref() {
        b"-" => Ok(Position::ZERO),
        b"+" => Ok(LAST),
        [b'(', id @ ..] => {
            let position = arguments::id(id, u64::MAX).ok_or(Failure::INVALID_ID)?;
            predecessor(position).ok_or_else(|| Failure::err("invalid end ID for the interval"))
        }
        id => arguments::id(id, u64::MAX).ok_or(Failure::INVALID_ID),
    }
}

/// `XREAD [COUNT count] [BLOCK milliseconds] STREAMS key… id…`
fn read(session: &mut Session, arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let reading = Reading::parse(session.keys(), arguments, false)?;
        let mut streams = Vec::with_capacity(reading.streams.len());
        for stream in &reading.streams {
            let after = match stream.id.as_ref() {
                b"$" => last(session, &stream.topic),
                b">" => {
                    return Err(Failure::err(
                        "The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> \
                         option.",
                    ));
                }
                id => arguments::id(id, 0).ok_or(Failure::INVALID_ID)?,
            };
            streams.push((stream, after));
        }
        let session = &*session;
        let waiting = Waiting::new(session, reading.block);
        loop {
            let news = waiting.listen(session, reading.streams.iter().map(|stream| &stream.topic));
            let (mut found, mut room) = (Vec::new(), ENOUGH);
            for (stream, after) in &streams {
                let Some(from) = successor(*after).filter(|_| room > 0) else {
                    continue;
                };
                let most = (reading.count, room);
                let read = collect(session, &stream.topic, from..=LAST, Direction::Forward, most).await?;
                room = room.saturating_sub(read.bytes);
                if !read.entries.is_empty() {
                    found.push(stream.reply(read.entries));
                }
            }
            if !found.is_empty() {
                return Ok(Reply::Streams(found));
            }
            if !waiting.news(news).await {
                return Ok(Reply::NilList);
            }
        }
    }
    .boxed()
}

fn last(session: &Session, topic: &Topic) -> Position {
    let last = session.engine().with_topic(topic, |view| view.last);
    last.flatten().unwrap_or_default()
}
