//! Tests: nothing is written beyond the room that a segment was given, whatever is sent, trimmed, removed and rolled; and what should be
//! there reads back from the disk.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use proptest::prelude::*;
use streamerson_core::time::unix_ms;
use streamerson_core::{
    Append, Durability, Message, Name, Once, Position, Receipt, Settlement, Start, Topic,
};
use tempfile::TempDir;

use super::{Body, Direction, Engine, GroupKey, Trim, Want};
use crate::Options;
use crate::log::files::{Files, System};

/// The operating system; notices writes beyond the end of a file.
#[derive(Debug, Default)]
struct Bounded {
    exceeded: AtomicBool,
}

impl Files for Bounded {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset + bytes.len() as u64 > file.metadata()?.len() {
            self.exceeded.store(true, SeqCst);
        }
        System.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        System.sync(file)
    }

    fn cut(&self, file: &File, end: u64, size: u64) -> io::Result<()> {
        System.cut(file, end, size)
    }

    fn allocate(&self, file: &File, size: u64, written: bool) -> io::Result<()> {
        System.allocate(file, size, written)
    }
}

/// An engine on small segments that keeps no body in memory, and what each topic should hold.
struct Store {
    durability: Durability,
    dir: TempDir,
    files: Arc<Bounded>,
    engine: Option<Engine>,
    model: BTreeMap<Topic, VecDeque<(Position, Vec<u8>)>>,
    sent: u8,
}

impl Store {
    fn new() -> Store {
        Store::on(Durability::Os)
    }

    fn on(durability: Durability) -> Store {
        let mut store = Store {
            durability,
            dir: tempfile::tempdir().unwrap(),
            files: Arc::default(),
            engine: None,
            model: BTreeMap::new(),
            sent: 0,
        };
        store.reopen();
        store
    }

