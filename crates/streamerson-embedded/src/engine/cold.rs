//! Where the entries stand whose bodies are not in memory: 16 bytes for each.

use std::collections::VecDeque;

use streamerson_core::Position;

/// Where an entry stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Offset of the frame in the segment.
    pub(crate) frame: u32,
    /// Where in the frame's body.
    pub(crate) at: u32,
}

/// The places of entries, by position, ascending.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    chunks: VecDeque<Chunk>,
    len: u64,
}

/// Entries of one segment whose positions are near each other.
#[derive(Debug)]
struct Chunk {
    base: Position,
    segment: u64,
    items: VecDeque<Item>,
    /// No entry that was ever in it is larger.
    largest: usize,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    /// Distance from the base's first number.
    major: u32,
    /// Where that is zero: distance from the base's second number. Else the second number.
    minor: u32,
    frame: u32,
    at: u32,
}

const CHUNK: usize = 1024;

impl Cold {
    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The oldest position.
    pub(crate) fn first(&self) -> Option<Position> {
        let chunk = self.chunks.front()?;
        chunk.items.front().map(|item| chunk.position(item))
    }

    /// The newest position.
    pub(crate) fn last(&self) -> Option<Position> {
        self.chunks.back().map(Chunk::last)
    }

    /// The position of the nth oldest; the oldest is 0.
    pub(crate) fn nth(&self, mut n: u64) -> Option<Position> {
        for chunk in &self.chunks {
            match n.checked_sub(chunk.items.len() as u64) {
                Some(rest) => n = rest,
                None => return chunk.items.get(n as usize).map(|item| chunk.position(item)),
            }
        }
        None
    }

    /// Adds an entry, newer than all, of `size` bytes.
    pub(crate) fn push(&mut self, position: Position, place: Place, size: usize) {
        self.len += 1;
        if let Some(chunk) = self.chunks.back_mut()
            && chunk.push(position, place)
        {
            chunk.largest = chunk.largest.max(size);
            return;
        }
        let mut chunk = Chunk {
            base: position,
            segment: place.segment,
            items: VecDeque::new(),
            largest: size,
        };
        chunk.push(position, place);
        self.chunks.push_back(chunk);
    }

    /// Those after `position`, ascending.
    pub(crate) fn after(
        &self,
        position: Position,
    ) -> impl DoubleEndedIterator<Item = (Position, Place)> + '_ {
        let from = self
            .chunks
            .partition_point(|chunk| chunk.last() <= position);
        self.chunks.range(from..).flat_map(move |chunk| {
            let from = chunk.up_to(position);
            chunk.items.range(from..).map(|item| chunk.entry(item))
        })
    }

    /// How many stand after `position`.
    pub(crate) fn count_after(&self, position: Position) -> u64 {
        let from = self
            .chunks
            .partition_point(|chunk| chunk.last() <= position);
        let counts = self
            .chunks
            .range(from..)
            .map(|chunk| chunk.items.len() - chunk.up_to(position));
        counts.sum::<usize>() as u64
    }

    /// The place of the entry at `position`.
    pub(crate) fn get(&self, position: Position) -> Option<Place> {
        let chunk = self.chunks.partition_point(|chunk| chunk.last() < position);
        let chunk = self.chunks.get(chunk)?;
        let item = chunk
            .items
            .binary_search_by_key(&position, |item| chunk.position(item));
        item.ok()
            .and_then(|at| chunk.items.get(at))
            .map(|item| chunk.entry(item).1)
    }

    /// No more bytes are to be read for the entry at `position`; nothing, if it is not here.
    pub(crate) fn bound(&self, position: Position) -> usize {
        let chunk = self.chunks.partition_point(|chunk| chunk.last() < position);
        let chunk = self.chunks.get(chunk);
        chunk.map_or(0, |chunk| chunk.largest)
    }

    /// Takes one entry out, and answers where it stands.
    pub(crate) fn remove(&mut self, wanted: Position) -> Option<Place> {
        let number = self.chunks.partition_point(|chunk| chunk.last() < wanted);
        let chunk = self.chunks.get_mut(number)?;
        let base = chunk.base;
        let found = chunk
            .items
            .binary_search_by_key(&wanted, |item| position(base, item));
        let item = chunk.items.remove(found.ok()?)?;
        let place = chunk.entry(&item).1;
        // No chunk is empty: the others rely on it.
        if chunk.items.is_empty() {
            self.chunks.remove(number);
        }
        self.len -= 1;
        Some(place)
    }

    /// Removes the entries before `boundary`; tells `gone` how many of which segment.
    pub(crate) fn trim(&mut self, boundary: Position, mut gone: impl FnMut(u64, u64)) {
        while let Some(chunk) = self.chunks.front_mut() {
            let removed = chunk
                .items
                .partition_point(|item| position(chunk.base, item) < boundary);
            gone(chunk.segment, removed as u64);
            self.len -= removed as u64;
            if removed < chunk.items.len() {
                chunk.items.drain(..removed);
                break;
            }
            self.chunks.pop_front();
        }
    }
}

