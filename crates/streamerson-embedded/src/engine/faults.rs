//! Tests: what the disk may do to the engine, each done to it.

mod terms;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures::FutureExt;
use parking_lot::Mutex;
use streamerson_core::time::unix_ms;
use streamerson_core::{
    Append, Durability, ErrorKind, Member, Membership, Message, Name, Outcome, Position, Receipt,
    Result, Settlement, Start, Topic,
};
use tempfile::TempDir;

use super::testing::held;
use super::{Body, Engine, GroupKey, NewEntry, Trim, Want};
use crate::Options;
use crate::log::files::{Files, System};
use crate::member::EmbeddedMember;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The operating system, with faults that are switched on by an error number.
#[derive(Debug, Default)]
struct Faulty {
    /// Writes fail, half done; those of zeros, which take back, not begun.
    write: AtomicI32,
    /// Nor can they be taken back.
    cut: AtomicI32,
    sync: AtomicI32,
    syncs: AtomicU32,
    /// Syncs wait for it.
    hold: Mutex<()>,
    allocate: AtomicI32,
}

fn fault(switch: &AtomicI32) -> io::Result<()> {
    match switch.load(SeqCst) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

impl Files for Faulty {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = fault(&self.write) {
            let done = match bytes.iter().all(|byte| *byte == 0) {
                true => 0,
                false => bytes.len() / 2,
            };
            System.write(file, &bytes[..done], offset)?;
            return Err(error);
        }
        System.write(file, bytes, offset)
    }

    fn note(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        fault(&self.write)?;
        System.note(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.syncs.fetch_add(1, SeqCst);
        drop(self.hold.lock());
        fault(&self.sync)?;
        System.sync(file)
    }

    fn cut(&self, file: &File, end: u64, size: u64) -> io::Result<()> {
        fault(&self.cut)?;
        System.cut(file, end, size)
    }

    fn allocate(&self, file: &File, size: u64, written: bool) -> io::Result<()> {
        fault(&self.allocate)?;
        System.allocate(file, size, written)
    }
}

struct Store {
    dir: TempDir,
    files: Arc<Faulty>,
    options: Options,
}

impl Store {
    fn new(durability: Durability) -> Store {
        Store {
            dir: tempfile::tempdir().unwrap(),
            files: Arc::default(),
            options: Options {
                durability,
                segment_bytes: 32 << 10,
                ..Options::default()
            },
        }
    }

    fn open(&self) -> Engine {
        self.open_at(self.dir.path(), unix_ms).unwrap()
    }

    fn open_at(&self, path: &Path, unix_ms: fn() -> u64) -> Result<Engine> {
        Engine::open_with(path, &self.options, self.files.clone(), unix_ms)
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

fn ada() -> Name {
    Name::new("ada").unwrap()
}

async fn append(engine: &Engine, to: &str, data: &str) -> Result<Position> {
    let entry = NewEntry {
        topic: topic(to),
        body: Body::Message(Message::new("test", data.to_owned())),
        position: None,
    };
    engine.append(vec![entry]).await.remove(0)
}

async fn settle(engine: &Engine, position: Position, output: &'static str) -> Result<()> {
    let outputs = vec![Append::new(topic("out"), Message::new("test", output))];
    settle_as(
        engine,
        position,
        Outcome::Complete {
            outputs,
            once: None,
        },
    )
    .await
}

async fn settle_as(engine: &Engine, position: Position, outcome: Outcome) -> Result<()> {
    let settlement = Settlement {
        receipt: Receipt::new(position, 1),
        outcome,
    };
    let settled = engine.settle(&key(), &ada(), vec![settlement]).await;
    settled.into_iter().next().unwrap()
}

/// Lets ada hold everything in `orders`.
async fn take_all(engine: &Engine) -> Vec<Position> {
    engine.create_group(&key(), Start::Earliest).await.unwrap();
    let works = engine.take(&key(), &ada(), Want::New, 1000).await.unwrap();
    works.into_iter().map(|work| work.grant.position).collect()
}

#[tokio::test]
async fn who_joins_while_the_group_is_being_destroyed_goes_on_where_all_was_settled() {
    let store = Store::new(Durability::Disk);
    let engine = store.open();
    append(&engine, "orders", "done").await.unwrap();
    append(&engine, "orders", "open").await.unwrap();
    let positions = take_all(&engine).await;
    settle(&engine, positions[0], "effect").await.unwrap();

    let held = store.files.hold.lock();
    let key = key();
    let mut destroyed = std::pin::pin!(engine.lose_group(&key));
    assert!(destroyed.as_mut().now_or_never().is_none());
    let mut joined = std::pin::pin!(engine.begin_group(&key, Start::Earliest, false));
    assert!(joined.as_mut().now_or_never().is_none());
    drop(held);

    assert!(destroyed.await.unwrap());
    assert!(joined.await.unwrap(), "it begins again");
    let works = engine.take(&key, &ada(), Want::New, 1000).await.unwrap();
    let again: Vec<_> = works.iter().map(|work| work.grant.position).collect();
    assert_eq!(again, positions[1..]);
}

#[tokio::test]
async fn where_a_removed_group_was_is_known_after_a_checkpoint_and_a_restart() {
    let store = Store::new(Durability::Disk);
    let engine = store.open();
    append(&engine, "orders", "done").await.unwrap();
    let settled = take_all(&engine).await[0];
    settle(&engine, settled, "effect").await.unwrap();
    assert!(engine.remove_group(&key()).await.unwrap());
    let filler = "x".repeat(10_000);
    // The first segment is gone, and with it what it says of the group.
    for _ in 0..20 {
        append(&engine, "other", &filler).await.unwrap();
        for topic in ["orders", "out", "other"].map(topic) {
            engine.trim(&topic, Trim::Newest(0)).await.unwrap();
        }
    }
    let first = store.dir.path().join("00000000000000000001.log");
    assert!(!first.exists());
    drop(engine);
    let engine = store.open();
    assert!(
        engine
            .begin_group(&key(), Start::Earliest, true)
            .await
            .unwrap()
    );
    assert_eq!(engine.join(&key(), &ada(), None).unwrap(), settled);
}

#[tokio::test]
async fn on_a_full_disk_appends_are_refused_settlements_go_on_and_appends_resume_by_themselves() {
    let store = Store::new(Durability::Disk);
    let engine = store.open();
    append(&engine, "orders", "first").await.unwrap();
    let first = take_all(&engine).await.remove(0);
    store.files.allocate.store(ENOSPC, SeqCst);
    let filler = "x".repeat(1000);
    let mut stored = 1;
    let refusal = loop {
        match append(&engine, "orders", &filler).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 200, "the disk is full, appends must end");
    };
    assert_eq!(
        (refusal.kind(), refusal.code()),
        (ErrorKind::Unavailable, "disk-full")
    );
    settle(&engine, first, "reply").await.unwrap();
    assert_eq!(held(&engine, "out").await, ["reply"]);
    assert_eq!(held(&engine, "orders").await.len(), stored);
    engine
        .trim(&topic("orders"), Trim::Newest(1))
        .await
        .unwrap();

    store.files.allocate.store(0, SeqCst);
    let freed = Instant::now();
    while let Err(error) = append(&engine, "orders", "after").await {
        assert_eq!(error.code(), "disk-full");
        assert!(
            freed.elapsed() < Duration::from_secs(1),
            "appends must resume"
        );
        tokio::task::yield_now().await;
    }
    drop(engine);
    let engine = store.open();
    assert_eq!(held(&engine, "orders").await, [filler.as_str(), "after"]);
    assert_eq!(held(&engine, "out").await, ["reply"]);
}

#[tokio::test]
async fn a_batch_whose_appends_are_refused_still_settles() {
    let store = Store::new(Durability::Os);
    let engine = store.open();
    append(&engine, "orders", "first").await.unwrap();
    let first = take_all(&engine).await.remove(0);
    store.files.allocate.store(ENOSPC, SeqCst);
    let filler = "x".repeat(1000);
    while append(&engine, "orders", &filler).await.is_ok() {}
    let (appended, settled) = tokio::join!(
        append(&engine, "orders", &filler),
        settle(&engine, first, "reply")
    );
    assert_eq!(appended.unwrap_err().code(), "disk-full");
    settled.unwrap();
}

#[tokio::test]
async fn a_failed_write_is_taken_back_and_the_next_one_succeeds() {
    for (fault, code) in [(ENOSPC, "disk-full"), (EIO, "storage-failed")] {
        for durability in [Durability::Os, Durability::Disk] {
            let store = Store::new(durability);
            let engine = store.open();
            append(&engine, "orders", "one").await.unwrap();
            store.files.write.store(fault, SeqCst);
            let error = append(&engine, "orders", "lost").await.unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, code));
            store.files.write.store(0, SeqCst);
            append(&engine, "orders", "two").await.unwrap();
            assert_eq!(held(&engine, "orders").await, ["one", "two"]);
            drop(engine);
            let engine = store.open();
            assert_eq!(engine.recovery().truncated_bytes, 0);
            assert_eq!(held(&engine, "orders").await, ["one", "two"]);
        }
    }
}

