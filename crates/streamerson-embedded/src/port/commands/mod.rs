//! The commands, one file per family. Each file lists its own in `COMMANDS`, and a command is one function: arguments
//! in, answer out.

mod append;
mod client;
mod connection;
mod delay;
mod delete;
mod group;
mod group_read;
mod inspect;
mod keyspace;
mod pending;
mod range;
mod reading;
mod scripting;
mod server;
mod trim;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::arguments::Arguments;
use super::failure::Failure;
use super::reply::Reply;
use super::request::Request;
use super::session::Session;

pub(super) use append::Appends;
pub(super) use group::{no_group, no_key_or_group, start};
pub(super) use range::lower;

/// The answer to a command.
pub(super) type Answer = Result<Reply, Failure>;

/// A command, or one of the subcommands of a command (`xgroup|create`).
pub(super) struct Command {
    name: &'static str,
    /// How many words it has, its names included; at least so many if negative.
    arity: i8,
    run: Run,
    flags: &'static [&'static str],
    /// Which words are keys: the first, the last (from the end if negative), and every how many.
    keys: (i8, i8, i8),
}

#[derive(Clone, Copy)]
enum Run {
    /// Answers at once.
    Now(fn(&mut Session, Arguments) -> Answer),
    /// Waits for the engine.
    Later(for<'a> fn(&'a mut Session, Arguments) -> BoxFuture<'a, Answer>),
    /// May wait for news, if its arguments have the word `BLOCK`.
    Blocking(for<'a> fn(&'a mut Session, Arguments) -> BoxFuture<'a, Answer>),
    /// Stored together with the appends around it: see [`Appends`].
    Append,
    /// Has subcommands only.
    Container,
}

/// Clients that have not said the password may use it.
const NO_AUTH: &[&str] = &["no_auth"];
const READ: &[&str] = &["readonly"];
const WRITE: &[&str] = &["write"];

impl Command {
    const fn new(name: &'static str, arity: i8, run: Run) -> Command {
        Command {
            name,
            arity,
            run,
            flags: &[],
            keys: (0, 0, 0),
        }
    }

    const fn flags(mut self, flags: &'static [&'static str]) -> Command {
        self.flags = flags;
        self
    }

    const fn keys(mut self, first: i8, last: i8, step: i8) -> Command {
        self.keys = (first, last, step);
        self
    }

    /// Whether it is stored together with the appends around it.
    pub(super) fn is_append(&self) -> bool {
        matches!(self.run, Run::Append)
    }

    /// Whether it may wait for news.
    pub(super) fn may_wait(&self, arguments: &Arguments) -> bool {
        let says_block = |word: &Bytes| word.eq_ignore_ascii_case(b"block");
        matches!(self.run, Run::Blocking(_)) && arguments.rest().iter().take(8).any(says_block)
    }

    /// Runs it.
    pub(super) async fn call(&self, session: &mut Session, arguments: Arguments) -> Reply {
        let answer = match self.run {
            Run::Now(run) => run(session, arguments),
            Run::Later(run) | Run::Blocking(run) => run(session, arguments).await,
            Run::Append | Run::Container => Err(Failure::arity(self.name)),
        };
        answer.unwrap_or_else(Failure::reply)
    }

    fn fits(&self, words: usize) -> bool {
        let words = i64::try_from(words).unwrap_or(i64::MAX);
        let arity = i64::from(self.arity);
        words == arity || (arity < 0 && words >= -arity)
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }
}

/// All commands, by name.
static COMMANDS: LazyLock<HashMap<&'static str, &'static Command>> = LazyLock::new(|| {
    [
        append::COMMANDS,
        client::COMMANDS,
        connection::COMMANDS,
        delay::COMMANDS,
        delete::COMMANDS,
        group::COMMANDS,
        group_read::COMMANDS,
        inspect::COMMANDS,
        keyspace::COMMANDS,
        pending::COMMANDS,
        range::COMMANDS,
        scripting::COMMANDS,
        server::COMMANDS,
        trim::COMMANDS,
    ]
    .into_iter()
    .flatten()
    .map(|command| (command.name, command))
    .collect()
});

/// The longest name of a command, with its subcommand, is shorter than this.
const LONGEST_NAME: usize = 32;

/// Finds the command that a client means, and checks that the client may call it, with so many arguments.
pub(super) fn find(
    session: &mut Session,
    request: Request,
) -> Result<(&'static Command, Arguments), Failure> {
    let mut words = request.into_iter();
    let name = words.next().unwrap_or_default();
    let Some(mut command) = named(&[&name]) else {
        return Err(unknown(session, &name, words.as_slice()));
    };
    let mut named_by = 1;
    if matches!(command.run, Run::Container)
        && let Some(subcommand) = words.next()
    {
        command = named(&[command.name.as_bytes(), &subcommand])
            .ok_or_else(|| unknown_subcommand(command, &subcommand))?;
        named_by = 2;
    }
    if !command.fits(words.len() + named_by) {
        return Err(Failure::arity(command.name));
    }
    if !session.is_trusted() && !command.has("no_auth") {
        return Err(Failure::NO_AUTH);
    }
    let shared = session.shared();
    shared.counters.commands.fetch_add(1, Ordering::Relaxed);
    Ok((command, Arguments::new(words)))
}

fn named(words: &[&[u8]]) -> Option<&'static Command> {
    let mut name = [0u8; LONGEST_NAME];
    let mut length = 0;
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            *name.get_mut(length)? = b'|';
            length += 1;
        }
        let end = length + word.len();
        let room = name.get_mut(length..end)?;
        room.copy_from_slice(word);
        room.make_ascii_lowercase();
        length = end;
    }
    let name = std::str::from_utf8(name.get(..length)?).ok()?;
    COMMANDS.get(name).copied()
}

fn unknown(session: &mut Session, name: &[u8], arguments: &[Bytes]) -> Failure {
    // A browser made to send its requests here must not get as far as a body that looks like commands.
    if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
        tracing::warn!("redis port: closed a connection that speaks HTTP");
        session.close();
    }
    let mut beginning = String::new();
    for argument in arguments {
        if beginning.len() >= QUOTED {
            break;
        }
        let _ = write!(
            beginning,
            "'{}' ",
            quote(argument, QUOTED - beginning.len())
        );
    }
    Failure::err(format_args!(
        "unknown command '{}', with args beginning with: {beginning}",
        quote(name, QUOTED)
    ))
}

fn unknown_subcommand(container: &Command, subcommand: &[u8]) -> Failure {
    Failure::err(format_args!(
        "unknown subcommand '{}'. Try {} HELP.",
        quote(subcommand, QUOTED),
        container.name.to_uppercase()
    ))
}

/// What an error quotes of a client's input, at most.
const QUOTED: usize = 128;

fn quote(bytes: &[u8], most: usize) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes))
}
