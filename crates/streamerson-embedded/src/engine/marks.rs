//! How far each group has been delivered, kept where it survives the death of the process.
//!
//! The log says what was settled and given back, not what was handed out: a message that kills its process would come
//! again for ever as if it had never been seen. So the cursor of a group is written to a file of its own before what it
//! covers is handed out. One small write for each batch, and never a sync: after a power loss some deliveries may be
//! forgotten, and then count one less.
//!
//! The file `delivered` has a slot for each group: its names, and behind them its cursor, each with a checksum. A slot that
//! does not read is not used.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use streamerson_core::{Name, Position, Topic};

use super::GroupKey;
use crate::log::directory::private;
use crate::log::files::Files;

/// Bytes of a slot.
const SLOT: usize = 512;

/// Where the cursor stands in a slot: 16 bytes and a checksum.
const CURSOR: usize = 480;

/// The marks of all groups.
#[derive(Debug)]
pub(crate) struct Marks {
    file: File,
    files: Arc<dyn Files>,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    of: HashMap<GroupKey, Arc<Mark>, ahash::RandomState>,
    free: Vec<u64>,
    count: u64,
}

/// How far one group has been delivered.
#[derive(Debug)]
struct Mark {
    slot: u64,
    names: u32,
    cursor: Mutex<Position>,
}

impl Marks {
    /// Opens the marks of a data directory. Answers also what they say.
    pub(crate) fn open(
        dir: &Path,
        files: Arc<dyn Files>,
    ) -> io::Result<(Marks, Vec<(GroupKey, Position)>)> {
        let path = dir.join("delivered");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let (mut slots, mut found) = (Slots::default(), Vec::new());
        for slot in bytes.chunks(SLOT) {
            match read(slot).filter(|(key, ..)| !slots.of.contains_key(key)) {
                Some((key, names, cursor)) => {
                    let mark = Mark {
                        slot: slots.count,
                        names,
                        cursor: Mutex::new(cursor),
                    };
                    slots.of.insert(key.clone(), Arc::new(mark));
                    found.push((key, cursor));
                }
                None => slots.free.push(slots.count),
            }
            slots.count += 1;
        }
        let marks = Marks {
            file: private().open(path)?,
            files,
            slots: Mutex::new(slots),
        };
        Ok((marks, found))
    }

    /// Everything up to `cursor` is delivered to `key`, or is about to be.
    pub(crate) fn reach(&self, key: &GroupKey, cursor: Position) {
        let known = self.slots.lock().of.get(key).cloned();
        let written = match known {
            Some(mark) => {
                // Whoever delivers what comes before waits here until this is written.
                let mut reached = mark.cursor.lock();
                match cursor > *reached {
                    true => self.write_cursor(&mark, cursor).map(|()| *reached = cursor),
                    false => Ok(()),
                }
            }
            None => self.begin(key, cursor),
        };
        warn_of(written);
    }

    /// The group goes on after `cursor`, which may lie before what was delivered.
    pub(crate) fn set(&self, key: &GroupKey, cursor: Position) {
        let Some(mark) = self.slots.lock().of.get(key).cloned() else {
            return;
        };
        let mut reached = mark.cursor.lock();
        *reached = cursor;
        warn_of(self.write_cursor(&mark, cursor));
    }

    /// The groups for which `gone` says so are no more.
    pub(crate) fn forget(&self, mut gone: impl FnMut(&GroupKey) -> bool) {
        let mut slots = self.slots.lock();
        let going = slots.of.iter().filter(|(key, _)| gone(key));
        let going: Vec<(GroupKey, u64)> = going.map(|(k, mark)| (k.clone(), mark.slot)).collect();
        for (key, slot) in going {
            slots.of.remove(&key);
            let blank = self.files.note(&self.file, &[0; SLOT], slot * SLOT as u64);
            // A slot that still says something must not be read for another group.
            if blank.is_ok() {
                slots.free.push(slot);
            }
            warn_of(blank);
        }
    }

