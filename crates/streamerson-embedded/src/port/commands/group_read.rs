//! `XREADGROUP`: deliveries.

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::group::Held;
use streamerson_core::{ErrorKind, Name, Position, Receipt, Settlement};

use super::reading::{Reading, Stream};
use super::{Answer, Arguments, Command, Run, Session, WRITE};
use crate::body::footprint;
use crate::engine::{GroupKey, Want, Work};
use crate::port::arguments;
use crate::port::failure::Failure;
use crate::port::reply::Reply;
use crate::port::waiting::{Patience, Waiting};

pub(super) static COMMANDS: &[Command] =
    &[Command::new("xreadgroup", -7, Run::Blocking(read)).flags(WRITE)];

/// Deliveries asked of the engine at a time.
const PAGE: usize = 256;
/// No more is added to an answer of this size; the rest stays for the next call.
pub(super) const ENOUGH: usize = 8 * 1024 * 1024;

/// Entries that were delivered before and are looked at for one answer.
pub(super) const MANY: usize = 32 * 1024;

/// What one member reads of one stream.
struct Part<'a> {
    stream: &'a Stream,
    key: GroupKey,
    /// The member's own deliveries after this one; new entries if `None`.
    history: Option<Position>,
}

/// `XREADGROUP GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key… id…`
fn read(session: &mut Session, arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let reading = Reading::parse(session.keys(), arguments, true)?;
        let Some((group, member)) = &reading.group else {
            return Err(Failure::SYNTAX);
        };
        let mut parts = Vec::with_capacity(reading.streams.len());
        for stream in &reading.streams {
            parts.push(Part::new(session, stream, group, member)?);
        }
        // What was delivered to a member before is there or not: nothing to wait for.
        let history = parts.iter().any(|part| part.history.is_some());
        let patience = if history {
            Patience::None
        } else {
            reading.block
        };
        let session = &*session;
        let waiting = Waiting::new(session, patience);
        loop {
            let news = waiting.listen(session, reading.streams.iter().map(|stream| &stream.topic));
            let (mut found, mut room) = (Vec::new(), ENOUGH);
            for part in &parts {
                let entries = part.read(session, member, &reading, &mut room).await?;
                if !entries.is_empty() || part.history.is_some() {
                    found.push(part.stream.reply(entries));
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

impl Part<'_> {
    fn new<'a>(
        session: &Session,
        stream: &'a Stream,
        group: &Name,
        member: &Name,
    ) -> Result<Part<'a>, Failure> {
        let key = GroupKey {
            topic: stream.topic.clone(),
            group: group.clone(),
        };
        let history = match stream.id.as_ref() {
            b">" => None,
            b"$" => {
                return Err(Failure::err(
                    "The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this \
                     consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just \
                     return an empty result set.",
                ));
            }
            id => Some(arguments::id(id, 0).ok_or(Failure::INVALID_ID)?),
        };
        let seen = session
            .engine()
            .with_group(&key, |group, now| group.seen(member, now));
        let part = Part {
            stream,
            key,
            history,
        };
        seen.map_err(|error| part.no_group(session, error))?;
        let readers = &session.shared().readers;
        session.deliveries.enter(readers, &part.key, member);
        Ok(part)
    }

    async fn read(
        &self,
        session: &Session,
        member: &Name,
        reading: &Reading,
        room: &mut usize,
    ) -> Result<Vec<Reply>, Failure> {
        match self.history {
            Some(after) => {
                self.again(session, member, after, reading.count, room)
                    .await
            }
            None => self.fresh(session, member, reading, room).await,
        }
    }

    /// New entries.
    async fn fresh(
        &self,
        session: &Session,
        member: &Name,
        reading: &Reading,
        room: &mut usize,
    ) -> Result<Vec<Reply>, Failure> {
        let engine = session.engine();
        let mut entries = Vec::new();
        while entries.len() < reading.count && *room > 0 {
            let max = PAGE.min(reading.count - entries.len());
            let taken = engine.take(&self.key, member, Want::New, max).await;
            let taken = taken.map_err(|error| self.no_group(session, error))?;
            let last = taken.len() < max;
            if reading.no_ack {
                self.settle(session, member, &taken).await?;
            } else {
                let grants = taken.iter().map(|work| work.grant);
                session.deliveries.record(engine, &self.key, member, grants);
            }
            for Work { grant, body } in taken {
                *room = room.saturating_sub(footprint(body.as_ref()));
                entries.push(Reply::Entry(grant.position, body));
            }
            if last {
                break;
            }
        }
        Ok(entries)
    }

    /// What was delivered to the member before: delivered once more. At least one, if any: an empty answer is the end.
    async fn again(
        &self,
        session: &Session,
        member: &Name,
        after: Position,
        count: usize,
        room: &mut usize,
    ) -> Result<Vec<Reply>, Failure> {
        let engine = session.engine();
        loop {
            let own = engine.with_group(&self.key, |group, _| {
                let own = group.held().filter(|(_, held)| held.member == *member);
                let own = own.map(|(position, _)| position);
                own.filter(|position| *position > after)
                    .take(count.min(MANY))
                    .collect::<Vec<Position>>()
            });
            let own = own.map_err(|error| self.no_group(session, error))?;
            if own.is_empty() {
                return Ok(Vec::new());
            }
            let found = engine.find_each(&self.key.topic, own);
            let loaded = found.load((*room).max(1)).await?;
            let (mut entries, mut grants) = (Vec::new(), Vec::new());
            // Only now: what there was no room for must not count as delivered once more.
            let claimed = engine.with_group(&self.key, |group, now| {
                for (position, body) in loaded {
                    let is_own = |held: &Held| held.member == *member;
                    if group.holding(position).is_some_and(is_own) {
                        grants.extend(group.claim(member, position, now, 0, true));
                        *room = room.saturating_sub(footprint(body.as_ref()));
                        entries.push(Reply::Entry(position, body));
                    }
                }
            });
            claimed.map_err(|error| self.no_group(session, error))?;
            session.deliveries.record(engine, &self.key, member, grants);
            // Else all of these were settled meanwhile, and others may be left.
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    async fn settle(
        &self,
        session: &Session,
        member: &Name,
        taken: &[Work],
    ) -> Result<(), Failure> {
        let receipt = |work: &Work| Receipt::new(work.grant.position, work.grant.attempt);
        let batch: Vec<Settlement> = taken
            .iter()
            .map(|work| Settlement::complete(receipt(work)))
            .collect();
        for result in session.engine().settle(&self.key, member, batch).await {
            result?;
        }
        Ok(())
    }

    fn no_group(&self, session: &Session, error: streamerson_core::Error) -> Failure {
        match error.kind() {
            ErrorKind::NotFound => Failure::coded(format!(
                "NOGROUP No such key '{}' or consumer group '{}' in XREADGROUP with GROUP option",
                session.keys().of_stream(&self.key.topic),
                self.key.group
            )),
            _ => error.into(),
        }
    }
}