impl Chunk {
    fn push(&mut self, position: Position, place: Place) -> bool {
        let Some(major) = position.major().checked_sub(self.base.major()) else {
            return false;
        };
        let minor = match major {
            0 => position.minor().wrapping_sub(self.base.minor()),
            _ => position.minor(),
        };
        match (u32::try_from(major), u32::try_from(minor)) {
            (Ok(major), Ok(minor)) if place.segment == self.segment && self.items.len() < CHUNK => {
                self.items.push_back(Item {
                    major,
                    minor,
                    frame: place.frame,
                    at: place.at,
                });
                true
            }
            _ => false,
        }
    }

    fn position(&self, item: &Item) -> Position {
        position(self.base, item)
    }

    fn entry(&self, item: &Item) -> (Position, Place) {
        let place = Place {
            segment: self.segment,
            frame: item.frame,
            at: item.at,
        };
        (self.position(item), place)
    }

    fn last(&self) -> Position {
        let last = self.items.back();
        last.map_or(self.base, |item| self.position(item))
    }

    fn up_to(&self, position: Position) -> usize {
        self.items
            .partition_point(|item| self.position(item) <= position)
    }
}

fn position(base: Position, item: &Item) -> Position {
    let minor = u64::from(item.minor);
    match item.major {
        0 => Position::new(base.major(), base.minor() + minor),
        major => Position::new(base.major() + u64::from(major), minor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn jump() -> impl Strategy<Value = (u64, u64, bool)> {
        let major = prop_oneof![Just(0u64), 1u64..5, Just(1u64 << 33)];
        let minor = prop_oneof![1u64..5, Just(1u64 << 33)];
        (major, minor, any::<bool>())
    }

    proptest! {
        /// Against a plain map, over near and far positions, many segments and any trim.
        #[test]
        fn behaves_like_a_map(
            jumps in proptest::collection::vec(jump(), 1..100),
            cut in 0usize..100,
            probe in 0usize..100,
            holes in proptest::collection::vec(0usize..100, 0..100),
        ) {
            let (mut cold, mut model) = (Cold::default(), BTreeMap::new());
            let (mut at, mut segment) = (Position::new(5, u64::MAX / 2), 1);
            for (n, (major, minor, next)) in jumps.into_iter().enumerate() {
                at = match major {
                    0 => Position::new(at.major(), at.minor() + minor),
                    _ => Position::new(at.major() + major, minor),
                };
                segment += u64::from(next);
                let place = Place { segment, frame: n as u32, at: 7 };
                cold.push(at, place, n);
                model.insert(at, place);
            }
            let nth = |n: usize| *model.keys().nth(n % model.len()).unwrap();
            let (boundary, probe) = (nth(cut), nth(probe));
            for hole in holes {
                let Some(at) = model.keys().nth(hole).copied() else { continue };
                prop_assert_eq!(cold.remove(at), model.remove(&at));
                prop_assert_eq!(cold.remove(at), None);
            }
            let mut gone = 0;
            cold.trim(boundary, |_, n| gone += n);
            prop_assert_eq!(gone, model.range(..boundary).count() as u64);
            model = model.split_off(&boundary);
            prop_assert_eq!(cold.len(), model.len() as u64);
            prop_assert_eq!(cold.first(), model.keys().next().copied());
            prop_assert_eq!(cold.last(), model.keys().last().copied());
            prop_assert_eq!(cold.nth(cut as u64), model.keys().nth(cut).copied());
            prop_assert_eq!(cold.get(probe), model.get(&probe).copied());
            if let Some(place) = model.get(&probe) {
                prop_assert!(cold.bound(probe) >= place.frame as usize);
            }
            let after: Vec<_> = model.iter().filter(|(at, _)| **at > probe).map(|(a, p)| (*a, *p)).collect();
            prop_assert_eq!(cold.count_after(probe), after.len() as u64);
            prop_assert_eq!(cold.after(probe).collect::<Vec<_>>(), after);
        }
    }
}
