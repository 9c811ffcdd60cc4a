//! `XTRIM`, and the limits it shares with `XADD`.

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::group::Group;
use streamerson_core::retention::Retention;
use streamerson_core::{Position, Result, Topic};

use super::{Answer, Arguments, Command, Run, Session, WRITE};
use crate::engine::{Engine, Trim};
use crate::port::failure::Failure;
use crate::port::reply::Reply;

pub(super) static COMMANDS: &[Command] = &[Command::new("xtrim", -4, Run::Later(trim))
    .flags(WRITE)
    .keys(1, 1, 1)];

/// How much of a stream is kept.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// The newest so many.
    Length {
        /// So many.
        most: u64,
        /// Or a few more, if that is cheaper.
        approximate: bool,
    },
    /// Everything from this id on.
    From(Position),
}

impl Limit {
    /// Reads `MAXLEN|MINID [=|~] threshold [LIMIT count]`, if it is there.
    pub(super) fn accept(arguments: &mut Arguments) -> Result<Option<Limit>, Failure> {
        let by_length = arguments.accept("maxlen");
        if !by_length && !arguments.accept("minid") {
            return Ok(None);
        }
        let approximate = arguments.accept("~");
        if !approximate {
            arguments.accept("=");
        }
        let limit = if by_length {
            let most = u64::try_from(arguments.integer()?)
                .map_err(|_| Failure::err("The MAXLEN argument must be >= 0."))?;
            Limit::Length { most, approximate }
        } else {
            Limit::From(arguments.id(0)?)
        };
        // How much one call may remove: here all of it costs the same.
        if arguments.accept("limit") {
            if arguments.integer()? < 0 {
                return Err(Failure::err("The LIMIT argument must be >= 0."));
            }
            if !approximate {
                return Err(Failure::err(
                    "syntax error, LIMIT cannot be used without the special ~ option",
                ));
            }
        }
        Ok(Some(limit))
    }
}

/// `XTRIM key MAXLEN|MINID [=|~] threshold [LIMIT count]`: answers how many entries it removed.
fn trim(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let topic = session.keys().stream(&arguments.next()?)?;
        let limit = Limit::accept(&mut arguments)?.ok_or(Failure::SYNTAX)?;
        arguments.end()?;
        let removed = apply(session.engine(), &topic, limit).await?;
        Ok(Reply::Integer(i64::try_from(removed).unwrap_or(i64::MAX)))
    }
    .boxed()
}

/// Trims by length only what every group has processed; by id exactly what was said, because who names an id has looked.
pub(super) async fn apply(engine: &Engine, topic: &Topic, limit: Limit) -> Result<u64> {
    let trim = match limit {
        Limit::From(position) => Trim::Before(position),
        Limit::Length { most, .. } if first_unprocessed(engine, topic).is_none() => {
            Trim::Newest(most)
        }
        Limit::Length { most, .. } => Trim::Retain(Retention {
            max_len: Some(most),
            ..Retention::default()
        }),
    };
    Ok(engine.trim(topic, trim).await?.removed)
}

/// Where the first entry stands that some group has not processed; `None` without groups.
pub(super) fn first_unprocessed(engine: &Engine, topic: &Topic) -> Option<Position> {
    let first = engine.with_topic(topic, |view| {
        view.groups.values().map(Group::first_unprocessed).min()
    });
    first.flatten()
}
