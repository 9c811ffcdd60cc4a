//! A CRUD API over one topic: create, read, update, delete, and list with paging.
//!
//! The gateway maps paths and methods to message types (`routes.toml`); this worker handles the types. An update names
//! the revision it is based on, so that of two concurrent ones only the first wins: the other is answered 409.
//! The notes live in this worker's memory, so run only one.
//!
//! ```sh
//! streamerson dev --config examples/crud/routes.toml
//! cargo run -p streamerson-examples --bin crud                     # in another terminal
//! curl http://127.0.0.1:8080/notes -d '{"text":"buy milk"}' -H 'content-type: application/json'
//! curl 'http://127.0.0.1:8080/notes?limit=10'
//! ```

mod notes;

use serde::{Deserialize, Serialize};
use streamerson::http::StatusCode;
use streamerson::{
    Error, IntoReply, Json, Path, Problem, Query, Router, State, Worker, connect, shutdown_signal,
};

use notes::{Missing, Note, Notes, Refused};

#[derive(Deserialize)]
struct Draft {
    text: String,
}

#[derive(Deserialize)]
struct Update {
    text: String,
    revision: u64,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Listed {
    notes: Vec<Note>,
    /// What to pass as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

async fn create(State(notes): State<Notes>, Json(draft): Json<Draft>) -> impl IntoReply {
    let note = notes.create(draft.text);
    let location = format!("/notes/{}", note.id);
    (StatusCode::CREATED, [("location", location)], Json(note))
}

async fn read(State(notes): State<Notes>, Path(id): Path<u64>) -> Result<Json<Note>, Problem> {
    Ok(Json(notes.read(id)?))
}

async fn list(State(notes): State<Notes>, Query(page): Query<Page>) -> Json<Listed> {
    let limit = page.limit.unwrap_or(20).clamp(1, 100);
    let (notes, more) = notes.list(page.after, limit);
    let next = notes.last().filter(|_| more).map(|note| note.id);
    Json(Listed { notes, next })
}

async fn update(
    State(notes): State<Notes>,
    Path(id): Path<u64>,
    Json(update): Json<Update>,
) -> Result<Json<Note>, Problem> {
    Ok(Json(notes.update(id, update.revision, update.text)?))
}

async fn delete(State(notes): State<Notes>, Path(id): Path<u64>) -> Result<(), Problem> {
    Ok(notes.delete(id)?)
}

impl From<Missing> for Problem {
    fn from(Missing(id): Missing) -> Problem {
        Problem::not_found("no-such-note", format!("there is no note {id}"))
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        match refused {
            Refused::Missing(missing) => missing.into(),
            Refused::Stale { current } => Problem::conflict(
                "stale-revision",
                format!("the note has changed: it is at revision {current}; read it again"),
            ),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("STREAMERSON_BROKER").unwrap_or("redis://127.0.0.1:6380".into());
    let router = Router::new()
        .on("note.create", create)
        .on("note.read", read)
        .on("note.list", list)
        .on("note.update", update)
        .on("note.delete", delete)
        .with_state(Notes::default());
    Worker::new(connect(&url).await?)
        .topic("notebook")
        .group("notes")
        .serve(router)
        .with_graceful_shutdown(shutdown_signal())
        .await
}
