//! The four scripts: what must happen in one step.

use std::sync::LazyLock;

use sha1::{Digest, Sha1};

use crate::wire::Request;

/// Ends deliveries: acknowledgement and outputs, or nothing.
pub(crate) static SETTLE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/settle.lua")));
/// Takes over what others gave up.
pub(crate) static CLAIM: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/claim.lua")));
/// Keeps leases.
pub(crate) static EXTEND: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/extend.lua")));
/// Gives everything back.
pub(crate) static LEAVE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/leave.lua")));

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_script_and_its_version() {
        for (script, name) in [
            (&SETTLE, "settle"),
            (&CLAIM, "claim"),
            (&EXTEND, "extend"),
            (&LEAVE, "leave"),
        ] {
            let first = script.text().lines().next();
            assert_eq!(first, Some(format!("-- streamerson:{name}:1").as_str()));
        }
    }
}
