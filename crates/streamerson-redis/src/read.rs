//! Readers: everything in one topic, in order. An inbox is a reader of an address that nobody can guess.

use std::collections::VecDeque;

use futures::FutureExt;
use futures::future::BoxFuture;
use streamerson_core::broker::{Entry, Inbox, Reader};
use streamerson_core::{Position, Result, Start, Topic, message};

use crate::broker::RedisBroker;
use crate::connection::Waiting;
use crate::entry;
use crate::wire::{Malformed, Reply, Request, Walk};

/// The most entries asked for at once.
const MOST: usize = 4096;

pub(crate) struct RedisReader {
    waiting: Waiting,
    key: String,
    about: String,
    cursor: Position,
    /// Read for a call that was cancelled, and not answered yet.
    ready: VecDeque<Entry>,
}

pub(crate) async fn open(broker: &RedisBroker, topic: &Topic, start: Start) -> Result<RedisReader> {
    let mut waiting = Waiting::new(broker.connector().clone());
    waiting.connect().await?;
    let key = broker.keys().stream(topic);
    let cursor = match start {
        Start::Earliest => Position::ZERO,
        Start::After(position) => position,
        Start::Latest => newest(broker, topic, &key).await?,
    };
    Ok(RedisReader {
        waiting,
        key,
        about: format!("reading topic {topic}"),
        cursor,
        ready: VecDeque::new(),
    })
}

pub(crate) async fn inbox(broker: &RedisBroker) -> Result<Inbox> {
    let address = Topic::inbox(&message::new_id())?;
    let reader = open(broker, &address, Start::Earliest).await?;
    Ok(Inbox {
        address,
        reader: Box::new(reader),
    })
}

/// The newest position, pinned once: asking for `$` again and again loses what is appended in between.
async fn newest(broker: &RedisBroker, topic: &Topic, key: &str) -> Result<Position> {
    let request = Request::of(&["XREVRANGE", key, "+", "-", "COUNT", "1"]);
    let mut answer = broker.commands().call(request, 1).await?;
    let reply = answer.next(format_args!("reading topic {topic}"))?;
    let first = reply.as_list().and_then(<[Reply]>::first);
    let id = first
        .and_then(Reply::as_list)
        .and_then(<[Reply]>::first)
        .and_then(Reply::as_text);
    match id {
        Some(id) => Ok(entry::position(id.as_bytes())?),
        None => Ok(Position::ZERO),
    }
}

/// What stands after a position, without waiting.
pub(crate) async fn range(
    broker: &RedisBroker,
    topic: &Topic,
    after: Position,
    max: usize,
) -> Result<Vec<Entry>> {
    if max == 0 {
        return Ok(Vec::new());
    }
    let key = broker.keys().stream(topic);
    let mut request = Request::with_capacity(128 + key.len());
    request.head(6);
    request.arg(b"XRANGE");
    request.arg(key.as_bytes());
    request.position(after.successor(0));
    request.arg(b"+");
    request.arg(b"COUNT");
    request.number(max.min(MOST) as u64);
    let answer = broker.commands().call(request, 1).await?;
    let mut walk = answer.into_walk(format_args!("reading topic {topic}"))?;
    let mut entries = Vec::new();
    entry::read_entries(&mut walk, |entry| entries.push(entry))?;
    Ok(entries)
}

/// A read that waits for up to `max` entries after `cursor`.
pub(crate) fn waiting(key: &str, cursor: Position, max: usize) -> Request {
    let mut request = Request::with_capacity(128 + key.len());
    request.head(8);
    request.arg(b"XREAD");
    request.arg(b"COUNT");
    request.number(max as u64);
    request.arg(b"BLOCK");
    request.number(Waiting::hold());
    request.arg(b"STREAMS");
    request.arg(key.as_bytes());
    request.position(cursor);
    request
}

impl RedisReader {
    async fn read(&mut self, max: usize) -> Result<Vec<Entry>> {
        let max = max.clamp(1, MOST);
        while self.ready.is_empty() {
            let RedisReader {
                waiting,
                key,
                about,
                cursor,
                ..
            } = self;
            let command = || self::waiting(key, *cursor, max);
            let mut arrival = waiting.ask(about, command).await?;
            self.absorb(&mut arrival.walk)?;
        }
        if self.ready.len() <= max {
            return Ok(std::mem::take(&mut self.ready).into());
        }
        Ok(self.ready.drain(..max).collect())
    }

    fn absorb(&mut self, walk: &mut Walk) -> Result<(), Malformed> {
        entry::read_stream(walk, |entry| {
            self.cursor = entry.position;
            self.ready.push_back(entry);
        })
    }
}

impl Reader for RedisReader {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Entry>>> {
        self.read(max).boxed()
    }
}
