//! The last stage: it answers.

use serde_json::{Value, json};
use streamerson::http::StatusCode;
use streamerson::{Json, Message, Router};

use crate::price::Priced;

async fn ship(request: Message, Json(priced): Json<Priced>) -> (StatusCode, Json<Value>) {
    let Priced { order, cents } = priced;
    let receipt = json!({
        "order": request.correlation().to_string(),
        "item": order.item,
        "count": order.count,
        "cents": cents,
    });
    (StatusCode::CREATED, Json(receipt))
}

pub(crate) fn router() -> Router {
    Router::new().on("ship", ship)
}
