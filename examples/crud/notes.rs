//! The notes themselves: nothing in here knows of messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// A note, and how often it has been changed.
#[derive(Clone, Serialize)]
pub(crate) struct Note {
    pub(crate) id: u64,
    pub(crate) revision: u64,
    pub(crate) text: String,
}

/// All notes. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Notes {
    stored: Arc<Mutex<Stored>>,
}

#[derive(Default)]
struct Stored {
    notes: BTreeMap<u64, Note>,
    last: u64,
}

/// There is no note with this id.
pub(crate) struct Missing(pub(crate) u64);

/// Why a note was not updated.
pub(crate) enum Refused {
    Missing(Missing),
    Stale { current: u64 },
}

impl Notes {
    pub(crate) fn create(&self, text: String) -> Note {
        let mut stored = self.lock();
        stored.last += 1;
        let note = Note {
            id: stored.last,
            revision: 1,
            text,
        };
        stored.notes.insert(note.id, note.clone());
        note
    }

    pub(crate) fn read(&self, id: u64) -> Result<Note, Missing> {
        self.lock().notes.get(&id).cloned().ok_or(Missing(id))
    }

    /// Up to `limit` notes with ids greater than `after`, and whether there are more.
    pub(crate) fn list(&self, after: u64, limit: usize) -> (Vec<Note>, bool) {
        let stored = self.lock();
        let mut rest = stored
            .notes
            .range(after.saturating_add(1)..)
            .map(|(_, note)| note);
        let page = rest.by_ref().take(limit).cloned().collect();
        (page, rest.next().is_some())
    }

    pub(crate) fn update(&self, id: u64, revision: u64, text: String) -> Result<Note, Refused> {
        let mut stored = self.lock();
        let note = stored
            .notes
            .get_mut(&id)
            .ok_or(Refused::Missing(Missing(id)))?;
        if note.revision != revision {
            return Err(Refused::Stale {
                current: note.revision,
            });
        }
        note.revision += 1;
        note.text = text;
        Ok(note.clone())
    }

    pub(crate) fn delete(&self, id: u64) -> Result<(), Missing> {
        self.lock().notes.remove(&id).map(|_| ()).ok_or(Missing(id))
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        // Each change is whole before the lock is released: a panic elsewhere leaves nothing half done.
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
