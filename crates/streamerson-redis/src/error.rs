//! Failures of Redis, named by what the caller does next: the one table.

#[cfg(test)]
mod codes;

use std::fmt::Display;

use streamerson_core::{Error, ErrorKind};

use crate::target::Target;
use crate::wire::Malformed;

/// A group, or its topic, is gone.
pub(crate) const GROUP_LOST: &str = "group-lost";

/// Redis is a replica, perhaps since just now: another connection may lead to the primary.
pub(crate) const READ_ONLY: &str = "broker-read-only";

struct Rule {
    begins: &'static str,
    kind: ErrorKind,
    code: &'static str,
    remedy: &'static str,
}

/// What to do about `wrong-namespace`.
pub(crate) const ONE_NAMESPACE: &str = "this broker serves one namespace: name that one, with `connect_in` in a program, `--namespace` in a command, `namespace` in a configuration";

const fn rule(
    begins: &'static str,
    kind: ErrorKind,
    code: &'static str,
    remedy: &'static str,
) -> Rule {
    Rule {
        begins,
        kind,
        code,
        remedy,
    }
}

use ErrorKind::{Corrupt, Fenced, Internal, Invalid, NotFound, Unavailable};

/// What Redis says first, and what it means. Redis answers each of these before it has done anything, so
/// `Unavailable` is true: nothing happened. The first match counts.
const RULES: &[Rule] = &[
    rule(
        "OOM ",
        Unavailable,
        "broker-out-of-memory",
        "Redis has reached maxmemory: trim topics, or raise maxmemory",
    ),
    rule(
        "READONLY ",
        Unavailable,
        READ_ONLY,
        "this Redis is a replica: connect to the primary, or promote this one",
    ),
    rule(
        "WRONGTYPE ",
        Invalid,
        "wrong-type",
        "something else is stored under the key of this topic: choose another namespace or topic, or remove that key",
    ),
    rule(
        "NOGROUP ",
        NotFound,
        GROUP_LOST,
        "the group or its topic was deleted: its members create it again when they next ask for work",
    ),
    rule(
        "FENCED ",
        Fenced,
        "fenced",
        "someone else may own the topic now: acquire the lease again before going on",
    ),
    // What a read that waits is told by Redis before version 7 when its stream is deleted.
    rule(
        "UNBLOCKED the stream key",
        NotFound,
        GROUP_LOST,
        "the topic was deleted: the members of the group create it again when they next ask for work",
    ),
    rule(
        "UNBLOCKED force unblock",
        Unavailable,
        READ_ONLY,
        "this Redis has become a replica: connect to the primary, or promote this one",
    ),
    rule(
        "UNBLOCKED ",
        Unavailable,
        "read-interrupted",
        "somebody used CLIENT UNBLOCK: ask again",
    ),
    rule(
        "NOAUTH ",
        Invalid,
        "authentication-required",
        "give user and password in the URL: redis://USER:PASSWORD@HOST",
    ),
    rule(
        "WRONGPASS ",
        Invalid,
        "authentication-failed",
        WRONG_PASSWORD,
    ),
    rule(
        "ERR invalid password",
        Invalid,
        "authentication-failed",
        WRONG_PASSWORD,
    ),
    rule(
        "ERR AUTH",
        Invalid,
        "authentication-failed",
        "this Redis has no password: remove it from the URL, or set requirepass",
    ),
    rule("NOPERM ", Invalid, "permission-denied", TOO_NARROW),
    // The same, inside a script.
    rule(
        "ERR The user executing the script",
        Invalid,
        "permission-denied",
        TOO_NARROW,
    ),
    rule(
        "DENIED ",
        Invalid,
        "protected-mode",
        "Redis accepts only local connections: set a password, or protected-mode no in a private network",
    ),
    rule(
        "LOADING ",
        Unavailable,
        "broker-loading",
        "Redis is reading its data from disk: try again in a moment",
    ),
    rule(
        "BUSY ",
        Unavailable,
        "broker-busy",
        "a script blocks Redis: wait, or stop it with SCRIPT KILL",
    ),
    rule(
        "MISCONF ",
        Unavailable,
        "broker-cannot-persist",
        "Redis cannot write to its disk: look at its log and the free space",
    ),
    rule(
        "MASTERDOWN ",
        Unavailable,
        READ_ONLY,
        "this Redis is a replica that has lost its primary: connect to the primary",
    ),
    rule(
        "NOREPLICAS ",
        Unavailable,
        "broker-without-replicas",
        "Redis has fewer good replicas than min-replicas-to-write asks for: look at the replicas",
    ),
    rule(
        "ERR max number of clients reached",
        Unavailable,
        "broker-full",
        "Redis has reached maxclients: raise it, or run fewer processes",
    ),
    rule(
        "CLUSTERDOWN ",
        Unavailable,
        "broker-cluster",
        "the Redis cluster is not complete",
    ),
    rule("MOVED ", Invalid, "broker-cluster", NO_CLUSTER),
    rule("ASK ", Invalid, "broker-cluster", NO_CLUSTER),
    rule("CROSSSLOT ", Invalid, "broker-cluster", NO_CLUSTER),
    rule(
        "ERR DB index is out of range",
        Invalid,
        "invalid-database",
        "choose a database below the databases setting of Redis (16 by default)",
    ),
    rule(
        "ERR SELECT is not allowed in cluster mode",
        Invalid,
        "broker-cluster",
        NO_CLUSTER,
    ),
    // Of the port of the embedded broker, which serves one namespace.
    rule("ERR key '", Invalid, "wrong-namespace", ONE_NAMESPACE),
    rule(
        "ERR unknown command",
        Invalid,
        "broker-too-old",
        "Redis 6.2 or later, or Valkey, is needed, with none of its stream and script commands disabled",
    ),
];

