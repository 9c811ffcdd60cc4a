//! Topic `hello`: type `greet` answers `{"howdy":"there, NAME"}`.

use serde::{Deserialize, Serialize};
use streamerson::{Json, Router};

#[derive(Deserialize)]
struct Greet {
    name: Option<String>,
}

#[derive(Serialize)]
struct Howdy {
    howdy: String,
}

/// Also without a body: an empty payload is `null`.
async fn greet(Json(request): Json<Option<Greet>>) -> Json<Howdy> {
    let name = request.and_then(|greet| greet.name);
    let name = name.as_deref().unwrap_or("stranger");
    Json(Howdy {
        howdy: format!("there, {name}"),
    })
}

pub(super) fn router() -> Router {
    Router::new().on("greet", greet)
}
