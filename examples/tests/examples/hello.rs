//! `hello`.

use serde_json::{Value, json};

use crate::stack::Stack;

async fn greets(mut stack: Stack) {
    stack.run(env!("CARGO_BIN_EXE_hello"), &[]);
    for (body, howdy) in [
        (json!({"name": "Ada"}), "there, Ada"),
        (json!({}), "there, stranger"),
        (Value::Null, "there, stranger"),
    ] {
        let answer = stack.call("POST", "/hello/greet", body).await;
        assert_eq!(
            (answer.status, answer.body),
            (200, json!({ "howdy": howdy }))
        );
    }
    stack.stop().await;
}

#[tokio::test]
async fn greets_over_the_embedded_broker() {
    greets(Stack::embedded(None).await).await;
}

#[tokio::test]
async fn greets_over_redis() {
    greets(Stack::redis(None).await).await;
}