/// The codes with which errors of the embedded broker's port end. They name thing and remedy themselves. Those that only its
/// start has are here too, because no test can tell them from the others.
const EMBEDDED: &[(&str, ErrorKind)] = &[
    ("address-in-use", Unavailable),
    ("cannot-listen", Unavailable),
    ("checkpoint-too-large", Unavailable),
    ("closed", Unavailable),
    ("data-directory-locked", Unavailable),
    ("data-directory-unusable", Invalid),
    ("disk-full", Unavailable),
    ("empty-password", Invalid),
    ("foreign-dead-letter", Invalid),
    ("group-not-found", NotFound),
    ("inbox-has-no-groups", Invalid),
    ("inbox-terms", Invalid),
    ("invalid-idempotency-key", Invalid),
    ("invalid-lease", Invalid),
    ("invalid-meta", Invalid),
    ("invalid-name", Invalid),
    ("invalid-once-key", Invalid),
    ("invalid-options", Invalid),
    ("invalid-partitions", Invalid),
    ("invalid-position", Invalid),
    ("log-damaged", Corrupt),
    ("log-segment-missing", Corrupt),
    ("log-unreadable", Corrupt),
    ("memory-full", Unavailable),
    ("message-too-large", Invalid),
    ("no-thread", Unavailable),
    ("not-a-dead-letter", Invalid),
    ("overloaded", Unavailable),
    ("password-required", Invalid),
    ("position-not-greater", Invalid),
    ("positions-exhausted", Invalid),
    ("segment-forgotten", Internal),
    ("segment-full", Internal),
    ("storage-failed", Corrupt),
    ("too-many-once-keys", Unavailable),
    ("too-many-scheduled", Unavailable),
    ("too-many-topics", Unavailable),
    ("topic-not-found", NotFound),
    ("topic-reserved", Invalid),
    ("unknown-durability", Invalid),
    ("unknown-log-format", Invalid),
];

const TOO_NARROW: &str = "the ACL of this user is too narrow: allow the keys of the namespace, and +@stream +@scripting +@keyspace +@sortedset +@hash +@string +@connection +info +time, and +config|get for the boot check";
const WRONG_PASSWORD: &str = "check user and password in the URL";
const NO_CLUSTER: &str = "Redis Cluster is not supported: use a standalone Redis or Valkey";

/// The meaning of an error that the server answered to `what`.
pub(crate) fn refused(answer: &[u8], what: impl Display) -> Error {
    let text = String::from_utf8_lossy(answer);
    let text = raised(&text);
    if let Some((kind, code, detail)) = embedded(text) {
        return Error::new(kind, code, format!("{what}: {detail}"));
    }
    match RULES.iter().find(|rule| text.starts_with(rule.begins)) {
        Some(rule) => Error::new(
            rule.kind,
            rule.code,
            format!("{what}: {}; {}", text.trim_end_matches('.'), rule.remedy),
        ),
        None => Error::new(Internal, "unexpected-refusal", format!("{what}: {text}")),
    }
}

