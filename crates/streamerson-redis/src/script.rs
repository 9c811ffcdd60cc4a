//! The scripts: what must happen in one step.
//!
//! A script is put together from parts that several of them share. `spec/scripts/` has the whole texts, for workers in other
//! languages.

use std::sync::LazyLock;

use sha1::{Digest, Sha1};

use crate::wire::Request;

/// The text of a script: its first line, then its parts.
macro_rules! script {
    ($name:literal: $($part:literal),+) => {
        LazyLock::new(|| Script::new(concat!(
            "-- streamerson:", $name, "\n", $(include_str!(concat!("scripts/", $part, ".lua"))),+
        )))
    };
}

/// Makes a member known, and creates what is missing.
pub(crate) static JOIN: LazyLock<Script> =
    script!("join:1": "time", "fence", "group", "missed", "join");
/// Ends deliveries: acknowledgement and outputs, or nothing.
pub(crate) static SETTLE: LazyLock<Script> =
    script!("settle:2": "seldom", "time", "fence", "outputs", "group", "effects", "settle");
/// Takes over what others gave up, and does what must be done from time to time.
pub(crate) static CLAIM: LazyLock<Script> =
    script!("claim:3": "time", "fence", "group", "missed", "claim");
/// Keeps leases of deliveries.
pub(crate) static EXTEND: LazyLock<Script> = script!("extend:2": "time", "fence", "extend");
/// Gives everything back.
pub(crate) static LEAVE: LazyLock<Script> = script!("leave:2": "time", "group", "leave");
/// Appends messages on terms.
pub(crate) static APPEND: LazyLock<Script> = script!("append:1": "time", "outputs", "append");
/// Takes one entry out, and appends.
pub(crate) static TAKE: LazyLock<Script> = script!("take:1": "time", "outputs", "group", "take");
/// Leases of a topic.
pub(crate) static LEASE: LazyLock<Script> = script!("lease:1": "time", "fence", "lease");
/// What is delivered and not settled.
pub(crate) static PENDING: LazyLock<Script> = script!("pending:1": "time", "pending");
/// Lets a group go on elsewhere.
pub(crate) static SEEK: LazyLock<Script> = script!("seek:2": "time", "fence", "group", "seek");
/// Removes what is no longer wanted.
pub(crate) static REMOVE: LazyLock<Script> = script!("remove:1": "time", "group", "remove");
/// Divides a topic.
pub(crate) static DIVIDE: LazyLock<Script> = script!("divide:1": "time", "divide");

/// All of them.
pub(crate) fn all() -> [&'static Script; 12] {
    [
        &JOIN, &SETTLE, &CLAIM, &EXTEND, &LEAVE, &APPEND, &TAKE, &LEASE, &PENDING, &SEEK, &REMOVE,
        &DIVIDE,
    ]
}

/// A Lua script, called by the digest of its text.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    fn new(text: &'static str) -> Script {
        let digest = Sha1::digest(text);
        Script {
            text,
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    pub(crate) fn text(&self) -> &'static str {
        self.text
    }

    /// Begins a call with this many keys and arguments, which are to follow.
    pub(crate) fn call(&self, keys: usize, arguments: usize, capacity: usize) -> Request {
        let mut request = Request::with_capacity(capacity);
        request.head(3 + keys + arguments);
        request.arg(b"EVALSHA");
        request.arg(self.digest.as_bytes());
        request.number(keys as u64);
        request
    }

    /// A whole call, of text arguments.
    pub(crate) fn with(&self, keys: &[&str], arguments: &[&str]) -> Request {
        let mut request = self.call(keys.len(), arguments.len(), 256);
        for argument in keys.iter().chain(arguments) {
            request.arg(argument.as_bytes());
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `STREAMERSON_WRITE_SPEC=1` writes them.
    #[test]
    fn the_specification_has_the_texts() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/scripts");
        for script in all() {
            let (first, _) = script.text().split_once('\n').unwrap();
            let name = first.strip_prefix("-- streamerson:").unwrap();
            let (name, version) = name.split_once(':').unwrap();
            assert!(version.parse::<u32>().is_ok(), "{first}");
            let path = folder.join(format!("{name}.lua"));
            if std::env::var_os("STREAMERSON_WRITE_SPEC").is_some() {
                std::fs::write(&path, script.text()).unwrap();
            }
            let specified = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(specified == script.text(), "{name}.lua differs");
        }
    }
}
