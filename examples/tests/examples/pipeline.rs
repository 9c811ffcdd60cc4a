//! `pipeline`.

use serde_json::json;

use crate::stack::Stack;

async fn ships(mut stack: Stack) {
    let program = env!("CARGO_BIN_EXE_pipeline");
    for stage in ["check", "price", "ship"] {
        stack.run(program, &[stage]);
    }
    let receipt = stack
        .call(
            "POST",
            "/checkout/order",
            json!({"item": "tea", "count": 3}),
        )
        .await;
    assert_eq!(receipt.status, 201);
    assert_eq!(receipt.body["cents"], json!(750));
    assert!(receipt.body["order"].is_string());

    // Every stage that does not go on answers the caller.
    let refused = stack
        .call(
            "POST",
            "/checkout/order",
            json!({"item": "tea", "count": 0}),
        )
        .await;
    assert_eq!(
        (refused.status, &refused.body["code"]),
        (400, &json!("empty-order"))
    );
    let refused = stack
        .call(
            "POST",
            "/checkout/order",
            json!({"item": "gold", "count": 1}),
        )
        .await;
    assert_eq!(
        (refused.status, &refused.body["code"]),
        (404, &json!("no-such-item"))
    );
    stack.stop().await;
}

#[tokio::test]
async fn ships_over_the_embedded_broker() {
    ships(Stack::embedded(None).await).await;
}

#[tokio::test]
async fn ships_over_redis() {
    ships(Stack::redis(None).await).await;
}

#[tokio::test]
async fn ships_with_all_stages_in_one_process() {
    let mut stack = Stack::embedded(None).await;
    stack.run(env!("CARGO_BIN_EXE_pipeline"), &[]);
    let receipt = stack
        .call(
            "POST",
            "/checkout/order",
            json!({"item": "coffee", "count": 1}),
        )
        .await;
    assert_eq!((receipt.status, &receipt.body["cents"]), (201, &json!(320)));
    stack.stop().await;
}
