//! Any steps, in any order: what is known before the process ends, or is killed, is known when the directory is opened again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use streamerson_core::retention::Retention;
use streamerson_core::time::unix_ms;
use streamerson_core::{Append, Message, Once, Position, Receipt, Settlement, Start};
use tempfile::TempDir;

use super::{GroupKey, Trim, Want, message, name, options, topic};
use crate::Options;
use crate::engine::{Body, Direction, Engine, NewEntry};

/// Rounds of an ordinary run.
const ROUNDS: u64 = 40;

/// Steps of a round.
const STEPS: usize = 80;

const HOUR: Duration = Duration::from_secs(3600);

const END: Position = Position::new(u64::MAX, u64::MAX);

/// What is to survive, of every topic.
type Known = BTreeMap<String, String>;

fn known(engine: &Engine) -> Known {
    let state = engine.inner.shared.state.lock();
    let topics = state.topics().filter(|(_, topic)| topic.exists());
    let known = topics.map(|(name, topic)| {
        let held = |group: &crate::engine::Group| {
            let held = group.held().map(|(at, held)| (at, held.attempt));
            held.collect::<Vec<_>>()
        };
        let groups = topic.groups.iter();
        let groups = groups.map(|(name, group)| (name, group.cursor(), held(group)));
        let keys = topic.keys.iter().map(|(key, at, until)| (key, at.of, until));
        let effects = topic.effects.iter().map(|(group, effects)| {
            let keys = effects.iter().map(|(key, ..)| key);
            (group, keys.collect::<Vec<_>>())
        });
        // Where they go on. What is not known goes on with the first entry.
        let gone = topic.removed_groups.iter();
        let gone = gone.map(|(name, gone)| (name, topic.next_after(gone.settled), gone.lost));
        let gone = gone.filter(|(_, next, lost)| *lost || *next != topic.first());
        let all = format!(
            "entries {:?} groups {:?} keys {:?} effects {:?} gone {:?} partitions {} scheduled {} epoch {}",
            topic.positions(Position::ZERO, END),
            groups.collect::<Vec<_>>(),
            keys.collect::<Vec<_>>(),
            effects.collect::<Vec<_>>(),
            gone.collect::<Vec<_>>(),
            topic.partitions,
            topic.scheduled,
            topic.leases.epoch(),
        );
        (name.to_string(), all)
    });
    known.collect()
}

/// Numbers by chance, the same for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

struct Round {
    dir: TempDir,
    options: Options,
    engine: Engine,
    random: Random,
    done: Vec<String>,
}

impl Round {
    fn new(seed: u64) -> Round {
        let dir = tempfile::tempdir().unwrap();
        // Some bodies are in memory, some are not.
        let options = Options {
            cache_bytes: 3000,
            ..options()
        };
        Round {
            engine: Engine::open(dir.path(), &options).unwrap(),
            dir,
            options,
            random: Random::new(seed),
            done: vec![format!("seed {seed}")],
        }
    }

    fn key(&mut self) -> GroupKey {
        GroupKey {
            topic: topic(self.random.one(&["a", "b", "c"])),
            group: name(self.random.one(&["g", "h"])),
        }
    }

    async fn send(&mut self, append: Append) {
        drop(self.engine.append_messages(vec![append]).await);
    }

