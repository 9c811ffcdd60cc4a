//! Lanes: the order of messages with the same key, while different keys go their own ways.
//!
//! Pure: what was delivered and settled in, what may start out. A message starts only when every earlier one of its key is
//! settled. A message that is to come again, because it failed or its holder died, keeps its place: only its own key waits.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytestring::ByteString;

use crate::Position;
use crate::sizes::Sizes;

/// The messages of one partition that are delivered and not settled, by key.
///
/// ```
/// use streamerson_core::Position;
/// use streamerson_core::lanes::Lanes;
///
/// let at = |n| Position::new(n, 0);
/// let mut lanes = Lanes::new(100, 1 << 20);
/// lanes.add(at(1), "ada", 10, "first");
/// lanes.add(at(2), "ada", 10, "second");
/// lanes.add(at(3), "bob", 10, "other");
/// assert_eq!(lanes.start(), Some((at(1), "first")));
/// assert_eq!(lanes.start(), Some((at(3), "other")));
/// assert_eq!(lanes.start(), None, "the second waits for the first");
/// lanes.settled(at(1));
/// assert_eq!(lanes.start(), Some((at(2), "second")));
/// ```
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: HashMap<ByteString, Lane<T>>,
    keys: HashMap<Position, ByteString>,
    /// Lanes whose first message may start, in the order in which they became so. May name lanes that are gone.
    ready: VecDeque<ByteString>,
    most: usize,
    most_bytes: usize,
    bytes: usize,
    sizes: Sizes,
    startable: usize,
    running: usize,
    awaited: usize,
}

/// The messages of one key, in order.
#[derive(Debug)]
struct Lane<T> {
    slots: BTreeMap<Position, Slot<T>>,
    runs: bool,
}

#[derive(Debug)]
enum Slot<T> {
    /// Delivered, and not started.
    Waiting { item: T, bytes: usize },
    /// Started, and not settled.
    Running,
    /// To be delivered again.
    Awaited,
}

impl<T> Lanes<T> {
    /// Empty lanes, which have room for `most` messages, and a part in a room of `most_bytes` for what waits to start.
    pub fn new(most: usize, most_bytes: usize) -> Lanes<T> {
        Lanes {
            lanes: HashMap::new(),
            keys: HashMap::new(),
            ready: VecDeque::new(),
            most,
            most_bytes,
            bytes: 0,
            sizes: Sizes::default(),
            startable: 0,
            running: 0,
            awaited: 0,
        }
    }

    /// Keeps the place of a message that was delivered before, and will be again: later ones of `key` wait for it.
    pub fn expect(&mut self, position: Position, key: impl Into<ByteString>) {
        if !self.keys.contains_key(&position) {
            self.awaited += 1;
            self.put(position, key.into(), Slot::Awaited);
        }
    }

    /// Adds a message that was delivered, of so many `bytes`. `false`: it is here already, and stays as it is.
    pub fn add(
        &mut self,
        position: Position,
        key: impl Into<ByteString>,
        bytes: usize,
        item: T,
    ) -> bool {
        let key = key.into();
        match self.slot(position) {
            Some(Slot::Waiting { .. } | Slot::Running) => return false,
            Some(Slot::Awaited) => self.awaited -= 1,
            None => (),
        }
        self.bytes += bytes;
        self.sizes.seen(bytes, self.most_bytes);
        self.put(position, key, Slot::Waiting { item, bytes });
        true
    }

