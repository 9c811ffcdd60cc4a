//! Tests: the power goes after a restart, and takes what was only in the page cache.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use streamerson_core::time::unix_ms;
use streamerson_core::{Append, Durability, ErrorKind, Message, Once, Position, Result, Topic};
use tempfile::TempDir;

use super::testing::held;
use super::{Engine, Trim};
use crate::Options;
use crate::log::files::{Files, System};

const EIO: i32 = 5;

const WORKS: u8 = 0;
/// The process is killed before the sync: what was written stays in the page cache, dirty.
const KILLED: u8 = 1;
/// The disk refuses: Linux takes the pages for clean from then on, and keeps them.
const REFUSED: u8 = 2;

/// Where, and what.
type Write = (u64, Vec<u8>);

/// The operating system, with a page cache that a power loss takes. Names of files are durable at once.
#[derive(Debug, Default)]
struct PageCache {
    sync: AtomicU8,
    /// So many syncs work before.
    first: AtomicU32,
    /// By inode: what is on the disk,
    disk: Mutex<HashMap<u64, Vec<u8>>>,
    /// and what is not.
    dirty: Mutex<HashMap<u64, Vec<Write>>>,
}

impl PageCache {
    /// The directory as it is after a power loss.
    fn after_power_loss(&self, dir: &Path) -> TempDir {
        let crashed = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let ino = entry.metadata().unwrap().ino();
            let bytes = match self.disk.lock().get(&ino) {
                Some(bytes) => bytes.clone(),
                None => fs::read(entry.path()).unwrap(),
            };
            fs::write(crashed.path().join(entry.file_name()), bytes).unwrap();
        }
        crashed
    }
}

