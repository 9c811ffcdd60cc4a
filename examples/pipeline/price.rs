//! The second stage: what does it cost?

use serde::{Deserialize, Serialize};
use streamerson::{Forward, Json, Problem, Router};

use crate::check::Order;

#[derive(Deserialize, Serialize)]
pub(crate) struct Priced {
    #[serde(flatten)]
    pub(crate) order: Order,
    pub(crate) cents: u64,
}

async fn price(Json(order): Json<Order>) -> Result<Forward, Problem> {
    let each = match order.item.as_str() {
        "tea" => 250,
        "coffee" => 320,
        other => {
            return Err(Problem::not_found(
                "no-such-item",
                format!("there is no item {other:?}"),
            ));
        }
    };
    let cents = each * u64::from(order.count);
    Ok(Forward::to("shipping", "ship").json(&Priced { order, cents }))
}

pub(crate) fn router() -> Router {
    Router::new().on("price", price)
}