    /// A message that may start now, if there is one; from now on it runs.
    pub fn start(&mut self) -> Option<(Position, T)> {
        loop {
            let key = self.ready.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&key).filter(|lane| lane.is_startable()) else {
                continue;
            };
            let Some(mut first) = lane.slots.first_entry() else {
                continue;
            };
            let position = *first.key();
            if let Slot::Waiting { item, bytes } = first.insert(Slot::Running) {
                lane.runs = true;
                self.bytes -= bytes;
                self.running += 1;
                self.startable -= 1;
                return Some((position, item));
            }
        }
    }

    /// The message at `position` is settled: the next of its key may start.
    pub fn settled(&mut self, position: Position) {
        let Some(key) = self.keys.remove(&position) else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        let was_startable = lane.is_startable();
        match lane.slots.remove(&position) {
            Some(Slot::Waiting { bytes, .. }) => self.bytes -= bytes,
            Some(Slot::Running) => {
                lane.runs = false;
                self.running -= 1;
            }
            Some(Slot::Awaited) => self.awaited -= 1,
            None => (),
        }
        let is_startable = lane.is_startable();
        if lane.slots.is_empty() {
            self.lanes.remove(&key);
        }
        self.note(key, was_startable, is_startable);
    }

    /// The message at `position` was given back, and will be delivered again: its key waits for it, others do not.
    pub fn parked(&mut self, position: Position) {
        let key = self.keys.get(&position);
        let Some(lane) = key.and_then(|key| self.lanes.get_mut(key)) else {
            return;
        };
        if let Some(slot @ Slot::Running) = lane.slots.get_mut(&position) {
            *slot = Slot::Awaited;
            lane.runs = false;
            self.running -= 1;
            self.awaited += 1;
        }
    }

    /// Gives up waiting for messages that are to come again and are not pending any more, because somebody removed them.
    pub fn retain_awaited(&mut self, pending: impl Fn(Position) -> bool) {
        let slots = self.lanes.values().flat_map(|lane| &lane.slots);
        let awaited = slots.filter(|(_, slot)| matches!(slot, Slot::Awaited));
        let gone: Vec<Position> = awaited
            .map(|(position, _)| *position)
            .filter(|position| !pending(*position))
            .collect();
        gone.into_iter().for_each(|position| self.settled(position));
    }

    /// Whether the message at `position` is here, or is to come again.
    pub fn contains(&self, position: Position) -> bool {
        self.keys.contains_key(&position)
    }

    /// The messages that were delivered and have not started.
    pub fn waiting(&self) -> Vec<Position> {
        let slots = self.lanes.values().flat_map(|lane| &lane.slots);
        let waiting = slots.filter(|(_, slot)| matches!(slot, Slot::Waiting { .. }));
        waiting.map(|(position, _)| *position).collect()
    }

    /// How many messages are to come again.
    pub fn awaited(&self) -> usize {
        self.awaited
    }

    /// How many more messages to ask for: as many as there is room for, by the sizes of late. The room in bytes is shared by
    /// `sharers` lanes in equal parts, so that one that is full takes nothing from the others.
    pub fn room(&self, sharers: usize) -> usize {
        let most_bytes = (self.most_bytes / sharers.max(1)).max(1);
        if self.bytes >= most_bytes {
            return 0;
        }
        // Sizes are known only when messages are there: by those of late. One passes, however large.
        let free = most_bytes - self.bytes;
        let fitting = self.sizes.fitting(free).unwrap_or(1);
        self.most
            .saturating_sub(self.keys.len())
            .min(fitting.max(1))
    }

    /// How many messages may start now.
    pub fn startable(&self) -> usize {
        self.startable
    }

    /// How many messages run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Whether nothing runs or may start: what is left, if anything, waits for what is to come again.
    pub fn is_quiet(&self) -> bool {
        self.running == 0 && self.startable == 0
    }

    /// How many messages are here, or are to come again.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn slot(&self, position: Position) -> Option<&Slot<T>> {
        let key = self.keys.get(&position)?;
        self.lanes.get(key)?.slots.get(&position)
    }

    fn put(&mut self, position: Position, key: ByteString, slot: Slot<T>) {
        // Whoever was here before keeps its key: the same message has the same one.
        let key = self.keys.entry(position).or_insert(key).clone();
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| Lane {
            slots: BTreeMap::new(),
            runs: false,
        });
        let was_startable = lane.is_startable();
        lane.slots.insert(position, slot);
        let is_startable = lane.is_startable();
        self.note(key, was_startable, is_startable);
    }

    fn note(&mut self, key: ByteString, was_startable: bool, is_startable: bool) {
        match (was_startable, is_startable) {
            (false, true) => {
                self.startable += 1;
                self.ready.push_back(key);
            }
            (true, false) => self.startable -= 1,
            _ => (),
        }
    }
}

