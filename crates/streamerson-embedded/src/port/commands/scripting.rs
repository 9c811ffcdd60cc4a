//! `SCRIPT`, `EVAL`, `EVALSHA`: our own scripts, in their native form.

use futures::future::{BoxFuture, FutureExt};

use super::{Answer, Arguments, Command, Run, Session, WRITE};
use crate::port::failure::Failure;
use crate::port::reply::Reply;
use crate::port::scripts::{Call, Script};

pub(super) static COMMANDS: &[Command] = &[
    Command::new("script", -2, Run::Container),
    Command::new("script|load", 3, Run::Now(load)),
    Command::new("script|exists", -3, Run::Now(exists)),
    Command::new("script|flush", -2, Run::Now(flush)),
    Command::new("eval", -3, Run::Later(eval)).flags(WRITE),
    Command::new("evalsha", -3, Run::Later(eval_sha)).flags(WRITE),
];

fn load(session: &mut Session, mut arguments: Arguments) -> Answer {
    let (digest, _) = session.shared().library.load(&arguments.next()?)?;
    Ok(Reply::text(digest))
}

fn exists(session: &mut Session, arguments: Arguments) -> Answer {
    let library = &session.shared().library;
    let known = arguments
        .rest()
        .iter()
        .map(|digest| Reply::Integer(library.find(digest).is_some().into()));
    Ok(Reply::List(known.collect()))
}

/// `SCRIPT FLUSH [ASYNC|SYNC]`.
fn flush(session: &mut Session, mut arguments: Arguments) -> Answer {
    let _ = arguments.accept("async") || arguments.accept("sync");
    if arguments.left() > 0 {
        return Err(Failure::err("SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    session.shared().library.clear();
    Ok(Reply::OK)
}

/// `EVAL script numkeys key… arg…`.
fn eval(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let text = arguments.next()?;
        let call = call(arguments)?;
        let (_, script) = session.shared().library.load(&text)?;
        script.run(session, call).await
    }
    .boxed()
}

/// `EVALSHA digest numkeys key… arg…`.
fn eval_sha(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        const DIGEST: usize = 40;
        let digest = arguments.next()?;
        if digest.len() != DIGEST {
            return Err(Failure::NO_SCRIPT);
        }
        let call = call(arguments)?;
        let script: Script = session
            .shared()
            .library
            .find(&digest)
            .ok_or(Failure::NO_SCRIPT)?;
        script.run(session, call).await
    }
    .boxed()
}

fn call(mut arguments: Arguments) -> Result<Call, Failure> {
    let count = arguments.integer()?;
    let Ok(count) = usize::try_from(count) else {
        return Err(Failure::err("Number of keys can't be negative"));
    };
    if count > arguments.left() {
        return Err(Failure::err(
            "Number of keys can't be greater than number of args",
        ));
    }
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        keys.push(arguments.next()?);
    }
    Ok(Call { keys, arguments })
}
