//! Our Lua scripts, in their native form. There is no Lua here: a script is known by its first line, which names it
//! and the version of its keys, arguments and answer.

mod append;
mod claim;
mod extend;
mod join;
mod lease;
mod leave;
mod outputs;
mod pending;
mod settle;
mod take;
mod upkeep;

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use streamerson_core::{Name, Topic};

use super::arguments::Arguments;
use super::commands::Answer;
use super::failure::Failure;
use super::keys::Keys;
use super::reply::Reply;
use super::session::Session;
use crate::engine::GroupKey;

/// One of our scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    /// Makes a member known, and its group.
    Join,
    /// Ends deliveries, each with its outputs.
    Settle,
    /// Takes over what others gave up.
    Claim,
    /// Keeps the leases of what a member holds.
    Extend,
    /// Hands over all that a member holds, and forgets the member.
    Leave,
    /// Appends messages on terms.
    Append,
    /// Takes one entry out, and appends.
    Take,
    /// Leases of a topic.
    Lease,
    /// What is delivered and not settled.
    Pending,
    /// Lets a group go on elsewhere.
    Seek,
    /// Removes a topic, a group, or members.
    Remove,
    /// Divides a topic.
    Divide,
}

const FIRST_LINES: [(&str, Script); 12] = [
    ("-- streamerson:join:1", Script::Join),
    ("-- streamerson:settle:2", Script::Settle),
    ("-- streamerson:claim:3", Script::Claim),
    ("-- streamerson:extend:2", Script::Extend),
    ("-- streamerson:leave:2", Script::Leave),
    ("-- streamerson:append:1", Script::Append),
    ("-- streamerson:take:1", Script::Take),
    ("-- streamerson:lease:1", Script::Lease),
    ("-- streamerson:pending:1", Script::Pending),
    ("-- streamerson:seek:2", Script::Seek),
    ("-- streamerson:remove:1", Script::Remove),
    ("-- streamerson:divide:1", Script::Divide),
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
            Script::Join => join::run(session, call).await,
            Script::Settle => settle::run(session, call).await,
            Script::Claim => claim::run(session, call).await,
            Script::Extend => extend::run(session, call),
            Script::Leave => leave::run(session, call),
            Script::Append => append::run(session, call).await,
            Script::Take => take::run(session, call).await,
            Script::Lease => lease::run(session, call).await,
            Script::Pending => pending::run(session, call),
            Script::Seek => upkeep::seek(session, call).await,
            Script::Remove => upkeep::remove(session, call).await,
            Script::Divide => upkeep::divide(session, call).await,
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

    /// The group and the member that most of our scripts begin with.
    fn membership(&mut self, keys: &Keys) -> Result<(GroupKey, Name), Failure> {
        let topic = self.topic(keys)?;
        let group = self.arguments.name()?;
        let member = self.arguments.name()?;
        Ok((GroupKey { topic, group }, member))
    }
}

/// The answers to a batch. Where nothing was done, the refusal is the answer, as that of Redis, which refuses before it writes. Else
/// each refusal stands in its place: who takes it for that of the whole batch would do the rest again.
fn one_by_one(answers: Vec<Result<Reply, Failure>>) -> Answer {
    let is_refused = !answers.is_empty() && answers.iter().all(Result::is_err);
    let mut refusals = answers.iter().filter_map(|answer| answer.as_ref().err());
    let lost = refusals.clone().find(|refusal| **refusal == Failure::LOST);
    match lost.or_else(|| refusals.next().filter(|_| is_refused)) {
        Some(refusal) => Err(refusal.clone()),
        None => {
            let answers = answers.into_iter();
            Ok(Reply::List(
                answers
                    .map(|it| it.unwrap_or_else(Failure::reply))
                    .collect(),
            ))
        }
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
        let (digest, script) = library.load(b"-- streamerson:leave:2\nreturn 1").unwrap();
        assert_eq!(script, Script::Leave);
        assert_eq!(library.find(digest.to_uppercase().as_bytes()), Some(script));
        for other in [
            "",
            "return 1",
            "-- streamerson:leave:1\n",
            "--streamerson:leave:2",
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
                .load(format!("-- streamerson:claim:3\n-- {n}").as_bytes())
                .unwrap();
        }
        assert!(library.scripts.lock().len() <= MOST);
    }
}
