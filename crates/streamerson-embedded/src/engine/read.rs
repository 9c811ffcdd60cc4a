//! Bodies that are no longer in memory, read back from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use streamerson_core::{Error, ErrorKind, Result};

use super::cold::Place;
use super::state::State;
use super::topic::Slot;
use crate::body::{Body, footprint};
use crate::log::decode::entry;
use crate::log::segment::{Blocks, Segment, damaged, unreadable};

/// How much is read at a time: neighbours are likely to be asked for too.
const AHEAD: usize = 128 << 10;

/// Entries on their way out: what each is for, and where its body is, if it is anywhere.
#[derive(Debug)]
pub(crate) struct Loading<T> {
    entries: Vec<(T, Option<Slot>)>,
    /// The segments to read. A segment that is deleted meanwhile can still be read.
    sources: Sources,
}

type Sources = BTreeMap<u64, Arc<Segment>>;

impl<T: Send + 'static> Loading<T> {
    /// Begins, under the lock.
    pub(crate) fn new(state: &State, entries: Vec<(T, Option<Slot>)>) -> Loading<T> {
        let mut sources = Sources::new();
        for (_, slot) in &entries {
            if let Some(Slot::Stored(place)) = slot
                && !sources.contains_key(&place.segment)
                && let Some(segment) = state.segment(place.segment)
            {
                sources.insert(place.segment, segment.clone());
            }
        }
        Loading { entries, sources }
    }

    /// What each is for.
    pub(crate) fn what(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(what, _)| what)
    }

    /// What each is for, and whether it is there.
    pub(crate) fn there(&self) -> impl Iterator<Item = (&T, bool)> {
        let entries = self.entries.iter();
        entries.map(|(what, slot)| (what, slot.is_some()))
    }

    /// Whether there are no entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether every body is in memory.
    pub(crate) fn is_here(&self) -> bool {
        // Not whether there are segments to read: one that is missing is an error.
        let mut entries = self.entries.iter();
        !entries.any(|(_, slot)| matches!(slot, Some(Slot::Stored(_))))
    }

    /// The entries with their bodies, up to `limit` bytes and at least one; reads where needed, off the async threads.
    pub(crate) async fn load(self, limit: usize) -> Result<Vec<(T, Option<Body>)>> {
        if self.is_here() {
            return Ok(self.here(limit));
        }
        let read = tokio::task::spawn_blocking(move || self.read(limit));
        read.await.unwrap_or_else(|error| {
            Err(Error::closed(format!("the read was interrupted: {error}")))
        })
    }

    /// The same, when nothing has to be read.
    pub(crate) fn here(self, limit: usize) -> Vec<(T, Option<Body>)> {
        let mut bytes = 0;
        let entries = self.entries.into_iter().map_while(|(what, slot)| {
            if bytes >= limit {
                return None;
            }
            let body = match slot {
                Some(Slot::Here(body)) => Some(body),
                _ => None,
            };
            bytes += footprint(body.as_ref());
            Some((what, body))
        });
        entries.collect()
    }

    /// The same, waiting for the disk.
    pub(crate) fn read(self, limit: usize) -> Result<Vec<(T, Option<Body>)>> {
        let mut loaded = Vec::with_capacity(self.entries.len());
        self.each(limit, |what, body| {
            loaded.push((what, body?));
            Ok(())
        })?;
        Ok(loaded)
    }

    /// Shows them to `visit` one by one, also those that cannot be read.
    pub(crate) fn each(
        self,
        limit: usize,
        mut visit: impl FnMut(T, Result<Option<Body>>) -> Result<()>,
    ) -> Result<()> {
        let mut frames = Frames::new(&self.sources);
        let mut bytes = 0;
        for (what, slot) in self.entries {
            if bytes >= limit {
                break;
            }
            let body = match slot {
                Some(Slot::Here(body)) => Ok(Some(body)),
                Some(Slot::Stored(place)) => frames.entry(place).map(Some),
                None => Ok(None),
            };
            bytes += footprint(body.as_ref().ok().and_then(Option::as_ref));
            visit(what, body)?;
        }
        Ok(())
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

    fn entry(&mut self, place: Place) -> Result<Body> {
        let segment = self.sources.get(&place.segment).ok_or_else(gone)?;
        let frame = self.frame(segment, place)?;
        match entry(&frame, place.at) {
            Ok((_, body)) => Ok(body),
            Err(malformed) => {
                let why = malformed.to_string();
                Err(damaged(segment.path(), place.frame.into(), &why))
            }
        }
    }

    fn frame(&mut self, segment: &Arc<Segment>, place: Place) -> Result<Bytes> {
        if let Some((segment, at, frame)) = &self.frame
            && (*segment, *at) == (place.segment, place.frame)
        {
            return Ok(frame.clone());
        }
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

#[cfg(test)]
mod tests {
    use super::super::state::Limit;
    use super::*;

    /// It would look like an entry that was trimmed.
    #[tokio::test]
    async fn an_entry_whose_segment_is_not_known_is_an_error() {
        let state = State::new(Limit::Cache(1 << 30));
        let place = Place {
            segment: 7,
            ..Place::default()
        };
        let entries = vec![((), Some(Slot::Stored(place))), ((), None)];
        let error = Loading::new(&state, entries).load(1).await.unwrap_err();
        assert_eq!(error.code(), "segment-forgotten");
    }
}
