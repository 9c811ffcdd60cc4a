//! Topic `hello`: type `greet` answers `{"howdy":"there, NAME"}`.

use serde_json::{Value, json};
use streamerson::{Json, Router};

async fn greet(Json(request): Json<Value>) -> Json<Value> {
    let name = request["name"].as_str().unwrap_or("stranger");
    Json(json!({ "howdy": format!("there, {name}") }))
}

pub(super) fn router() -> Router {
    Router::new().on("greet", greet)
}