    fn begin(&self, key: &GroupKey, cursor: Position) -> io::Result<()> {
        let mut slots = self.slots.lock();
        let slot = slots.free.pop().unwrap_or(slots.count);
        slots.count = slots.count.max(slot + 1);
        let (bytes, names) = slot_of(key, cursor);
        let written = self.files.note(&self.file, &bytes, slot * SLOT as u64);
        if written.is_err() {
            slots.free.push(slot);
            return written;
        }
        let mark = Mark {
            slot,
            names,
            cursor: Mutex::new(cursor),
        };
        slots.of.insert(key.clone(), Arc::new(mark));
        Ok(())
    }

    fn write_cursor(&self, mark: &Mark, cursor: Position) -> io::Result<()> {
        let at = mark.slot * SLOT as u64 + CURSOR as u64;
        let bytes = cursor_of(mark.names, cursor);
        self.files.note(&self.file, &bytes, at)
    }
}

/// Deliveries go on: what is lost is only how often a message was delivered, should the process die.
fn warn_of(written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(%error, "it could not be noted what is delivered: should the process die, it counts as not delivered");
    }
}

fn slot_of(key: &GroupKey, cursor: Position) -> ([u8; SLOT], u32) {
    let mut slot = [0; SLOT];
    let mut at = 4;
    for name in [key.topic.as_str(), key.group.as_str()] {
        // Names are at most 204 bytes: see `Topic` and `Name`.
        slot[at] = name.len() as u8;
        slot[at + 1..at + 1 + name.len()].copy_from_slice(name.as_bytes());
        at += 1 + name.len();
    }
    let names = crc32c::crc32c(&slot[4..CURSOR]);
    slot[..4].copy_from_slice(&names.to_le_bytes());
    slot[CURSOR..CURSOR + 20].copy_from_slice(&cursor_of(names, cursor));
    (slot, names)
}

/// The cursor and its checksum, which binds it to the names.
fn cursor_of(names: u32, cursor: Position) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&cursor.major().to_le_bytes());
    bytes[8..16].copy_from_slice(&cursor.minor().to_le_bytes());
    let crc = crc32c::crc32c_append(names, &bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn read(slot: &[u8]) -> Option<(GroupKey, u32, Position)> {
    let names = u32::from_le_bytes(slot.get(..4)?.try_into().ok()?);
    let text = slot.get(4..CURSOR)?;
    if names != crc32c::crc32c(text) {
        return None;
    }
    let (topic, rest) = name(text)?;
    let (group, _) = name(rest)?;
    let key = GroupKey {
        topic: Topic::new(topic.to_owned()).ok()?,
        group: Name::new(group.to_owned()).ok()?,
    };
    let long = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let cursor = Position::new(long(CURSOR)?, long(CURSOR + 8)?);
    let intact = slot.get(CURSOR..CURSOR + 20)? == cursor_of(names, cursor);
    intact.then_some((key, names, cursor))
}

fn name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::files::System;

    fn key(topic: &str) -> GroupKey {
        GroupKey {
            topic: Topic::new(topic.to_owned()).unwrap(),
            group: Name::new("group").unwrap(),
        }
    }

    fn open(dir: &Path) -> (Marks, Vec<(GroupKey, Position)>) {
        Marks::open(dir, Arc::new(System)).unwrap()
    }

    #[test]
    fn a_mark_only_grows_until_the_group_is_moved_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let longest = key(&"x".repeat(200));
        let (marks, found) = open(dir.path());
        assert_eq!(found, []);
        for n in [5, 7, 6] {
            marks.reach(&longest, Position::new(n, 1));
            marks.reach(&key("other"), Position::new(n, 2));
        }
        let (marks, found) = open(dir.path());
        let expected = [
            (longest.clone(), Position::new(7, 1)),
            (key("other"), Position::new(7, 2)),
        ];
        assert_eq!(found, expected);
        marks.set(&longest, Position::new(2, 0));
        marks.forget(|key| key.topic.as_str() == "other");
        marks.reach(&key("third"), Position::new(1, 1));
        let (_, found) = open(dir.path());
        let expected = [
            (longest, Position::new(2, 0)),
            (key("third"), Position::new(1, 1)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn no_bit_flip_is_taken_for_another_mark() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path())
            .0
            .reach(&key("orders"), Position::new(7, 7));
        let path = dir.path().join("delivered");
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, damaged).unwrap();
            let (_, found) = open(dir.path());
            let unused = bit / 8 >= CURSOR + 20;
            assert_eq!(found.len(), usize::from(unused), "bit {bit}");
        }
    }
}
