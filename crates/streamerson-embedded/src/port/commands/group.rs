//! `XGROUP` and `XACK`: consumer groups, and the end of deliveries.

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{ErrorKind, Name, Receipt, Settlement, Start};

use super::{Answer, Arguments, Command, Run, Session, WRITE};
use crate::engine::GroupKey;
use crate::port::failure::Failure;
use crate::port::reply::Reply;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("xgroup", -2, Run::Container),
    Command::new("xgroup|create", -5, Run::Later(create))
        .flags(WRITE)
        .keys(2, 2, 1),
    Command::new("xgroup|setid", -5, Run::Later(seek))
        .flags(WRITE)
        .keys(2, 2, 1),
    Command::new("xgroup|destroy", 4, Run::Later(destroy))
        .flags(WRITE)
        .keys(2, 2, 1),
    Command::new("xgroup|createconsumer", 5, Run::Now(create_member))
        .flags(WRITE)
        .keys(2, 2, 1),
    Command::new("xgroup|delconsumer", 5, Run::Now(remove_member))
        .flags(WRITE)
        .keys(2, 2, 1),
    Command::new("xack", -4, Run::Later(acknowledge))
        .flags(WRITE)
        .keys(1, 1, 1),
];

/// Reads `key group`.
pub(in crate::port) fn group_key(
    session: &Session,
    arguments: &mut Arguments,
) -> Result<GroupKey, Failure> {
    let topic = session.keys().stream(&arguments.next()?)?;
    let group = arguments.name()?;
    Ok(GroupKey { topic, group })
}

/// `XGROUP CREATE key group id|$ [MKSTREAM] [ENTRIESREAD count]`.
fn create(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let key = group_key(session, &mut arguments)?;
        let start = start(&mut arguments)?;
        let make = options(&mut arguments, "CREATE")?;
        if !make {
            must_exist(session, &key)?;
        }
        match session.engine().create_group(&key, start).await? {
            true => Ok(Reply::OK),
            false => Err(Failure::of("BUSYGROUP Consumer Group name already exists")),
        }
    }
    .boxed()
}

/// `XGROUP SETID key group id|$ [ENTRIESREAD count]`.
fn seek(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let key = group_key(session, &mut arguments)?;
        let start = start(&mut arguments)?;
        options(&mut arguments, "SETID")?;
        must_exist(session, &key)?;
        let moved = session.engine().seek_group(&key, start).await;
        moved.map_err(|error| no_group(session, &key, error))?;
        Ok(Reply::OK)
    }
    .boxed()
}

fn destroy(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let key = group_key(session, &mut arguments)?;
        must_exist(session, &key)?;
        let removed = session.engine().lose_group(&key).await?;
        Ok(Reply::Integer(removed.into()))
    }
    .boxed()
}

fn create_member(session: &mut Session, mut arguments: Arguments) -> Answer {
    let key = group_key(session, &mut arguments)?;
    let member = arguments.name()?;
    must_exist(session, &key)?;
    let created = session.engine().with_group(&key, |group, now| {
        let known = group.members().any(|(name, _)| *name == member);
        group.seen(&member, now);
        !known
    });
    let created = created.map_err(|error| no_group(session, &key, error))?;
    Ok(Reply::Integer(created.into()))
}

/// Answers how much the member held. Where Redis forgets that, here it goes to others.
fn remove_member(session: &mut Session, mut arguments: Arguments) -> Answer {
    let key = group_key(session, &mut arguments)?;
    let member = arguments.name()?;
    must_exist(session, &key)?;
    let held = session.engine().with_group(&key, |group, now| {
        let held = group
            .held()
            .filter(|(_, held)| held.member == member)
            .count();
        group.leave(&member, now);
        held
    });
    let held = held.map_err(|error| no_group(session, &key, error))?;
    Ok(Reply::count(held))
}

/// `XACK key group id…`: answers how many were settled by this.
fn acknowledge(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let key = group_key(session, &mut arguments)?;
        let mut batch = Vec::with_capacity(arguments.left());
        while arguments.left() > 0 {
            batch.push(Settlement::complete(Receipt::new(arguments.id(0)?, 0)));
        }
        // Completing needs no holder, and none is named here.
        let nobody = Name::new("xack")?;
        let mut settled = 0;
        for result in session.engine().settle(&key, &nobody, batch).await {
            match result {
                Ok(()) => settled += 1,
                Err(error) if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Reply::Integer(settled))
    }
    .boxed()
}

/// Reads where a group is to begin: an id, or `$`.
pub(in crate::port) fn start(arguments: &mut Arguments) -> Result<Start, Failure> {
    if arguments.accept("$") {
        return Ok(Start::Latest);
    }
    Ok(Start::After(arguments.id(0)?))
}

/// Reads `[MKSTREAM] [ENTRIESREAD count]`, and answers whether the stream is to be made. How many entries a group has
/// read need not be told here: the broker counts.
fn options(arguments: &mut Arguments, subcommand: &str) -> Result<bool, Failure> {
    let mut make = false;
    while arguments.left() > 0 {
        if subcommand == "CREATE" && arguments.accept("mkstream") {
            make = true;
        } else if arguments.left() >= 2 && arguments.accept("entriesread") {
            if arguments.integer()? < -1 {
                return Err(Failure::err("value for ENTRIESREAD must be positive or -1"));
            }
        } else {
            return Err(Failure::err(format_args!(
                "unknown subcommand or wrong number of arguments for '{subcommand}'. Try XGROUP HELP."
            )));
        }
    }
    Ok(make)
}

fn must_exist(session: &Session, key: &GroupKey) -> Result<(), Failure> {
    let found = session.engine().with_topic(&key.topic, |_| ());
    found.ok_or(Failure::of(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
         option to create an empty stream automatically.",
    ))
}

/// What the engine says of a missing group, in the words of Redis's commands about groups.
pub(in crate::port) fn no_group(
    session: &Session,
    key: &GroupKey,
    error: streamerson_core::Error,
) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::coded(format!(
            "NOGROUP No such consumer group '{}' for key name '{}'",
            key.group,
            session.keys().of_stream(&key.topic)
        )),
        _ => error.into(),
    }
}

/// The same, in the words of Redis's commands about deliveries.
pub(in crate::port) fn no_key_or_group(
    session: &Session,
    key: &GroupKey,
    error: streamerson_core::Error,
) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::coded(format!(
            "NOGROUP No such key '{}' or consumer group '{}'",
            session.keys().of_stream(&key.topic),
            key.group
        )),
        _ => error.into(),
    }
}