#[tokio::test]
async fn a_settlement_that_was_not_written_did_not_happen() {
    let store = Store::new(Durability::Disk);
    let engine = store.open();
    for data in ["one", "two"] {
        append(&engine, "orders", data).await.unwrap();
    }
    let positions = take_all(&engine).await;
    store.files.write.store(EIO, SeqCst);
    let after = Duration::ZERO;
    for outcome in [
        Outcome::Complete {
            outputs: vec![],
            once: None,
        },
        Outcome::Retry { after },
    ] {
        let error = settle_as(&engine, positions[1], outcome).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let error = settle(&engine, positions[0], "lost").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    store.files.write.store(0, SeqCst);
    assert_eq!(
        engine
            .with_group(&key(), |group, _| group.pending())
            .unwrap(),
        2
    );
    assert!(held(&engine, "out").await.is_empty());
    for position in positions {
        settle(&engine, position, "reply").await.unwrap();
        let again = settle(&engine, position, "again").await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Fenced);
    }
    assert_eq!(held(&engine, "out").await, ["reply", "reply"]);
}

fn member(engine: &Engine) -> EmbeddedMember {
    let membership = Membership::new(topic("orders"), key().group, ada());
    EmbeddedMember::join(engine.clone(), key(), membership).unwrap()
}

