//! `XADD`.

use bytes::Bytes;
use streamerson_core::message::FIELDS;
use streamerson_core::{Error, Position, Result, Topic};

use super::trim::{self, Limit};
use super::{Arguments, Command, Run, Session, WRITE};
use crate::engine::{Body, Engine, NewEntry};
use crate::port::arguments;
use crate::port::failure::Failure;
use crate::port::reply::Reply;

pub(super) static COMMANDS: &[Command] = &[Command::new("xadd", -5, Run::Append)
    .flags(WRITE)
    .keys(1, 1, 1)];

/// An approximate limit lets a stream grow by so many beyond it, as Redis does by its nodes.
const NODE: u64 = 100;

/// The appends that follow each other: stored together, answered in order.
#[derive(Debug, Default)]
pub(in crate::port) struct Appends {
    answers: Vec<Option<Reply>>,
    entries: Vec<NewEntry>,
    limits: Vec<(Topic, Limit)>,
}

impl Appends {
    pub(in crate::port) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Adds one, or its refusal.
    pub(in crate::port) fn add(&mut self, session: &Session, arguments: Arguments) {
        let answer = match self.parse(session, arguments) {
            Ok(answer) => answer,
            Err(failure) => Some(failure.reply()),
        };
        self.answers.push(answer);
    }

    /// Stores all, and answers each.
    pub(in crate::port) async fn store(&mut self, engine: &Engine) -> Vec<Reply> {
        let Appends {
            answers,
            entries,
            limits,
        } = std::mem::take(self);
        let mut stored = match entries.is_empty() {
            true => Vec::new(),
            false => engine.append(entries).await,
        }
        .into_iter();
        let replies = answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| position(stored.next())))
            .collect();
        for (topic, limit) in limits {
            if let Err(error) = keep_within(engine, &topic, limit).await {
                tracing::warn!(%topic, %error, "redis port: cannot trim");
            }
        }
        replies
    }

    /// `XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT count]] *|id field value…`
    fn parse(
        &mut self,
        session: &Session,
        mut arguments: Arguments,
    ) -> Result<Option<Reply>, Failure> {
        let topic = session.keys().stream(&arguments.next()?)?;
        let (mut create, mut limit) = (true, None);
        let id = loop {
            if arguments.accept("nomkstream") {
                create = false;
            } else if let Some(found) = Limit::accept(&mut arguments)? {
                limit = Some(found);
            } else {
                break arguments.next()?;
            }
        };
        let position = explicit(&id)?;
        let body = message(&mut arguments)?;
        if !create && !self.has(&topic) && session.engine().with_topic(&topic, |_| ()).is_none() {
            return Ok(Some(Reply::Nil));
        }
        // Inboxes are kept within their limit by the broker itself.
        if let Some(limit) = limit.filter(|_| !topic.is_inbox()) {
            self.limits.push((topic.clone(), limit));
        }
        self.entries.push(NewEntry {
            topic,
            body,
            position,
        });
        Ok(None)
    }

    fn has(&self, topic: &Topic) -> bool {
        self.entries.iter().any(|entry| entry.topic == *topic)
    }
}

fn position(stored: Option<Result<Position>>) -> Reply {
    match stored {
        Some(Ok(position)) => Reply::Id(position),
        Some(Err(error)) if error.code() == "position-not-greater" => Failure::of(
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
        )
        .reply(),
        Some(Err(error)) => Failure::from(error).reply(),
        None => Failure::from(Error::unknown(
            "no-answer",
            "the broker did not answer this append",
        ))
        .reply(),
    }
}

fn explicit(id: &Bytes) -> Result<Option<Position>, Failure> {
    if id == "*" {
        return Ok(None);
    }
    if id.ends_with(b"-*") {
        return Err(Failure::err(
            "ids of the form MS-* are not given here: let the broker give the whole id (*), or give it yourself",
        ));
    }
    match arguments::id(id, 0).ok_or(Failure::INVALID_ID)? {
        Position::ZERO => Err(Failure::of(
            "ERR The ID specified in XADD must be greater than 0-0",
        )),
        position => Ok(Some(position)),
    }
}

/// The fields of a message, in any order, but all and no others.
fn message(arguments: &mut Arguments) -> Result<Body, Failure> {
    if arguments.left() == 0 || !arguments.left().is_multiple_of(2) {
        return Err(Failure::arity("xadd"));
    }
    let mut fields = Vec::with_capacity(FIELDS.len());
    while let (Some(name), Some(value)) = (arguments.optional(), arguments.optional()) {
        fields.push((name, value));
    }
    match Body::from_fields(fields) {
        Body::Foreign(foreign) => Err(Failure::err(format_args!(
            "{}: an entry here has exactly the fields {}",
            foreign.reason,
            FIELDS.join(" ")
        ))),
        message => Ok(message),
    }
}

/// Removes what exceeds the limit given with an append, as far as every group has processed it.
async fn keep_within(engine: &Engine, topic: &Topic, limit: Limit) -> Result<()> {
    let limit = match limit {
        Limit::Length { most, approximate } => {
            let slack = if approximate { NODE } else { 0 };
            let length = engine.with_topic(topic, |view| view.length).unwrap_or(0);
            if length <= most.saturating_add(slack) {
                return Ok(());
            }
            limit
        }
        Limit::From(position) => {
            let safe = trim::first_unprocessed(engine, topic).unwrap_or(position);
            Limit::From(position.min(safe))
        }
    };
    trim::apply(engine, topic, limit).await.map(drop)
}
