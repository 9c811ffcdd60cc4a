//! `lease`: the leases of a topic.
//!
//! `KEYS`: stream. `ARGV`: `acquire`, name, holder, time to live in ms: answers name, holder, epoch, ms that remain, whoever has
//! it now; `release`, name, holder: answers 1, or 0 if the holder did not have it; `list`: answers those that are held.

use streamerson_core::lease::Lease;

use super::Call;
use crate::port::commands::Answer;
use crate::port::failure::Failure;
use crate::port::reply::Reply;
use crate::port::session::Session;

pub(super) async fn run(session: &Session, mut call: Call) -> Answer {
    let topic = call.topic(session.keys())?;
    let Call { arguments, .. } = &mut call;
    let engine = session.engine();
    match arguments.next()?.as_ref() {
        b"acquire" => {
            let (name, holder) = (arguments.name()?, arguments.name()?);
            let ttl = arguments.millis()?.max(1);
            let lease = engine.acquire(&topic, &name, &holder, ttl).await?;
            if lease.holder == holder {
                let leases = &session.shared().leases;
                leases.note(engine, session.id(), &topic, &lease);
            }
            Ok(told(lease))
        }
        b"release" => {
            let (name, holder) = (arguments.name()?, arguments.name()?);
            let released = engine.release(&topic, &name, &holder);
            if released {
                session.shared().leases.forget(&topic, &name);
            }
            Ok(Reply::Integer(released.into()))
        }
        b"list" => {
            let held = engine.leases(&topic).into_iter().map(told);
            Ok(Reply::List(held.collect()))
        }
        _ => Err(Failure::err("lease: acquire, release or list")),
    }
}

fn told(lease: Lease) -> Reply {
    let remaining = i64::try_from(lease.remaining.as_millis()).unwrap_or(i64::MAX);
    Reply::List(vec![
        Reply::text(lease.name.as_str()),
        Reply::text(lease.holder.as_str()),
        Reply::text(lease.epoch.to_string()),
        Reply::Integer(remaining),
    ])
}