    async fn step(&mut self) {
        let (step, key) = (self.random.below(25), self.key());
        let (to, start) = (
            key.topic.as_str(),
            self.random.one(&[Start::Earliest, Start::Latest]),
        );
        let member = name(self.random.one(&["ada", "bob"]));
        self.done.push(format!("{step} {key:?} {start:?} {member}"));
        match step {
            0..=4 => {
                let data = "x".repeat(self.random.below(2500));
                self.send(message(to, &data)).await;
            }
            5 => {
                let once = Once::new(self.random.one(&["k", "l"]), HOUR);
                self.send(message(to, "once").once(once)).await;
            }
            6 => {
                self.send(message(to, "later").due_at(unix_ms() + 3_600_000))
                    .await
            }
            7 | 8 => drop(self.engine.create_group(&key, start).await),
            9 => {
                let was_there = self.random.below(2) == 0;
                drop(self.engine.begin_group(&key, start, was_there).await);
            }
            10 => drop(self.engine.remove_group(&key).await),
            11 => drop(self.engine.lose_group(&key).await),
            12 => drop(self.engine.seek_group(&key, start).await),
            13..=15 => {
                let max = 1 + self.random.below(4);
                drop(
                    self.engine
                        .take(&key, &member, Want::Any { lease: 0 }, max)
                        .await,
                );
            }
            16..=18 => self.settle(&key).await,
            19 => {
                let newest = Trim::Newest(self.random.below(6) as u64);
                self.engine.trim(&key.topic, newest).await.unwrap();
            }
            20 => {
                let retention = Retention {
                    max_len: Some(self.random.below(3) as u64),
                    ..Retention::default()
                };
                let processed = Trim::Retain(retention);
                self.engine.trim(&key.topic, processed).await.unwrap();
            }
            21 => self.take_out(&key).await,
            22 => match self.random.below(4) {
                0 => drop(self.engine.remove_topic(&key.topic).await),
                1 => drop(self.engine.divide(&key.topic, 4).await),
                _ => drop(
                    self.engine
                        .acquire(&key.topic, &name("seat"), &member, 1)
                        .await,
                ),
            },
            // Where its writer wants it, which is refused unless the topic is new.
            23 => {
                let entry = NewEntry {
                    topic: key.topic.clone(),
                    body: Body::Message(Message::new("test", "first")),
                    position: Some(Position::new(1 + self.random.below(9) as u64, 0)),
                };
                drop(self.engine.append([entry]).await);
            }
            _ => self.reopen(),
        }
    }

    async fn settle(&mut self, key: &GroupKey) {
        let held = self.engine.with_group(key, |group, _| {
            let held = group.held();
            let held = held.map(|(at, held)| (at, held.attempt, held.member.clone()));
            held.collect::<Vec<_>>()
        });
        let Some(held) = held.ok().filter(|held| !held.is_empty()) else {
            return;
        };
        let (at, attempt, holder) = &held[self.random.below(held.len())];
        let receipt = Receipt::new(*at, *attempt);
        let to = self.random.one(&["a", "b", "c"]);
        let once = message("a", "o").once(Once::new("o", HOUR));
        let outputs = vec![message(to, "output"), once];
        let settlement = match self.random.below(3) {
            0 => Settlement::retry(receipt, HOUR * self.random.below(2) as u32),
            1 => Settlement::complete_with(receipt, outputs),
            _ => {
                let once = Once::new(self.random.one(&["e", "f"]), HOUR);
                Settlement::complete_with(receipt, outputs).once(once)
            }
        };
        self.engine.settle(key, holder, vec![settlement]).await;
    }

    async fn take_out(&mut self, key: &GroupKey) {
        let first = self
            .engine
            .range(&key.topic, Position::ZERO, END, 4, Direction::Forward);
        let first = first.await.unwrap();
        if let Some((at, _)) = first.get(self.random.below(4)) {
            let outputs = vec![message("b", "taken")];
            self.engine
                .take_out(&key.topic, *at, outputs)
                .await
                .unwrap();
        }
    }

    fn reopen(&mut self) {
        let before = known(&self.engine);
        let done = self.done.join("\n");
        let killed = as_killed(self.dir.path());
        let other = Engine::open(killed.path(), &self.options).unwrap();
        assert_eq!(known(&other), before, "killed after {done}");
        // The directory is released before it is opened.
        let next = Engine::in_memory(&self.options, unix_ms);
        drop(std::mem::replace(&mut self.engine, next));
        self.engine = Engine::open(self.dir.path(), &self.options).unwrap();
        assert_eq!(known(&self.engine), before, "ended after {done}");
    }
}

/// The directory as a kill would leave it: without an orderly end.
fn as_killed(dir: &Path) -> TempDir {
    let killed = tempfile::tempdir().unwrap();
    for file in fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        // What is not needed any more may be deleted meanwhile.
        match fs::copy(file.path(), killed.path().join(file.file_name())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
    killed
}

/// `ROUNDS=1000` searches for longer.
#[tokio::test]
async fn what_is_known_survives_any_steps() {
    let rounds = std::env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for seed in 0..rounds {
        let mut round = Round::new(seed);
        for _ in 0..STEPS {
            round.step().await;
        }
        round.reopen();
    }
}
