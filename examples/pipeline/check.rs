//! The first stage: is this an order at all?

use serde::{Deserialize, Serialize};
use streamerson::{Forward, Json, Problem, Router};

#[derive(Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) item: String,
    pub(crate) count: u32,
}

async fn check(Json(order): Json<Order>) -> Result<Forward, Problem> {
    if order.count == 0 {
        return Err(Problem::bad_request(
            "empty-order",
            "an order has a count of at least 1",
        ));
    }
    Ok(Forward::to("pricing", "price").json(&order))
}

pub(crate) fn router() -> Router {
    Router::new().on("order", check)
}
