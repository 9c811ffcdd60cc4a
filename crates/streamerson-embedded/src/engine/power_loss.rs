//! Tests: the power goes during a write, and any of its sectors may have reached the disk, in any order.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use parking_lot::Mutex;
use streamerson_core::time::unix_ms;
use streamerson_core::{
    Append, Durability, Message, Name, Outcome, Position, Receipt, Settlement, Start, Topic,
};
use tempfile::TempDir;

use super::{Body, Direction, Engine, GroupKey, NewEntry, Want};
use crate::Options;
use crate::log::files::{Files, System};

const SECTOR: usize = 512;

/// A write that was under way: what the disk held for sure, and what was to be added.
#[derive(Debug, Clone)]
struct Write {
    before: Vec<u8>,
    offset: usize,
    bytes: Vec<u8>,
}

/// The operating system, watched.
#[derive(Debug, Default)]
struct Watched {
    watching: AtomicBool,
    writes: Mutex<Vec<Write>>,
    unsynced: AtomicBool,
}

impl Files for Watched {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let frame = bytes.iter().any(|byte| *byte != 0);
        if frame && self.watching.load(SeqCst) {
            // So what the file holds is what the disk holds.
            assert!(
                !self.unsynced.swap(true, SeqCst),
                "two writes without a sync"
            );
            let mut before = vec![0; file.metadata()?.len() as usize];
            file.read_exact_at(&mut before, 0)?;
            self.writes.lock().push(Write {
                before,
                offset: offset as usize,
                bytes: bytes.to_vec(),
            });
        }
        System.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.unsynced.store(false, SeqCst);
        System.sync(file)
    }

    fn cut(&self, file: &File, end: u64, size: u64) -> io::Result<()> {
        System.cut(file, end, size)
    }

    fn allocate(&self, file: &File, size: u64, written: bool) -> io::Result<()> {
        System.allocate(file, size, written)
    }
}

impl Write {
    /// The sectors it touches.
    fn sectors(&self) -> usize {
        (self.offset + self.bytes.len()).div_ceil(SECTOR) - self.offset / SECTOR
    }

    /// The file, when only the sectors whose bit is set in `reached` were written.
    fn image(&self, reached: u32) -> Vec<u8> {
        let mut image = self.before.clone();
        for (ahead, byte) in self.bytes.iter().enumerate() {
            let at = self.offset + ahead;
            let sector = at / SECTOR - self.offset / SECTOR;
            if reached & (1 << sector) != 0 {
                image[at] = *byte;
            }
        }
        image
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name.to_owned()).unwrap()
}

fn key() -> GroupKey {
    GroupKey {
        topic: topic("orders"),
        group: Name::new("group").unwrap(),
    }
}

fn options() -> Options {
    Options {
        durability: Durability::Disk,
        segment_bytes: 32 << 10,
        ..Options::default()
    }
}

fn message(n: usize) -> Message {
    Message::new("test", format!("{n}:{}", "x".repeat(1500)))
}

async fn held(engine: &Engine, of: &str) -> usize {
    let (of, last) = (topic(of), Position::new(u64::MAX, u64::MAX));
    let range = engine.range(&of, Position::ZERO, last, 1000, Direction::Forward);
    let entries = range.await.unwrap().into_iter().enumerate();
    let texts = entries.map(|(n, (_, body))| {
        let data = body.into_message().unwrap().data;
        assert_eq!(data, message(n).data, "wrong data");
    });
    texts.count()
}

/// Appends four messages and settles two, each with an output: six writes.
async fn write_all(engine: &Engine) {
    for n in 0..4 {
        let entry = NewEntry {
            topic: topic("orders"),
            body: Body::Message(message(n)),
            position: None,
        };
        engine.append([entry]).await.remove(0).unwrap();
    }
    let ada = Name::new("ada").unwrap();
    let works = engine.take(&key(), &ada, Want::New, 2).await.unwrap();
    for (n, work) in works.into_iter().enumerate() {
        let outputs = vec![Append::new(topic("out"), message(n))];
        let settlement = Settlement {
            receipt: Receipt::new(work.grant.position, work.grant.attempt),
            outcome: Outcome::Complete {
                outputs,
                once: None,
            },
        };
        let settled = engine.settle(&key(), &ada, vec![settlement]).await;
        settled.into_iter().for_each(|settled| settled.unwrap());
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_and_what_was_not_is_there_as_a_whole_or_not_at_all() {
    let files = Arc::new(Watched::default());
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(dir.path(), &options(), files.clone(), unix_ms).unwrap();
    engine.create_group(&key(), Start::Earliest).await.unwrap();
    files.watching.store(true, SeqCst);
    write_all(&engine).await;
    files.watching.store(false, SeqCst);
    let writes = files.writes.lock().clone();
    assert_eq!(writes.len(), 6);
    for (done, write) in writes.iter().enumerate() {
        let sectors = write.sectors();
        assert!((4..=5).contains(&sectors));
        for reached in 0..1 << sectors {
            let whole = reached == (1 << sectors) - 1;
            let crashed = after_crash(&write.image(reached));
            // On other files: the power is back.
            let engine = Engine::open(crashed.path(), &options()).unwrap();
            let orders = held(&engine, "orders").await;
            let out = held(&engine, "out").await;
            let pending = engine
                .with_topic(&topic("orders"), |view| {
                    let group = view.groups.get(&key().group).unwrap();
                    (view.count_after)(group.cursor()) as usize + group.pending()
                })
                .unwrap();
            assert_eq!(
                pending + out,
                orders,
                "settled without its output, or not with it"
            );
            let effects = orders + out;
            assert!(
                effects == done || whole && effects == done + 1,
                "{effects} of {done}"
            );
        }
    }
}

fn after_crash(image: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("00000000000000000001.log"), image).unwrap();
    dir
}
