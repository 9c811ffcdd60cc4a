//! Commands about the server: what it is, how it is set, what it cannot do.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use streamerson_core::Durability;
use streamerson_core::time::unix_ms;

use super::{Answer, Arguments, COMMANDS as ALL, Command, READ, Run, Session};
use crate::port::failure::Failure;
use crate::port::glob;
use crate::port::reply::Reply;
use crate::port::shared::VERSION;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("info", -1, Run::Now(info)),
    Command::new("config", -2, Run::Container),
    Command::new("config|get", -3, Run::Now(config_get)),
    Command::new("command", -1, Run::Now(command)),
    Command::new("time", 1, Run::Now(time)),
    Command::new("dbsize", 1, Run::Now(size)).flags(READ),
    Command::new("wait", 3, Run::Now(wait)),
    Command::new("multi", 1, Run::Now(no_transactions)),
    Command::new("exec", 1, Run::Now(no_transactions)),
    Command::new("discard", 1, Run::Now(no_transactions)),
    Command::new("watch", -2, Run::Now(no_transactions)),
    Command::new("unwatch", 1, Run::Now(no_transactions)),
];

/// `INFO [section…]`.
fn info(session: &mut Session, arguments: Arguments) -> Answer {
    let wanted = |section: &str| {
        let named = |word: &Bytes| {
            [section, "default", "all", "everything"]
                .iter()
                .any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
        };
        arguments.left() == 0 || arguments.rest().iter().any(named)
    };
    let mut text = String::new();
    for (name, describe) in SECTIONS {
        if wanted(name) {
            let separator = if text.is_empty() { "" } else { "\r\n" };
            let title = name.get(..1).unwrap_or_default().to_uppercase();
            let _ = write!(
                text,
                "{separator}# {title}{}\r\n",
                name.get(1..).unwrap_or_default()
            );
            describe(session, &mut text);
        }
    }
    Ok(Reply::Verbatim(text))
}

type Section = (&'static str, fn(&Session, &mut String));

const SECTIONS: &[Section] = &[
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("keyspace", keyspace),
];

fn server(session: &Session, text: &mut String) {
    let shared = session.shared();
    let up = shared.started.elapsed().as_secs();
    line(text, "redis_version", VERSION);
    line(text, "server_name", "streamerson");
    line(text, "streamerson_version", env!("CARGO_PKG_VERSION"));
    line(text, "streamerson_durability", shared.engine().durability());
    line(text, "streamerson_namespace", shared.keys.namespace());
    line(text, "redis_mode", "standalone");
    line(text, "os", std::env::consts::OS);
    line(text, "arch_bits", usize::BITS);
    line(text, "process_id", std::process::id());
    line(text, "tcp_port", shared.address.port());
    line(text, "uptime_in_seconds", up);
    line(text, "uptime_in_days", up / (24 * 3600));
}

fn clients(session: &Session, text: &mut String) {
    let shared = session.shared();
    line(text, "connected_clients", shared.clients().len());
    line(text, "maxclients", shared.options.max_clients);
}

fn memory(_: &Session, text: &mut String) {
    line(text, "maxmemory", 0);
    line(text, "maxmemory_human", "0B");
    line(text, "maxmemory_policy", "noeviction");
}

fn persistence(session: &Session, text: &mut String) {
    let stored = session.engine().durability() > Durability::Memory;
    line(text, "loading", 0);
    line(text, "rdb_bgsave_in_progress", 0);
    line(text, "rdb_last_bgsave_status", "ok");
    line(text, "aof_enabled", u8::from(stored));
    line(text, "aof_last_write_status", "ok");
}

fn stats(session: &Session, text: &mut String) {
    let counters = &session.shared().counters;
    let connections = counters.connections.load(Ordering::Relaxed);
    let commands = counters.commands.load(Ordering::Relaxed);
    line(text, "total_connections_received", connections);
    line(text, "total_commands_processed", commands);
    line(text, "evicted_keys", 0);
    line(text, "streamerson_commits", session.engine().commits());
}

fn replication(_: &Session, text: &mut String) {
    line(text, "role", "master");
    line(text, "connected_slaves", 0);
}

fn keyspace(session: &Session, text: &mut String) {
    let keys = super::keyspace::all(session).len();
    if keys > 0 {
        line(text, "db0", format_args!("keys={keys},expires=0,avg_ttl=0"));
    }
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = write!(text, "{name}:{value}\r\n");
}

/// `CONFIG GET pattern…`: the settings that clients judge a server's promises by.
fn config_get(session: &mut Session, arguments: Arguments) -> Answer {
    let (appendonly, appendfsync) = match session.engine().durability() {
        Durability::Memory => ("no", "everysec"),
        Durability::Os => ("yes", "no"),
        _ => ("yes", "always"),
    };
    let clients = session.shared().options.max_clients.to_string();
    let settings = [
        ("appendonly", appendonly),
        ("appendfsync", appendfsync),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("maxclients", &clients),
        ("databases", "1"),
        // There are no snapshots, and none are needed.
        ("save", ""),
    ];
    let mut found = Vec::new();
    for (name, value) in settings {
        let fits = |pattern: &&Bytes| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes());
        match arguments.rest().iter().find(fits) {
            // As Redis does: a whole name is answered as it was asked for.
            Some(pattern) if pattern.eq_ignore_ascii_case(name.as_bytes()) => {
                found.push((Reply::Bulk(pattern.clone()), Reply::text(value)));
            }
            Some(_) => found.push((Reply::text(name), Reply::text(value))),
            None => {}
        }
    }
    Ok(Reply::Map(found))
}

