//! Bodies that are no longer in memory, read back from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use streamerson_core::{Error, ErrorKind, Position, Result};

use super::cold::Place;
use super::state::State;
use super::topic::Slot;
use crate::body::Body;
use crate::log::decode::entry;
use crate::log::segment::{Blocks, Segment, damaged, unreadable};

/// How much is read at a time: neighbours are likely to be asked for too.
const AHEAD: usize = 128 << 10;

/// The segments that `slots` stand in, to be read without the lock.
#[derive(Debug, Default)]
pub(crate) struct Sources(BTreeMap<u64, Arc<Segment>>);

impl Sources {
    /// Collects them, under the lock: a segment that is deleted meanwhile can still be read.
    pub(crate) fn of<'a>(state: &State, slots: impl Iterator<Item = &'a Slot>) -> Sources {
        let mut segments = BTreeMap::new();
        for slot in slots {
            if let Slot::Stored(place) = slot
                && !segments.contains_key(&place.segment)
                && let Some(segment) = state.segment(place.segment)
            {
                segments.insert(place.segment, segment.clone());
            }
        }
        Sources(segments)
    }

    /// Whether nothing needs to be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Entries on their way out: each with what it is for.
#[derive(Debug)]
pub(crate) struct Loading<T> {
    entries: Vec<(T, Slot)>,
    sources: Sources,
}

impl<T: Send + 'static> Loading<T> {
    /// Begins, under the lock.
    pub(crate) fn new(state: &State, entries: Vec<(T, Slot)>) -> Loading<T> {
        let sources = Sources::of(state, entries.iter().map(|(_, slot)| slot));
        Loading { entries, sources }
    }

    /// Whether nothing needs to be read.
    pub(crate) fn is_here(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether there are no entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries with their bodies, up to `limit` bytes and at least one; reads where needed, off the async threads.
    pub(crate) async fn load(self, limit: usize) -> Result<Vec<(T, Body)>> {
        if self.is_here() {
            return self.resolve(limit);
        }
        let read = tokio::task::spawn_blocking(move || self.resolve(limit));
        read.await.unwrap_or_else(|error| {
            Err(Error::closed(format!("the read was interrupted: {error}")))
        })
    }

    /// The same, waiting for the disk.
    pub(crate) fn resolve(self, limit: usize) -> Result<Vec<(T, Body)>> {
        let mut frames = Frames::new(&self.sources);
        let mut loaded = Vec::with_capacity(self.entries.len());
        let mut bytes = 0;
        for (what, slot) in self.entries {
            if bytes >= limit {
                break;
            }
            let body = match slot {
                Slot::Here(body) => body,
                Slot::Stored(place) => frames.entry(place)?.1,
            };
            bytes += body.size();
            loaded.push((what, body));
        }
        Ok(loaded)
    }
}

/// Reads entries; those of one frame, and of frames near each other, at once.
struct Frames<'a> {
    sources: &'a Sources,
    blocks: Option<Blocks>,
    frame: Option<(u64, u32, Bytes)>,
}

impl<'a> Frames<'a> {
    fn new(sources: &'a Sources) -> Frames<'a> {
        Frames {
            sources,
            blocks: None,
            frame: None,
        }
    }

    fn entry(&mut self, place: Place) -> Result<(Position, Body)> {
        let frame = self.frame(place)?;
        entry(&frame, place.at).map_err(|malformed| {
            let path = self.sources.0.get(&place.segment).map(|s| s.path());
            damaged(
                path.unwrap_or("the log".as_ref()),
                place.frame.into(),
                &malformed.to_string(),
            )
        })
    }

    fn frame(&mut self, place: Place) -> Result<Bytes> {
        if let Some((segment, at, frame)) = &self.frame
            && (*segment, *at) == (place.segment, place.frame)
        {
            return Ok(frame.clone());
        }
        let segment = self.sources.0.get(&place.segment).ok_or_else(gone)?;
        let blocks = match &mut self.blocks {
            Some(blocks) if blocks.segment().number() == place.segment => blocks,
            other => other.insert(Blocks::new(segment.clone(), AHEAD)),
        };
        let offset = place.frame.into();
        let frame = blocks
            .frame(offset)
            .map_err(|error| unreadable(segment.path(), &error))?;
        let Some((frame, _)) = frame else {
            let why = "a record that was written there is not intact any more";
            return Err(damaged(segment.path(), offset, why));
        };
        self.frame = Some((place.segment, place.frame, frame.clone()));
        Ok(frame)
    }
}

fn gone() -> Error {
    Error::new(
        ErrorKind::Internal,
        "segment-forgotten",
        "an entry stands in a segment that is not known: report this",
    )
}