impl<T> Lane<T> {
    fn is_startable(&self) -> bool {
        let first = self.slots.first_key_value();
        !self.runs && matches!(first, Some((_, Slot::Waiting { .. })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(n: u64) -> Position {
        Position::new(n, 0)
    }

    fn lanes() -> Lanes<u64> {
        Lanes::new(100, 1000)
    }

    #[test]
    fn only_the_failing_key_waits() {
        let mut lanes = lanes();
        for (n, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
            lanes.add(at(n), key, 1, n);
        }
        lanes.start();
        lanes.parked(at(1));
        assert_eq!(lanes.start(), Some((at(3), 3)));
        lanes.settled(at(3));
        assert_eq!(lanes.start(), None);
        assert!(lanes.is_quiet());
        assert_eq!((lanes.len(), lanes.awaited()), (3, 1));

        assert!(lanes.add(at(1), "a", 1, 1));
        for n in [1, 2, 4] {
            assert_eq!(lanes.start(), Some((at(n), n)));
            assert_eq!(lanes.start(), None);
            lanes.settled(at(n));
        }
        assert!(lanes.is_empty());
    }

    #[test]
    fn what_is_expected_goes_first_whenever_it_comes() {
        let mut lanes = lanes();
        lanes.expect(at(1), "a");
        lanes.expect(at(2), "a");
        lanes.add(at(5), "a", 1, 5);
        lanes.add(at(2), "a", 1, 2);
        assert_eq!(lanes.start(), None);
        lanes.add(at(1), "a", 1, 1);
        assert_eq!(lanes.start(), Some((at(1), 1)));
        lanes.settled(at(1));
        assert_eq!(lanes.start(), Some((at(2), 2)));
    }

    #[test]
    fn what_is_gone_is_not_waited_for() {
        let mut lanes = lanes();
        lanes.expect(at(1), "a");
        lanes.add(at(2), "a", 1, 2);
        lanes.retain_awaited(|_| true);
        assert_eq!(lanes.start(), None);
        lanes.retain_awaited(|_| false);
        assert_eq!(lanes.start(), Some((at(2), 2)));
    }

    #[test]
    fn a_message_delivered_twice_runs_once() {
        let mut lanes = lanes();
        assert!(lanes.add(at(1), "a", 1, 1));
        assert!(!lanes.add(at(1), "a", 1, 1));
        lanes.start();
        assert!(!lanes.add(at(1), "a", 1, 1));
        lanes.settled(at(1));
        assert_eq!(lanes.start(), None);
    }

    #[test]
    fn room_is_bounded_in_messages_and_in_bytes() {
        let mut lanes = Lanes::new(3, 100);
        lanes.add(at(1), "a", 30, 1);
        assert_eq!(lanes.room(1), 2);
        lanes.add(at(2), "a", 60, 2);
        assert_eq!(lanes.room(1), 1);
        lanes.start();
        assert_eq!(
            lanes.room(1),
            1,
            "no more of 60 bytes than one fits beside one"
        );
        lanes.add(at(3), "b", 60, 3);
        assert_eq!(lanes.room(1), 0);
    }

    #[test]
    fn who_shares_the_room_has_an_equal_part_of_it_and_always_that_of_one_message() {
        let mut lanes = Lanes::new(100, 1000);
        lanes.add(at(1), "a", 100, 1);
        assert_eq!((lanes.room(1), lanes.room(4)), (9, 1));
        lanes.add(at(2), "a", 150, 2);
        assert_eq!((lanes.room(1), lanes.room(4)), (5, 0));
        let none: Lanes<u64> = Lanes::new(100, 0);
        assert_eq!((none.room(1), none.room(4)), (1, 1));
    }

    #[test]
    fn one_is_asked_for_first_and_then_it_goes_by_the_sizes_that_come() {
        let mut lanes = Lanes::new(1000, 16 << 20);
        assert_eq!(lanes.room(1), 1);
        for n in 1..=16 {
            assert!(lanes.add(at(n), n.to_string(), 100, n));
        }
        assert!(lanes.room(1) > 100, "{}", lanes.room(1));
        lanes.add(at(17), "large", 8 << 20, 17);
        assert_eq!(lanes.room(1), 1);
    }

    proptest! {
        /// Whatever is delivered, parked and settled: of a key one message runs at a time, in order, and the counts agree.
        #[test]
        fn keys_keep_their_order(acts in proptest::collection::vec((0u8..4, 0usize..8), 0..200)) {
            let mut lanes = Lanes::new(usize::MAX, usize::MAX);
            let key = |n: u64| ["a", "b", "c"][(n % 3) as usize];
            let (mut last, mut running, mut parked) = (0, Vec::<u64>::new(), Vec::<u64>::new());
            let mut done: BTreeMap<&str, u64> = BTreeMap::new();
            for (act, which) in acts {
                match act {
                    0 => {
                        last += 1;
                        lanes.add(at(last), key(last), 1, last);
                    }
                    1 => if let Some((_, n)) = lanes.start() {
                        prop_assert!(running.iter().all(|other| key(*other) != key(n)));
                        running.push(n);
                    }
                    2 if !running.is_empty() => {
                        let n = running.remove(which % running.len());
                        lanes.settled(at(n));
                        let before = done.insert(key(n), n).unwrap_or(0);
                        prop_assert!(before < n);
                    }
                    _ if !running.is_empty() => {
                        let n = running.remove(which % running.len());
                        lanes.parked(at(n));
                        parked.push(n);
                    }
                    _ => if let Some(n) = parked.pop() {
                        lanes.add(at(n), key(n), 1, n);
                    }
                }
                prop_assert_eq!(lanes.running(), running.len());
                prop_assert_eq!(lanes.awaited(), parked.len());
                prop_assert!(lanes.running() + lanes.awaited() <= lanes.len());
            }
            for n in parked {
                lanes.add(at(n), key(n), 1, n);
            }
            running.into_iter().for_each(|n| lanes.settled(at(n)));
            while let Some((position, _)) = lanes.start() {
                lanes.settled(position);
            }
            prop_assert!(lanes.is_empty() && lanes.bytes == 0 && lanes.startable() == 0);
        }
    }
}
