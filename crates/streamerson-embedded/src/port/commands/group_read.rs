//! `XREADGROUP`: deliveries.

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::group::Grant;
use streamerson_core::{ErrorKind, Name, Position, Receipt, Settlement};

use super::reading::{Reading, Stream};
use super::{Answer, Arguments, Command, Run, Session, WRITE};
use crate::body::OVERHEAD;
use crate::engine::{Body, GroupKey, Want, Work};
use crate::port::arguments;
use crate::port::failure::Failure;
use crate::port::reply::Reply;
use crate::port::waiting::{Patience, Waiting};

pub(super) static COMMANDS: &[Command] =
    &[Command::new("xreadgroup", -7, Run::Blocking(read)).flags(WRITE)];

/// Deliveries asked of the engine at a time.
const PAGE: usize = 256;
/// No more is added to an answer of this size; the rest stays for the next call.
const ENOUGH: usize = 8 * 1024 * 1024;

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
            Some(after) => self.again(session, member, after, reading.count).await,
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
                *room = room.saturating_sub(body.as_ref().map_or(OVERHEAD, Body::footprint));
                entries.push(Reply::Entry(grant.position, body));
            }
            if last {
                break;
            }
        }
        Ok(entries)
    }

    /// What was delivered to the member before: delivered once more.
    async fn again(
        &self,
        session: &Session,
        member: &Name,
        after: Position,
        count: usize,
    ) -> Result<Vec<Reply>, Failure> {
        let engine = session.engine();
        let grants = engine.with_group(&self.key, |group, now| {
            let own: Vec<Position> = group
                .held()
                .filter(|(position, held)| *position > after && held.member == *member)
                .map(|(position, _)| position)
                .take(count)
                .collect();
            let claim = |position| group.claim(member, position, now, 0, true);
            own.into_iter().filter_map(claim).collect::<Vec<Grant>>()
        });
        let grants = grants.map_err(|error| self.no_group(session, error))?;
        session
            .deliveries
            .record(engine, &self.key, member, grants.iter().copied());
        let positions: Vec<Position> = grants.iter().map(|grant| grant.position).collect();
        let bodies = engine.fetch(&self.key.topic, &positions).await?;
        let entry = |(position, body)| Reply::Entry(position, body);
        Ok(positions.into_iter().zip(bodies).map(entry).collect())
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