async fn assert_stopped(engine: &Engine) {
    let error = append(engine, "orders", "later").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Corrupt, "storage-failed")
    );
    assert!(error.detail().contains("restart"), "{error}");
    let error = engine.take(&key(), &ada(), Want::New, 1).await.unwrap_err();
    assert_eq!(error.code(), "storage-failed");
    let error = engine
        .create_group(&key(), Start::Latest)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "storage-failed");
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_accepted_and_the_sync_is_not_tried_again() {
    let store = Store::new(Durability::Disk);
    let engine = store.open();
    append(&engine, "orders", "one").await.unwrap();
    take_all(&engine).await;
    let mut waiting = member(&engine);
    assert!(futures::poll!(waiting.next(1)).is_pending());
    store.files.sync.store(EIO, SeqCst);
    let error = append(&engine, "orders", "maybe").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Unknown, "storage-failed")
    );
    store.files.sync.store(0, SeqCst);
    let syncs = store.files.syncs.load(SeqCst);
    let told = waiting.next(1).await.unwrap_err();
    assert_eq!(told.code(), "storage-failed", "who waits for work is told");
    drop(waiting);
    assert_stopped(&engine).await;
    assert_eq!(
        held(&engine, "orders").await,
        ["one"],
        "what was stored can still be read"
    );
    drop(engine);
    assert_eq!(
        store.files.syncs.load(SeqCst),
        syncs,
        "a second sync proves nothing"
    );
    let engine = store.open();
    assert_eq!(held(&engine, "orders").await[0], "one");
    append(&engine, "orders", "two").await.unwrap();
}