/// Kind, code and detail of an error of the embedded broker: `WORD detail (code)`.
fn embedded(text: &str) -> Option<(ErrorKind, &'static str, &str)> {
    let (words, last) = text.strip_suffix(')')?.rsplit_once(" (")?;
    let (word, detail) = words.split_once(' ')?;
    let (code, kind) = EMBEDDED.iter().find(|(code, _)| *code == last)?;
    // With these it says that nothing happened, and that it may succeed later.
    let kind = match word {
        "MISCONF" | "OOM" => Unavailable,
        _ => *kind,
    };
    Some((kind, code, detail))
}

/// Redis before version 7 wraps what a script ran into: `ERR Error running script (…): … -READONLY …`.
fn raised(text: &str) -> &str {
    if !text.starts_with("ERR Error running script") {
        return text;
    }
    text.split_once(": -").map_or(text, |(_, raised)| raised)
}

/// No connection: nothing was sent.
pub(crate) fn unreachable(target: &Target, reason: impl Display) -> Error {
    Error::unavailable(
        "broker-unreachable",
        format!("no connection to {target}: {reason}"),
    )
}

/// No connection, because one end does not trust the certificate of the other.
pub(crate) fn certificate(target: &Target, reason: impl Display, remedy: &str) -> Error {
    Error::unavailable(
        "certificate-not-trusted",
        format!("no connection to {target}: {reason}; {remedy}"),
    )
}

/// The connection broke, or stayed silent, after something may have been sent.
pub(crate) fn lost(target: &Target, reason: impl Display) -> Error {
    Error::unknown(
        "answer-lost",
        format!("the answer of {target} was lost: {reason}; what was asked for may have happened"),
    )
}

/// An answer that this version does not understand.
pub(crate) fn unexpected(what: impl Display) -> Error {
    Error::new(
        Internal,
        "unexpected-reply",
        format!("the reply to {what} is not what Redis documents: is there a proxy in between?"),
    )
}

impl From<Malformed> for Error {
    fn from(_: Malformed) -> Error {
        unexpected("a command")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_of_redis_6_ran_into_is_found() {
        let answer = b"ERR Error running script (call to f_8f): @user_script:20: @user_script: 20: -READONLY You can't write against a read only replica.";
        assert_eq!(refused(answer, "settle").code(), "broker-read-only");
    }

    #[test]
    fn what_is_not_in_the_table_is_told_whole() {
        let error = refused(b"ERR something new", "append to orders");
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(
            error
                .detail()
                .contains("append to orders: ERR something new")
        );
    }

    #[test]
    fn errors_of_the_embedded_broker_keep_kind_code_and_remedy() {
        let told = |answer: &str| {
            let error = refused(answer.as_bytes(), "append to orders");
            (error.kind(), error.code(), error.detail().to_owned())
        };
        let detail = "append to orders: no space left (at all)".to_owned();
        assert_eq!(
            told("MISCONF no space left (at all) (disk-full)"),
            (Unavailable, "disk-full", detail)
        );
        let (kind, code, _) = told("OOM no memory left (memory-full)");
        assert_eq!((kind, code), (Unavailable, "memory-full"));
        let (kind, code, _) = told("ERR 5 bytes are more than 4 (message-too-large)");
        assert_eq!((kind, code), (Invalid, "message-too-large"));
        let (kind, code, _) = told("ERR not confirmed (storage-failed)");
        assert_eq!((kind, code), (Corrupt, "storage-failed"));
        let (kind, code, _) = told("MISCONF not written (storage-failed)");
        assert_eq!((kind, code), (Unavailable, "storage-failed"));
        let (_, code, _) = told("MISCONF Redis is configured to save (RDB)");
        assert_eq!(code, "broker-cannot-persist");
    }

    #[test]
    fn no_rule_hides_a_later_one() {
        for (at, rule) in RULES.iter().enumerate() {
            let first = RULES
                .iter()
                .position(|other| rule.begins.starts_with(other.begins));
            assert_eq!(first, Some(at), "{}", rule.begins);
        }
    }
}
