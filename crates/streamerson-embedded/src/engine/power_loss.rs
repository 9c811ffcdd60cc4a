//! Tests: the power goes during a write, and any of its sectors may have reached the disk, in any order.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use streamerson_core::time::unix_ms;
use streamerson_core::{
    Append, Durability, Message, Name, Once, Outcome, Position, Receipt, Settlement, Start, Topic,
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

/// What of the extended contract the engine knows.
async fn known(engine: &Engine) -> (usize, usize, [u64; 5]) {
    let (orders, out) = (held(engine, "orders").await, held(engine, "out").await);
    let state = engine.inner.shared.state.lock();
    let of = state.topic(&topic("orders")).unwrap();
    let effects = of.effects.values().map(|effects| effects.len() as u64);
    let known = [
        of.scheduled,
        of.partitions.into(),
        of.keys.len() as u64,
        effects.sum(),
        of.leases.epoch(),
    ];
    (orders, out, known)
}

#[tokio::test]
async fn terms_divisions_and_removals_are_there_as_a_whole_or_not_at_all() {
    let files = Arc::new(Watched::default());
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(dir.path(), &options(), files.clone(), unix_ms).unwrap();
    engine.create_group(&key(), Start::Earliest).await.unwrap();
    let hour = Duration::from_secs(3600);
    let orders = topic("orders");
    let send = |n: usize| Append::new(orders.clone(), message(n));
    let first = engine
        .append_messages(vec![send(0)])
        .await
        .remove(0)
        .unwrap();
    let ada = Name::new("ada").unwrap();
    engine.take(&key(), &ada, Want::New, 1).await.unwrap();
    files.watching.store(true, SeqCst);
    let mut facts = vec![known(&engine).await];
    for step in 0..6 {
        match step {
            0 => {
                let once = send(1).once(Once::new("k", hour));
                engine.append_messages(vec![once]).await.remove(0).unwrap();
            }
            1 => {
                let later = send(9).due_at(unix_ms() + 3_600_000);
                engine.append_messages(vec![later]).await.remove(0).unwrap();
            }
            2 => assert_eq!(engine.divide(&orders, 8).await.unwrap(), 8),
            3 => {
                let seat = Name::new("seat").unwrap();
                engine.acquire(&orders, &seat, &ada, 60_000).await.unwrap();
            }
            4 => {
                let outputs = vec![Append::new(topic("out"), message(0))];
                let settlement = Settlement::complete_with(Receipt::new(first, 1), outputs);
                let settlement = settlement.once(Once::new("e", hour));
                let settled = engine.settle(&key(), &ada, vec![settlement]).await;
                settled.into_iter().for_each(|settled| settled.unwrap());
            }
            _ => {
                let last = Position::new(u64::MAX, u64::MAX);
                let range = engine.range(&orders, Position::ZERO, last, 9, Direction::Forward);
                let (second, _) = range.await.unwrap().remove(1);
                let moved = vec![Append::new(topic("out"), message(1))];
                assert!(engine.take_out(&orders, second, moved).await.unwrap());
            }
        }
        facts.push(known(&engine).await);
    }
    files.watching.store(false, SeqCst);
    let writes = files.writes.lock().clone();
    assert_eq!(writes.len(), 6);
    for (done, write) in writes.iter().enumerate() {
        assert_ne!(facts[done], facts[done + 1]);
        for reached in 0..1 << write.sectors() {
            let crashed = after_crash(&write.image(reached));
            let engine = Engine::open(crashed.path(), &options()).unwrap();
            let found = known(&engine).await;
            let whole = reached == (1 << write.sectors()) - 1;
            assert!(
                found == facts[done] || whole && found == facts[done + 1],
                "step {done}, sectors {reached:b}: {found:?}"
            );
        }
    }
}