#[tokio::test]
async fn a_write_that_can_neither_be_done_nor_taken_back_stops_the_engine() {
    let store = Store::new(Durability::Os);
    let engine = store.open();
    append(&engine, "orders", "one").await.unwrap();
    take_all(&engine).await;
    store.files.write.store(EIO, SeqCst);
    store.files.cut.store(EIO, SeqCst);
    let error = append(&engine, "orders", "maybe").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    store.files.write.store(0, SeqCst);
    store.files.cut.store(0, SeqCst);
    assert_stopped(&engine).await;
    drop(engine);
    let engine = store.open();
    assert!(engine.recovery().truncated_bytes > 0);
    assert_eq!(held(&engine, "orders").await, ["one"]);
}

#[tokio::test]
async fn a_segment_that_cannot_be_begun_refuses_appends_until_it_can() {
    let store = Store::new(Durability::Disk);
    let engine = store.open();
    let filler = "x".repeat(1000);
    store.files.allocate.store(EIO, SeqCst);
    let error = loop {
        if let Err(error) = append(&engine, "orders", &filler).await {
            break error;
        }
    };
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Unavailable, "storage-failed")
    );
    store.files.allocate.store(0, SeqCst);
    let begun = Instant::now();
    while append(&engine, "orders", "after").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
}

static CLOCK: AtomicU64 = AtomicU64::new(0);

fn clock() -> u64 {
    CLOCK.load(SeqCst)
}

#[tokio::test]
async fn positions_grow_when_the_clock_goes_back_also_over_a_restart() {
    let store = Store::new(Durability::Os);
    let hour = 3_600_000;
    let mut last = Position::ZERO;
    for now in [100 * hour, 98 * hour, 99 * hour, hour] {
        CLOCK.store(now, SeqCst);
        let engine = store.open_at(store.dir.path(), clock).unwrap();
        for back in [0, 2 * hour] {
            CLOCK.store(now.saturating_sub(back), SeqCst);
            let position = append(&engine, "orders", "x").await.unwrap();
            assert!(position > last);
            // A topic that begins later does not begin earlier: its reader may have seen another of this name.
            let other = format!("other-{now}-{back}");
            assert!(append(&engine, &other, "x").await.unwrap() > last);
            last = position;
        }
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_alone() {
    let engine = Engine::in_memory(&Options::default(), unix_ms);
    let entry = |size: usize| NewEntry {
        topic: topic("orders"),
        body: Body::Message(Message::new("test", vec![b'x'; size])),
        position: None,
    };
    let results = engine
        .append(vec![entry(1), entry(33 << 20), entry(2)])
        .await;
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Invalid, "message-too-large")
    );
}

#[tokio::test]
async fn class_memory_refuses_appends_beyond_its_limit_and_settlements_go_on() {
    let options = Options {
        memory_bytes: 64 << 10,
        ..Options::default()
    };
    let engine = Engine::in_memory(&options, unix_ms);
    append(&engine, "orders", "first").await.unwrap();
    let first = take_all(&engine).await.remove(0);
    let filler = "x".repeat(1000);
    let error = loop {
        if let Err(error) = append(&engine, "orders", &filler).await {
            break error;
        }
    };
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Unavailable, "memory-full")
    );
    settle(&engine, first, "reply").await.unwrap();
    engine
        .trim(&topic("orders"), Trim::Newest(1))
        .await
        .unwrap();
    append(&engine, "orders", "after").await.unwrap();
}

#[tokio::test]
async fn a_position_that_its_writer_insists_on_must_be_greater() {
    let engine = Engine::in_memory(&Options::default(), unix_ms);
    let insist = |major| NewEntry {
        topic: topic("orders"),
        body: Body::Message(Message::new("test", "x")),
        position: Some(Position::new(major, 0)),
    };
    let results = engine
        .append(vec![insist(5), insist(5), insist(4), insist(6)])
        .await;
    assert_eq!(results[0].as_ref().unwrap(), &Position::new(5, 0));
    assert_eq!(
        results[1].as_ref().unwrap_err().code(),
        "position-not-greater"
    );
    assert_eq!(
        results[2].as_ref().unwrap_err().code(),
        "position-not-greater"
    );
    assert!(results[3].is_ok());
}