/// `COMMAND [COUNT | LIST | DOCS [name…] | INFO [name…]]`.
fn command(_: &mut Session, mut arguments: Arguments) -> Answer {
    let Some(subcommand) = arguments.optional() else {
        return Ok(Reply::List(commands().map(Command::describe).collect()));
    };
    match subcommand.to_ascii_lowercase().as_slice() {
        b"count" => Ok(Reply::count(commands().count())),
        b"list" => Ok(Reply::List(
            commands()
                .map(|command| Reply::text(command.name))
                .collect(),
        )),
        // What is documented here is documented by Redis.
        b"docs" => Ok(Reply::Map(Vec::new())),
        b"info" if arguments.left() == 0 => {
            Ok(Reply::List(commands().map(Command::describe).collect()))
        }
        b"info" => {
            let describe = |name: &Bytes| {
                let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                ALL.get(name.as_str())
                    .map_or(Reply::Nil, |command| command.describe())
            };
            Ok(Reply::List(arguments.rest().iter().map(describe).collect()))
        }
        _ => Err(Failure::err(format_args!(
            "unknown subcommand '{}'. Try COMMAND HELP.",
            super::quote(&subcommand, super::QUOTED)
        ))),
    }
}

fn commands() -> impl Iterator<Item = &'static Command> {
    let mut names: Vec<_> = ALL
        .values()
        .copied()
        .filter(|command| !command.name.contains('|'))
        .collect();
    names.sort_by_key(|command| command.name);
    names.into_iter()
}

impl Command {
    /// As `COMMAND` tells it to clients: name, arity, flags, keys; no categories, tips and further keys.
    fn describe(&self) -> Reply {
        let (first, last, step) = self.keys;
        let flags = self.flags.iter().map(|flag| Reply::Simple(flag)).collect();
        let none = || Reply::Set(Vec::new());
        Reply::List(vec![
            Reply::text(self.name),
            Reply::Integer(self.arity.into()),
            Reply::Set(flags),
            Reply::Integer(first.into()),
            Reply::Integer(last.into()),
            Reply::Integer(step.into()),
            none(),
            none(),
            none(),
            none(),
        ])
    }
}

fn time(_: &mut Session, _: Arguments) -> Answer {
    let now = unix_ms();
    Ok(Reply::List(vec![
        Reply::text((now / 1000).to_string()),
        Reply::text((now % 1000 * 1000).to_string()),
    ]))
}

fn size(session: &mut Session, _: Arguments) -> Answer {
    Ok(Reply::count(super::keyspace::all(session).len()))
}

/// There are no replicas to wait for: none has it.
fn wait(_: &mut Session, mut arguments: Arguments) -> Answer {
    arguments.integer()?;
    if arguments
        .integer()
        .map_err(|_| Failure::err("timeout is not an integer or out of range"))?
        < 0
    {
        return Err(Failure::err("timeout is negative"));
    }
    Ok(Reply::Integer(0))
}

fn no_transactions(_: &mut Session, _: Arguments) -> Answer {
    Err(Failure::err(
        "there are no transactions here: settle a delivery with its outputs in one step instead, as the streamerson \
         client does",
    ))
}
