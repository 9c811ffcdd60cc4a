//! `crud`.

use serde_json::{Value, json};

use crate::stack::Stack;

const ROUTES: Option<&str> = Some("crud/routes.toml");

async fn keeps_notes(mut stack: Stack) {
    stack.run(env!("CARGO_BIN_EXE_crud"), &[]);
    creates_reads_and_lists(&stack).await;
    updates(&stack).await;
    deletes(&stack).await;
    stack.stop().await;
}

async fn creates_reads_and_lists(stack: &Stack) {
    for id in 1..=5 {
        let created = stack
            .call("POST", "/notes", json!({"text": format!("note {id}")}))
            .await;
        assert_eq!(created.status, 201);
        assert_eq!(created.location, Some(format!("/notes/{id}")));
        let read = stack
            .call("GET", &format!("/notes/{id}"), Value::Null)
            .await;
        assert_eq!((read.status, &read.body), (200, &created.body));
    }
    let mut path = "/notes?limit=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = stack.call("GET", &path, Value::Null).await.body;
        let ids = page["notes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|note| note["id"].as_u64().unwrap());
        pages.push(ids.collect::<Vec<_>>());
        match page.get("next") {
            Some(next) => path = format!("/notes?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(pages, [vec![1, 2], vec![3, 4], vec![5]]);
    assert_eq!(
        stack
            .call("GET", "/notes?limit=many", Value::Null)
            .await
            .status,
        400
    );
    assert_eq!(
        stack
            .call("POST", "/notes", json!({"title": 1}))
            .await
            .status,
        400
    );
}

async fn updates(stack: &Stack) {
    let update = json!({"text": "changed", "revision": 1});
    let updated = stack.call("PUT", "/notes/1", update.clone()).await;
    let expected = json!({"id": 1, "revision": 2, "text": "changed"});
    assert_eq!((updated.status, updated.body), (200, expected.clone()));

    let stale = stack.call("PUT", "/notes/1", update.clone()).await;
    assert_eq!(
        (stale.status, &stale.body["code"]),
        (409, &json!("stale-revision"))
    );
    assert_eq!(
        stack.call("GET", "/notes/1", Value::Null).await.body,
        expected
    );

    let missing = stack.call("PUT", "/notes/99", update).await;
    assert_eq!(
        (missing.status, &missing.body["code"]),
        (404, &json!("no-such-note"))
    );
}

async fn deletes(stack: &Stack) {
    assert_eq!(
        stack.call("DELETE", "/notes/1", Value::Null).await.status,
        204
    );
    for method in ["GET", "DELETE"] {
        let missing = stack.call(method, "/notes/1", Value::Null).await;
        assert_eq!(
            (missing.status, &missing.body["code"]),
            (404, &json!("no-such-note"))
        );
    }
    assert_eq!(
        stack.call("PATCH", "/notes/1", Value::Null).await.status,
        405
    );
}

#[tokio::test]
async fn keeps_notes_over_the_embedded_broker() {
    keeps_notes(Stack::embedded(ROUTES).await).await;
}

#[tokio::test]
async fn keeps_notes_over_redis() {
    keeps_notes(Stack::redis(ROUTES).await).await;
}
