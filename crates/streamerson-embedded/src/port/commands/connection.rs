//! Commands about the connection itself.

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::{Answer, Arguments, Command, NO_AUTH, QUOTED, Run, Session, quote};
use crate::port::failure::Failure;
use crate::port::reply::{Protocol, Reply};
use crate::port::shared::VERSION;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("ping", -1, Run::Now(ping)),
    Command::new("echo", 2, Run::Now(echo)),
    Command::new("hello", -1, Run::Now(hello)).flags(NO_AUTH),
    Command::new("auth", -2, Run::Now(auth)).flags(NO_AUTH),
    Command::new("select", 2, Run::Now(select)),
    Command::new("quit", -1, Run::Now(quit)).flags(NO_AUTH),
    Command::new("reset", 1, Run::Now(reset)).flags(NO_AUTH),
];

fn ping(_: &mut Session, mut arguments: Arguments) -> Answer {
    match arguments.left() {
        0 => Ok(Reply::Simple("PONG")),
        1 => Ok(Reply::Bulk(arguments.next()?)),
        _ => Err(Failure::arity("ping")),
    }
}

fn echo(_: &mut Session, mut arguments: Arguments) -> Answer {
    Ok(Reply::Bulk(arguments.next()?))
}

/// `HELLO [2|3 [AUTH user password] [SETNAME name]]`. Without a version it asks only what is spoken.
fn hello(session: &mut Session, mut arguments: Arguments) -> Answer {
    let mut protocol = session.protocol();
    if arguments.left() > 0 {
        let version = arguments
            .integer()
            .map_err(|_| Failure::err("Protocol version is not an integer or out of range"))?;
        protocol = Protocol::of(version).ok_or(Failure::of(
            "NOPROTO unsupported protocol version: 2 and 3 are spoken here",
        ))?;
    }
    let mut name = None;
    while let Some(option) = arguments.optional() {
        if option.eq_ignore_ascii_case(b"auth") && arguments.left() >= 2 {
            let (user, password) = (arguments.next()?, arguments.next()?);
            authenticate(session, &user, &password)?;
        } else if option.eq_ignore_ascii_case(b"setname") && arguments.left() >= 1 {
            name = Some(super::client::valid_name(arguments.next()?)?);
        } else {
            return Err(Failure::err(format_args!(
                "Syntax error in HELLO option '{}'",
                quote(&option, QUOTED)
            )));
        }
    }
    if !session.is_trusted() {
        return Err(Failure::of(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
             same time",
        ));
    }
    session.speak(protocol);
    if let Some(name) = name {
        let id = session.id();
        session.shared().note(id, |client| client.name = name);
    }
    Ok(Reply::map([
        ("server", Reply::text("redis")),
        ("version", Reply::text(VERSION)),
        ("proto", Reply::Integer(protocol.number())),
        ("id", Reply::Integer(session.id() as i64)),
        ("mode", Reply::text("standalone")),
        ("role", Reply::text("master")),
        ("modules", Reply::List(Vec::new())),
    ]))
}

fn auth(session: &mut Session, mut arguments: Arguments) -> Answer {
    let one_word = arguments.left() == 1;
    let (user, password) = match arguments.left() {
        1 => (Bytes::from_static(b"default"), arguments.next()?),
        2 => (arguments.next()?, arguments.next()?),
        _ => return Err(Failure::SYNTAX),
    };
    if one_word && session.shared().options.password.is_none() {
        return Err(Failure::err(
            "AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ));
    }
    authenticate(session, &user, &password)?;
    Ok(Reply::OK)
}

fn authenticate(session: &mut Session, user: &[u8], password: &[u8]) -> Result<(), Failure> {
    let expected = session.shared().options.password.as_deref();
    // Without a password everybody is the default user, and whatever is said is right.
    let right = user == b"default"
        && expected.is_none_or(|expected| is_same(expected.as_bytes(), password));
    if !right {
        return Err(Failure::of(
            "WRONGPASS invalid username-password pair or user is disabled.",
        ));
    }
    session.trust();
    Ok(())
}

/// Compares digests, so that the time it takes tells nothing about the password.
fn is_same(expected: &[u8], given: &[u8]) -> bool {
    let (expected, given) = (Sha1::digest(expected), Sha1::digest(given));
    let difference = expected
        .iter()
        .zip(given.iter())
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    difference == 0
}

fn select(_: &mut Session, mut arguments: Arguments) -> Answer {
    match arguments.integer()? {
        0 => Ok(Reply::OK),
        _ => Err(Failure::err("DB index is out of range")),
    }
}

fn quit(session: &mut Session, _: Arguments) -> Answer {
    session.close();
    Ok(Reply::OK)
}

fn reset(session: &mut Session, _: Arguments) -> Answer {
    session.reset();
    Ok(Reply::Simple("RESET"))
}
