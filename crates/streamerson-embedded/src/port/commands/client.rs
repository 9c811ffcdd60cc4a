//! `CLIENT`: who is connected.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{Answer, Arguments, Command, Run, Session};
use crate::port::failure::Failure;
use crate::port::reply::Reply;
use crate::port::shared::Client;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("client", -2, Run::Container),
    Command::new("client|id", 2, Run::Now(id)),
    Command::new("client|getname", 2, Run::Now(name)),
    Command::new("client|setname", 3, Run::Now(set_name)),
    Command::new("client|setinfo", 4, Run::Now(set_info)),
    Command::new("client|info", 2, Run::Now(info)),
    Command::new("client|list", -2, Run::Now(list)),
    Command::new("client|kill", -3, Run::Now(kill)),
    Command::new("client|unblock", -3, Run::Now(unblock)),
    Command::new("client|no-evict", 3, Run::Now(switch)),
    Command::new("client|no-touch", 3, Run::Now(switch)),
];

fn id(session: &mut Session, _: Arguments) -> Answer {
    Ok(Reply::Integer(session.id() as i64))
}

fn name(session: &mut Session, _: Arguments) -> Answer {
    let id = session.id();
    let mut name = String::new();
    session
        .shared()
        .note(id, |client| name.clone_from(&client.name));
    match name.is_empty() {
        true => Ok(Reply::Nil),
        false => Ok(Reply::text(name)),
    }
}

fn set_name(session: &mut Session, mut arguments: Arguments) -> Answer {
    let name = valid_name(arguments.next()?)?;
    let id = session.id();
    session.shared().note(id, |client| client.name = name);
    Ok(Reply::OK)
}

/// Not in Redis 7.0, but client libraries send it to every server, and a refusal would only fill logs.
fn set_info(session: &mut Session, mut arguments: Arguments) -> Answer {
    let attribute = arguments.text()?.to_ascii_lowercase();
    let value = valid_name(arguments.next()?)?;
    let id = session.id();
    match attribute.as_str() {
        "lib-name" => session.shared().note(id, |client| client.library.0 = value),
        "lib-ver" => session.shared().note(id, |client| client.library.1 = value),
        _ => return Err(Failure::err("Unrecognized option")),
    }
    Ok(Reply::OK)
}

fn info(session: &mut Session, _: Arguments) -> Answer {
    let clients = session.shared().clients();
    let own = clients.into_iter().filter(|(id, _)| *id == session.id());
    Ok(Reply::Verbatim(describe(session, own)))
}

/// `CLIENT LIST [ID id…] [TYPE normal]`.
fn list(session: &mut Session, mut arguments: Arguments) -> Answer {
    let clients = session.shared().clients();
    if arguments.accept("id") && arguments.left() > 0 {
        let mut wanted = Vec::new();
        while arguments.left() > 0 {
            wanted.push(
                arguments
                    .integer()
                    .map_err(|_| Failure::err("Invalid client ID"))?,
            );
        }
        let wanted = clients
            .into_iter()
            .filter(|(id, _)| wanted.contains(&(*id as i64)));
        return Ok(Reply::Verbatim(describe(session, wanted)));
    }
    if arguments.accept("type") {
        arguments.next()?;
    }
    arguments.end()?;
    Ok(Reply::Verbatim(describe(session, clients)))
}

/// `CLIENT KILL ID id`: one client by its number.
fn kill(session: &mut Session, mut arguments: Arguments) -> Answer {
    if !arguments.accept("id") {
        return Err(Failure::err(
            "here a client is named by its number: CLIENT KILL ID number; see CLIENT LIST",
        ));
    }
    let id = arguments
        .integer()
        .map_err(|_| Failure::err("client-id should be greater than 0"))?;
    arguments.end()?;
    let mut killed = 0;
    session.shared().note(id.unsigned_abs(), |client| {
        client.ended.cancel();
        killed = 1;
    });
    Ok(Reply::Integer(killed))
}

/// `CLIENT UNBLOCK id [TIMEOUT]`: ends the waiting of a client as if its time were up.
fn unblock(session: &mut Session, mut arguments: Arguments) -> Answer {
    let id = arguments.integer()?;
    if arguments.accept("error") {
        return Err(Failure::err(
            "CLIENT UNBLOCK … ERROR is not offered here: the client is answered as if its time were up",
        ));
    }
    if arguments.left() > 0 && !arguments.accept("timeout") {
        return Err(Failure::err(
            "CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
        ));
    }
    arguments.end()?;
    let mut unblocked = false;
    session.shared().note(id.unsigned_abs(), |client| {
        unblocked = client.unblock.end();
    });
    Ok(Reply::Integer(unblocked.into()))
}

/// Nothing is ever evicted here, and nothing counts accesses: on or off is all the same.
fn switch(_: &mut Session, mut arguments: Arguments) -> Answer {
    if arguments.accept("on") || arguments.accept("off") {
        return Ok(Reply::OK);
    }
    Err(Failure::SYNTAX)
}

fn describe(session: &Session, clients: impl IntoIterator<Item = (u64, Client)>) -> String {
    let mut text = String::new();
    for (id, client) in clients {
        let Client {
            peer,
            name,
            library: (library, version),
            protocol,
            since,
            ..
        } = client;
        let age = since.elapsed().as_secs();
        let protocol = protocol.number();
        let local = session.shared().address;
        let _ = writeln!(
            text,
            "id={id} addr={peer} laddr={local} name={name} age={age} db=0 sub=0 psub=0 multi=-1 user=default \
             resp={protocol} lib-name={library} lib-ver={version}"
        );
    }
    text
}

/// A name that `CLIENT LIST` can show: printable, without spaces.
pub(super) fn valid_name(name: Bytes) -> Result<String, Failure> {
    const LONGEST: usize = 256;
    match String::from_utf8(name.into()) {
        Ok(name) if name.len() <= LONGEST && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(name)
        }
        _ => Err(Failure::err(
            "Client names cannot contain spaces, newlines or special characters.",
        )),
    }
}