impl Files for PageCache {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let ino = file.metadata()?.ino();
        let mut dirty = self.dirty.lock();
        dirty.entry(ino).or_default().push((offset, bytes.to_vec()));
        System.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let ino = file.metadata()?.ino();
        let how = self.sync.load(SeqCst);
        let ends = how != WORKS && self.first.load(SeqCst) == 0;
        if ends {
            if how == REFUSED {
                self.dirty.lock().remove(&ino);
            }
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if how != WORKS {
            self.first.fetch_sub(1, SeqCst);
        }
        let mut disk = self.disk.lock();
        let image = disk.entry(ino).or_default();
        for (offset, bytes) in self.dirty.lock().remove(&ino).unwrap_or_default() {
            let (offset, end) = (offset as usize, offset as usize + bytes.len());
            image.resize(image.len().max(end), 0);
            image[offset..end].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn cut(&self, file: &File, end: u64, size: u64) -> io::Result<()> {
        System.cut(file, end, size)
    }

    fn allocate(&self, file: &File, size: u64, written: bool) -> io::Result<()> {
        System.allocate(file, size, written)?;
        let ino = file.metadata()?.ino();
        self.dirty.lock().remove(&ino);
        self.disk.lock().insert(ino, vec![0; size as usize]);
        Ok(())
    }
}

/// A data directory on such a machine.
struct Machine {
    files: Arc<PageCache>,
    dir: TempDir,
    options: Options,
}

impl Machine {
    fn new(segment_bytes: u64) -> Machine {
        Machine {
            files: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            options: Options {
                durability: Durability::Disk,
                segment_bytes,
                ..Options::default()
            },
        }
    }

    fn try_open(&self) -> Result<Engine> {
        Engine::open_with(self.dir.path(), &self.options, self.files.clone(), unix_ms)
    }

    fn open(&self) -> Engine {
        self.try_open().unwrap()
    }

    fn syncs_end(&self, how: u8) {
        self.files.sync.store(how, SeqCst);
    }

    /// One message is acknowledged, the sync of the second ends as `how`, and the process begins anew.
    async fn second_is_not_synced(&self, how: u8) -> Engine {
        let engine = self.open();
        send(&engine, message("orders", "first")).await.unwrap();
        self.syncs_end(how);
        let unknown = send(&engine, keyed("second")).await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::Unknown);
        drop(engine);
        self.syncs_end(WORKS);
        self.open()
    }

    /// What `of` holds after a power loss.
    async fn after_power_loss(&self, of: &str) -> Vec<String> {
        let crashed = self.files.after_power_loss(self.dir.path());
        held(&Engine::open(crashed.path(), &self.options).unwrap(), of).await
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name.to_owned()).unwrap()
}

fn message(to: &str, data: &str) -> Append {
    Append::new(topic(to), Message::new("test", data.to_owned()))
}

fn keyed(data: &str) -> Append {
    message("orders", data).once(Once::new("key", Duration::from_secs(3600)))
}

async fn send(engine: &Engine, append: Append) -> Result<Position> {
    engine.append_messages(vec![append]).await.remove(0)
}

#[tokio::test]
async fn what_is_acknowledged_as_a_repetition_after_a_kill_survives_a_power_loss() {
    for how in [KILLED, REFUSED] {
        let machine = Machine::new(4 << 10);
        let engine = machine.second_is_not_synced(how).await;
        send(&engine, keyed("second")).await.expect("a repetition");
        assert_eq!(
            machine.after_power_loss("orders").await,
            ["first", "second"]
        );
    }
}

#[tokio::test]
async fn a_directory_opens_after_a_kill_another_segment_and_a_power_loss() {
    let machine = Machine::new(4 << 10);
    let engine = machine.second_is_not_synced(KILLED).await;
    let large = "x".repeat(4 << 10);
    send(&engine, message("orders", &large)).await.unwrap();
    assert_eq!(
        machine.after_power_loss("orders").await,
        ["first", "second", &large]
    );
}

#[tokio::test]
async fn a_directory_opens_after_a_kill_in_the_removal_of_a_segment_and_a_power_loss() {
    let machine = Machine::new(16 << 10);
    let engine = machine.open();
    let (first, second) = ("x".repeat(11 << 10), "x".repeat(6 << 10));
    send(&engine, message("passing", &first)).await.unwrap();
    send(&engine, message("orders", &second)).await.unwrap();
    let removed = machine.dir.path().join("00000000000000000001.log");
    // The trim is synced, and that the first segment goes, which follows, is not.
    machine.files.first.store(1, SeqCst);
    machine.syncs_end(KILLED);
    engine
        .trim(&topic("passing"), Trim::Newest(0))
        .await
        .unwrap();
    drop(engine);
    assert!(removed.exists());
    machine.syncs_end(WORKS);
    let engine = machine.open();
    assert!(!removed.exists());
    assert_eq!(held(&engine, "orders").await.len(), 1);
    assert_eq!(machine.after_power_loss("orders").await.len(), 1);
}

#[tokio::test]
async fn what_class_os_left_in_the_page_cache_is_on_the_disk_when_class_disk_takes_over() {
    let mut machine = Machine::new(4 << 10);
    machine.options.durability = Durability::Os;
    machine.syncs_end(KILLED);
    let engine = machine.open();
    let data: Vec<String> = (0..10)
        .map(|n| format!("{n}{}", "x".repeat(1500)))
        .collect();
    for data in &data {
        send(&engine, message("orders", data)).await.unwrap();
    }
    drop(engine);
    machine.syncs_end(WORKS);
    machine.options.durability = Durability::Disk;
    let engine = machine.open();
    assert!(engine.recovery().segments > 2);
    assert_eq!(machine.after_power_loss("orders").await, data);
}

#[tokio::test]
async fn what_follows_a_refused_sync_and_a_restart_survives_a_power_loss() {
    let machine = Machine::new(4 << 10);
    let engine = machine.second_is_not_synced(REFUSED).await;
    assert_eq!(held(&engine, "orders").await, ["first", "second"]);
    send(&engine, message("orders", "third")).await.unwrap();
    let all = ["first", "second", "third"];
    assert_eq!(machine.after_power_loss("orders").await, all);
}

#[tokio::test]
async fn a_sync_that_is_refused_while_opening_is_made_good_by_the_next_opening() {
    let machine = Machine::new(4 << 10);
    let engine = machine.open();
    send(&engine, message("orders", "first")).await.unwrap();
    machine.syncs_end(REFUSED);
    send(&engine, keyed("second")).await.unwrap_err();
    drop(engine);
    for _ in 0..2 {
        let error = machine.try_open().unwrap_err();
        assert_eq!(error.code(), "storage-failed", "{error}");
    }
    machine.syncs_end(WORKS);
    let engine = machine.open();
    send(&engine, keyed("second")).await.expect("a repetition");
    assert_eq!(
        machine.after_power_loss("orders").await,
        ["first", "second"]
    );
}

#[tokio::test]
async fn an_interrupted_write_that_comes_back_behind_the_end_of_a_segment_does_no_harm() {
    let machine = Machine::new(4 << 10);
    let engine = machine.open();
    send(&engine, message("orders", "first")).await.unwrap();
    drop(engine);
    let segment = machine.dir.path().join("00000000000000000001.log");
    let written = fs::read(&segment).unwrap();
    let end = written.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let file = File::options().write(true).open(&segment).unwrap();
    let torn = [0x55; 1000];
    machine.files.write(&file, &torn, end as u64).unwrap();
    machine.files.sync(&file).unwrap();

    // It is overwritten with zeros, and those are refused: they are in the page cache only.
    machine.syncs_end(REFUSED);
    machine.try_open().unwrap_err();
    machine.syncs_end(WORKS);
    let engine = machine.open();
    assert_eq!(engine.recovery().truncated_bytes, 0);
    let large = "x".repeat(4 << 10);
    for data in ["second", &large] {
        send(&engine, message("orders", data)).await.unwrap();
    }
    let all = ["first", "second", &large];
    assert_eq!(machine.after_power_loss("orders").await, all);
}
