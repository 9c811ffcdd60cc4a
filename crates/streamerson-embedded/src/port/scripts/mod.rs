//! Our Lua scripts, in their native form. There is no Lua here: a script is known by its first line, which names it
//! and the version of its keys, arguments and answer.

mod claim;
mod extend;
mod leave;
mod settle;

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use streamerson_core::{Name, Topic};

use super::arguments::Arguments;
use super::commands::Answer;
use super::failure::Failure;
use super::keys::Keys;
use super::session::Session;
use crate::engine::GroupKey;

/// One of our scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    /// Ends deliveries, each with its outputs.
    Settle,
    /// Takes over what others gave up.
    Claim,
    /// Keeps the leases of what a member holds.
    Extend,
    /// Hands over all that a member holds, and forgets the member.
    Leave,
}

const FIRST_LINES: [(&str, Script); 4] = [
    ("-- streamerson:settle:1", Script::Settle),
    ("-- streamerson:claim:1", Script::Claim),
    ("-- streamerson:extend:1", Script::Extend),
    ("-- streamerson:leave:1", Script::Leave),
];

impl Script {
    fn recognise(text: &[u8]) -> Result<Script, Failure> {
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first = first.trim_ascii_end();
        let known = FIRST_LINES
            .iter()
            .find(|(line, _)| line.as_bytes() == first);
        known.map(|(_, script)| *script).ok_or_else(|| {
            Failure::err(format_args!(
                "this is the port of an embedded broker, which runs no Lua but knows these scripts by their first \
                 line: {}",
                FIRST_LINES.map(|(line, _)| line).join(", ")
            ))
        })
    }

    /// Runs it.
    pub(super) async fn run(self, session: &Session, call: Call) -> Answer {
        match self {
            Script::Settle => settle::run(session, call).await,
            Script::Claim => claim::run(session, call).await,
            Script::Extend => extend::run(session, call),
            Script::Leave => leave::run(session, call),
        }
    }
}

/// What a script is called with.
#[derive(Debug)]
pub(super) struct Call {
    /// `KEYS`.
    pub(super) keys: Vec<Bytes>,
    /// `ARGV`.
    pub(super) arguments: Arguments,
}

impl Call {
    /// The topic of `KEYS[1]`.
    fn topic(&self, keys: &Keys) -> Result<Topic, Failure> {
        let first = self.keys.first();
        keys.stream(
            first.ok_or_else(|| Failure::err("this script needs the stream as its first key"))?,
        )
    }

    /// The group and the member that every one of our scripts begins with.
    fn membership(&mut self, keys: &Keys) -> Result<(GroupKey, Name), Failure> {
        let topic = self.topic(keys)?;
        let group = self.arguments.name()?;
        let member = self.arguments.name()?;
        Ok((GroupKey { topic, group }, member))
    }
}

/// The scripts that clients have loaded, by the digest of their text.
#[derive(Debug, Default)]
pub(super) struct Library {
    scripts: Mutex<HashMap<String, Script>>,
}

/// Texts differ by version and language of the client: a handful. More than this is noise, and clients load again what
/// is not there any more.
const MOST: usize = 256;

impl Library {
    /// Notes a script; answers its digest, by which it is called from now on.
    pub(super) fn load(&self, text: &[u8]) -> Result<(String, Script), Failure> {
        let script = Script::recognise(text)?;
        let digest = Sha1::digest(text);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut scripts = self.scripts.lock();
        if scripts.len() >= MOST && !scripts.contains_key(&digest) {
            scripts.clear();
        }
        scripts.insert(digest.clone(), script);
        Ok((digest, script))
    }

    /// The script with this digest, in either case.
    pub(super) fn find(&self, digest: &[u8]) -> Option<Script> {
        let digest = std::str::from_utf8(digest).ok()?.to_ascii_lowercase();
        self.scripts.lock().get(&digest).copied()
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.scripts.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_known_by_their_first_line() {
        let library = Library::default();
        let (digest, script) = library.load(b"-- streamerson:leave:1\nreturn 1").unwrap();
        assert_eq!(script, Script::Leave);
        assert_eq!(library.find(digest.to_uppercase().as_bytes()), Some(script));
        for other in [
            "",
            "return 1",
            "-- streamerson:leave:2\n",
            "--streamerson:leave:1",
        ] {
            assert!(library.load(other.as_bytes()).is_err(), "{other}");
        }
        library.clear();
        assert_eq!(library.find(digest.as_bytes()), None);
    }

    #[test]
    fn the_library_is_bounded() {
        let library = Library::default();
        for n in 0..2 * MOST {
            library
                .load(format!("-- streamerson:claim:1\n-- {n}").as_bytes())
                .unwrap();
        }
        assert!(library.scripts.lock().len() <= MOST);
    }
}
