//! Topic `notes`: types `add`, `list` and `remove`. The notes live in memory, and end with `dev`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use streamerson::{Json, Problem, Router, State};

/// How many notes are kept; more are refused.
const LIMIT: usize = 1_000;

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<BTreeMap<u64, String>>>);

impl Notes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        // Each change is a single step: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Serialize)]
struct Note {
    id: u64,
    text: String,
}

#[derive(Deserialize)]
struct Add {
    text: String,
}

#[derive(Deserialize)]
struct Remove {
    id: u64,
}

async fn add(
    State(notes): State<Notes>,
    Json(Add { text }): Json<Add>,
) -> Result<(StatusCode, Json<Note>), Problem> {
    let mut notes = notes.lock();
    if notes.len() >= LIMIT {
        let detail = format!("there are {LIMIT} notes; remove one first");
        return Err(Problem::conflict("notes-full", detail));
    }
    let id = notes.keys().next_back().map_or(1, |last| last + 1);
    notes.insert(id, text.clone());
    Ok((StatusCode::CREATED, Json(Note { id, text })))
}

async fn list(State(notes): State<Notes>) -> Json<Vec<Note>> {
    let note = |(id, text): (&u64, &String)| Note {
        id: *id,
        text: text.clone(),
    };
    Json(notes.lock().iter().map(note).collect())
}

async fn remove(
    State(notes): State<Notes>,
    Json(Remove { id }): Json<Remove>,
) -> Result<(), Problem> {
    match notes.lock().remove(&id) {
        Some(_) => Ok(()),
        None => Err(Problem::not_found(
            "no-such-note",
            format!("there is no note {id}"),
        )),
    }
}

pub(super) fn router() -> Router {
    Router::new()
        .on("add", add)
        .on("list", list)
        .on("remove", remove)
        .with_state(Notes::default())
}