    fn reopen(&mut self) {
        let options = Options {
            durability: self.durability,
            segment_bytes: SEGMENT as u64,
            cache_bytes: 0,
            ..Options::default()
        };
        // The directory is released first.
        self.engine = None;
        let engine = Engine::open_with(self.dir.path(), &options, self.files.clone(), unix_ms);
        self.engine = Some(engine.unwrap());
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    async fn send(&mut self, to: usize, sizes: &[usize]) {
        let topic = topic(to);
        let bodies: Vec<Vec<u8>> = sizes
            .iter()
            .map(|size| {
                self.sent = self.sent.wrapping_add(1);
                vec![self.sent; *size]
            })
            .collect();
        let batch = bodies
            .iter()
            .map(|body| Append::new(topic.clone(), Message::new("test", body.clone())));
        let stored = self.engine().append_messages(batch.collect()).await;
        let stored = stored.into_iter().map(|stored| stored.unwrap());
        self.model
            .entry(topic)
            .or_default()
            .extend(stored.zip(bodies));
    }

    async fn trim(&mut self, of: usize, keep: usize) {
        let topic = topic(of);
        let trim = Trim::Newest(keep as u64);
        self.engine().trim(&topic, trim).await.unwrap();
        if let Some(held) = self.model.get_mut(&topic) {
            held.drain(..held.len().saturating_sub(keep));
        }
    }

    async fn take_out(&mut self, of: usize, nth: usize) {
        let topic = topic(of);
        let Some(held) = self.model.get_mut(&topic).filter(|held| !held.is_empty()) else {
            return;
        };
        let (position, _) = held.remove(nth % held.len()).unwrap();
        let taken = self.engine().take_out(&topic, position, Vec::new()).await;
        assert!(taken.unwrap());
    }

    async fn remove(&mut self, of: usize) {
        let topic = topic(of);
        self.engine().remove_topic(&topic).await.unwrap();
        self.model.remove(&topic);
    }

    async fn join(&self, of: usize, group: usize) {
        let key = GroupKey {
            topic: topic(of),
            group: self::group(group),
        };
        let engine = self.engine();
        engine.create_group(&key, Start::Earliest).await.unwrap();
    }

    /// Everything that should be there is, and is read from the disk.
    async fn check(&self) {
        for (topic, model) in &self.model {
            let mut from = Position::ZERO;
            let mut held = Vec::new();
            while held.len() < model.len() {
                let last = Position::new(u64::MAX, u64::MAX);
                let range = self
                    .engine()
                    .range(topic, from, last, 1000, Direction::Forward);
                let part = range.await.unwrap();
                assert!(!part.is_empty(), "{topic} has fewer entries than it should");
                from = part.last().unwrap().0.successor(0);
                held.extend(part.into_iter().map(read));
            }
            assert!(held.iter().eq(model.iter()), "{topic}");
        }
        assert!(
            !self.files.exceeded.load(SeqCst),
            "beyond the end of a file"
        );
    }
}

fn read((position, body): (Position, Body)) -> (Position, Vec<u8>) {
    (position, body.into_message().unwrap().data.to_vec())
}

fn group(n: usize) -> Name {
    Name::new(format!("{}-{n}", "g".repeat(190))).unwrap()
}

fn topic(n: usize) -> Topic {
    Topic::new(format!("{}-{n}", "topic".repeat(30))).unwrap()
}

/// The smallest there is.
const SEGMENT: usize = 4 << 10;

#[tokio::test]
async fn the_first_message_may_be_larger_than_a_segment() {
    let mut store = Store::new();
    store.send(0, &[3 * SEGMENT]).await;
    store.check().await;
    store.reopen();
    store.check().await;
}

#[tokio::test]
async fn a_message_larger_than_a_segment_may_follow_when_all_before_it_is_trimmed() {
    let mut store = Store::new();
    store.send(0, &[3 * SEGMENT]).await;
    for _ in 0..3 {
        store.trim(0, 0).await;
        store.send(0, &[3 * SEGMENT]).await;
        store.check().await;
    }
}

#[tokio::test]
async fn more_segments_may_be_emptied_at_once_than_there_is_room_to_note() {
    let mut store = Store::new();
    // Each in a segment of its own.
    for _ in 0..160 {
        store.send(0, &[SEGMENT]).await;
    }
    // They leave hardly more than the trim itself may take.
    for group in 0..4 {
        store.join(0, group).await;
    }
    store.trim(0, 0).await;
    store.check().await;
    // Those that stayed go with the next segment.
    store.send(1, &[3 * SEGMENT]).await;
    store.reopen();
    assert_eq!(store.engine().recovery().segments, 1);
    store.check().await;
}

#[tokio::test]
async fn a_segment_that_a_crash_kept_from_being_deleted_is_dropped() {
    let mut store = Store::new();
    store.send(0, &[10]).await;
    store.trim(0, 0).await;
    let first = store.dir.path().join("00000000000000000001.log");
    let left = fs::read(&first).unwrap();
    store.send(0, &[3 * SEGMENT]).await;
    store.reopen();
    assert!(!first.exists());
    store.engine = None;
    fs::write(&first, left).unwrap();
    store.reopen();
    assert!(!first.exists());
    store.check().await;
}

/// Settles the next `count` deliveries in one go, each with `answer`, as what happens once under one key.
async fn answer_once(engine: &Engine, key: &GroupKey, count: usize, answer: usize) {
    let ada = Name::new("ada").unwrap();
    let works = engine.take(key, &ada, Want::New, count).await.unwrap();
    let settlements = works.into_iter().map(|work| {
        let answer = Message::new("test", vec![b'a'; answer]);
        let outputs = vec![Append::new(inbox(), answer)];
        let settlement = Settlement::complete_with(Receipt::new(work.grant.position, 1), outputs);
        settlement.once(Once::new("key", Duration::from_secs(3600)))
    });
    let settled = engine.settle(key, &ada, settlements.collect()).await;
    settled.into_iter().for_each(|settled| settled.unwrap());
}

fn inbox() -> Topic {
    Topic::inbox("one").unwrap()
}

#[tokio::test]
async fn a_remembered_answer_may_be_larger_than_the_one_it_replaces() {
    for durability in [Durability::Os, Durability::Disk] {
        let mut store = Store::on(durability);
        store.send(0, &[1; 4]).await;
        store.join(0, 0).await;
        let key = GroupKey {
            topic: topic(0),
            group: group(0),
        };
        answer_once(store.engine(), &key, 1, 5 * SEGMENT).await;
        answer_once(store.engine(), &key, 3, 1).await;
        store.check().await;
        let answers = store.engine().with_topic(&inbox(), |view| view.length);
        assert_eq!(answers, Some(4));
        store.reopen();
        store.check().await;
        let pending = store.engine().with_group(&key, |group, _| group.pending());
        assert_eq!(pending.unwrap(), 0);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize, Vec<usize>),
    Trim(usize, usize),
    TakeOut(usize, usize),
    Remove(usize),
    Join(usize, usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![
        4 => 0..SEGMENT / 8,
        4 => 0..2 * SEGMENT,
        1 => 0..16 * SEGMENT,
    ];
    let sizes = prop::collection::vec(size, 1..4);
    let of = || 0..3usize;
    prop_oneof![
        8 => (of(), sizes).prop_map(|(to, sizes)| Step::Send(to, sizes)),
        3 => (of(), 0..4usize).prop_map(|(of, keep)| Step::Trim(of, keep)),
        1 => (of(), 0..9usize).prop_map(|(of, nth)| Step::TakeOut(of, nth)),
        1 => of().prop_map(Step::Remove),
        1 => (of(), 0..9usize).prop_map(|(of, group)| Step::Join(of, group)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn what_should_be_there_reads_back_from_the_disk(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut store = Store::new();
            for step in steps {
                match step {
                    Step::Send(to, sizes) => store.send(to, &sizes).await,
                    Step::Trim(of, keep) => store.trim(of, keep).await,
                    Step::TakeOut(of, nth) => store.take_out(of, nth).await,
                    Step::Remove(of) => store.remove(of).await,
                    Step::Join(of, group) => store.join(of, group).await,
                    Step::Reopen => store.reopen(),
                }
                store.check().await;
            }
        });
    }
}
