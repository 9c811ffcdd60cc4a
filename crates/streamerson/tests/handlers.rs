//! Handlers: what they take, what they answer, and what happens to requests that do not fit.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use streamerson::core::meta::Http;
use streamerson::extract::FromRef;
use streamerson::handler::Handler;
use streamerson::{
    Attempt, Deadline, FromRequest, Headers, IntoReply, Json, Message, Meta, Path, Problem, Query,
    Reply, Request, Router, State, core::Topic,
};
use tower::ServiceExt;

async fn answer(router: Router, message: Message) -> Reply {
    let request = Request::new(Topic::new("work").unwrap(), message).unwrap();
    router.oneshot(request).await.unwrap()
}

async fn call<Args: 'static>(handler: impl Handler<Args, ()>, message: Message) -> Reply {
    answer(Router::new().on("t", handler), message).await
}

fn by_http(params: &[(&str, &str)], query: &str) -> Message {
    let params: BTreeMap<String, String> = params
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let http = Http {
        method: "GET".into(),
        path: "/items/7".into(),
        params,
        query: query.into(),
    };
    Message::new("t", "").with_meta(&Meta {
        http: Some(http),
        ..Meta::default()
    })
}

fn code(reply: &Reply) -> (u16, String) {
    let problem = reply.problem().expect("a failure");
    (problem.status().as_u16(), problem.code().to_owned())
}

fn text(reply: &Reply) -> &str {
    assert_eq!(reply.status(), 200, "{reply:?}");
    reply.text().unwrap()
}

#[tokio::test]
async fn json_is_read_and_written() {
    async fn handler(Json(n): Json<u64>) -> Json<u64> {
        Json(n + 1)
    }
    let reply = call(handler, Message::new("t", "41")).await;
    assert_eq!((reply.status().as_u16(), text(&reply)), (200, "42"));
    assert_eq!(reply.content_type(), "application/json");
    for payload in ["", "{", "\"x\"", "-1", "{}"] {
        let reply = call(handler, Message::new("t", payload)).await;
        assert_eq!(code(&reply), (400, "invalid-payload".into()), "{payload:?}");
    }
}

#[tokio::test]
async fn raw_payloads_are_taken_as_they_are() {
    async fn bytes(data: Bytes) -> Vec<u8> {
        data.to_vec()
    }
    async fn string(text: String) -> String {
        text
    }
    let reply = call(bytes, Message::new("t", &b"\xff\x00"[..])).await;
    assert_eq!(&reply.data()[..], b"\xff\x00");
    assert_eq!(reply.content_type(), "application/octet-stream");
    let reply = call(string, Message::new("t", "ä")).await;
    assert_eq!(
        (text(&reply), reply.content_type()),
        ("ä", "text/plain; charset=utf-8")
    );
    let reply = call(string, Message::new("t", &b"\xff"[..])).await;
    assert_eq!(code(&reply), (400, "invalid-payload".into()));
}

#[tokio::test]
async fn message_meta_and_headers_are_arguments() {
    async fn handler(message: Message, meta: Meta, headers: Headers) -> String {
        let header = headers.get("X-Tenant").unwrap_or("none");
        format!("{} {} {header}", message.kind, meta.key.unwrap_or_default())
    }
    let mut meta = Meta {
        key: Some("k".into()),
        ..Meta::default()
    };
    meta.hdr.append("x-tenant", "blue");
    let reply = call(handler, Message::new("t", "").with_meta(&meta)).await;
    assert_eq!(text(&reply), "t k blue");
}

#[tokio::test]
async fn a_meta_of_the_wrong_shape_is_the_senders_mistake() {
    async fn handler(_: Headers) {}
    let mut message = Message::new("t", "");
    message.meta = r#"{"hdr":7}"#.into();
    assert_eq!(
        code(&call(handler, message).await),
        (400, "invalid-meta".into())
    );
    let mut message = Message::new("t", "");
    message.meta = "not json".into();
    let refused = Request::new(Topic::new("work").unwrap(), message).unwrap_err();
    assert_eq!(refused.code(), "invalid-meta");
}

#[derive(Deserialize)]
struct Item {
    id: u64,
    shop: String,
}

#[tokio::test]
async fn path_parameters_are_read_by_name_or_alone() {
    async fn named(Path(item): Path<Item>) -> String {
        format!("{} {}", item.shop, item.id)
    }
    async fn alone(Path(id): Path<u64>) -> String {
        id.to_string()
    }
    let reply = call(named, by_http(&[("id", "7"), ("shop", "a b")], "")).await;
    assert_eq!(text(&reply), "a b 7");
    assert_eq!(text(&call(alone, by_http(&[("id", "7")], "")).await), "7");
    for message in [
        by_http(&[("id", "x")], ""),
        by_http(&[], ""),
        Message::new("t", ""),
    ] {
        assert_eq!(
            code(&call(alone, message).await),
            (400, "invalid-path".into())
        );
    }
}

#[tokio::test]
async fn what_does_not_fit_is_named() {
    async fn payload(Json(items): Json<Vec<Item>>) -> String {
        format!("{}", items.len())
    }
    async fn query(Query(page): Query<Page>) -> String {
        format!("{} {:?}", page.size, page.after)
    }
    async fn path(Path(item): Path<Item>) -> String {
        item.shop
    }
    let item = Message::new("t", r#"[{"shop":"a","id":1},{"shop":"a","id":-1}]"#);
    let id = by_http(&[("id", "x"), ("shop", "a")], "");
    for (reply, named) in [
        (call(payload, item).await, "fit: [1].id: invalid value"),
        (
            call(query, by_http(&[], "after=b&size=ten")).await,
            "fit: size: ",
        ),
        (call(path, id).await, "fit: id: "),
        // Nothing inside of it is to blame.
        (
            call(payload, Message::new("t", "{}")).await,
            "fit: invalid type",
        ),
    ] {
        let problem = reply.problem().unwrap();
        assert_eq!(problem.status().as_u16(), 400);
        assert!(problem.message().contains(named), "{problem:?}");
    }
}

#[derive(Deserialize)]
struct Page {
    size: u8,
    after: Option<String>,
}

#[tokio::test]
async fn the_query_is_decoded() {
    async fn handler(Query(page): Query<Page>) -> String {
        format!("{} {}", page.size, page.after.unwrap_or_default())
    }
    let reply = call(handler, by_http(&[], "size=9&after=a%26b+c")).await;
    assert_eq!(text(&reply), "9 a&b c");
    for message in [by_http(&[], "size=900"), Message::new("t", "")] {
        assert_eq!(
            code(&call(handler, message).await),
            (400, "invalid-query".into())
        );
    }
}

#[tokio::test]
async fn deadline_and_attempt_are_arguments() {
    async fn handler(deadline: Deadline, Attempt(attempt): Attempt) -> String {
        format!("{:?} {attempt}", deadline.unix_ms())
    }
    let meta = Meta {
        exp: Some(u64::MAX),
        ..Meta::default()
    };
    let reply = call(handler, Message::new("t", "").with_meta(&meta)).await;
    assert_eq!(text(&reply), format!("Some({}) 1", u64::MAX));
    let reply = call(handler, Message::new("t", "")).await;
    assert_eq!(text(&reply), "None 1");
}

#[tokio::test]
async fn state_is_shared_whole_and_in_part() {
    #[derive(Clone)]
    struct App {
        name: &'static str,
    }
    impl FromRef<App> for String {
        fn from_ref(app: &App) -> String {
            app.name.to_uppercase()
        }
    }
    async fn handler(State(app): State<App>, State(part): State<String>) -> String {
        format!("{} {part}", app.name)
    }
    let router = Router::new()
        .on("t", handler)
        .with_state(App { name: "blue" });
    assert_eq!(
        text(&answer(router, Message::new("t", "")).await),
        "blue BLUE"
    );
}

#[tokio::test]
async fn a_rejection_may_be_left_to_the_handler() {
    async fn handler(
        optional: Option<Json<u64>>,
        result: Result<Json<u64>, Problem>,
    ) -> Json<Value> {
        let code = result.map_or_else(|problem| problem.code().to_owned(), |Json(n)| n.to_string());
        Json(json!([optional.map(|Json(n)| n), code]))
    }
    assert_eq!(
        text(&call(handler, Message::new("t", "1")).await),
        r#"[1,"1"]"#
    );
    let reply = call(handler, Message::new("t", "x")).await;
    assert_eq!(text(&reply), r#"[null,"invalid-payload"]"#);
}

#[tokio::test]
async fn an_extractor_of_ones_own_rejects_with_its_own_reply() {
    struct Secret;
    impl<S: Sync> FromRequest<S> for Secret {
        type Rejection = (StatusCode, &'static str);

        async fn from_request(request: &Request, _: &S) -> Result<Secret, Self::Rejection> {
            tokio::task::yield_now().await;
            match request.message().data.as_ref() {
                b"please" => Ok(Secret),
                _ => Err((StatusCode::FORBIDDEN, "say please")),
            }
        }
    }
    async fn handler(_: Secret) -> &'static str {
        "welcome"
    }
    assert_eq!(
        text(&call(handler, Message::new("t", "please")).await),
        "welcome"
    );
    let reply = call(handler, Message::new("t", "")).await;
    assert_eq!(
        (reply.status().as_u16(), reply.text().unwrap()),
        (403, "say please")
    );
}

#[tokio::test]
async fn twelve_arguments_are_possible() {
    type A = Attempt;
    #[allow(clippy::too_many_arguments)]
    async fn handler(
        a: A,
        b: A,
        c: A,
        d: A,
        e: A,
        f: A,
        g: A,
        h: A,
        i: A,
        j: A,
        k: A,
        l: A,
    ) -> Json<u32> {
        Json(
            [a, b, c, d, e, f, g, h, i, j, k, l]
                .iter()
                .map(|a| a.0)
                .sum(),
        )
    }
    assert_eq!(text(&call(handler, Message::new("t", "")).await), "12");
}

#[test]
fn replies_have_the_status_headers_and_content_of_their_type() {
    let cases: [(Reply, u16, &str, &str); 7] = [
        (().into_reply(), 204, "application/json", ""),
        ("hi".into_reply(), 200, "text/plain; charset=utf-8", "hi"),
        (
            Bytes::from("x").into_reply(),
            200,
            "application/octet-stream",
            "x",
        ),
        (
            StatusCode::ACCEPTED.into_reply(),
            202,
            "application/json",
            "",
        ),
        (
            (StatusCode::CREATED, Json(1)).into_reply(),
            201,
            "application/json",
            "1",
        ),
        (
            Ok::<_, Problem>(Json(1)).into_reply(),
            200,
            "application/json",
            "1",
        ),
        (
            (
                StatusCode::OK,
                [("Content-Type", "image/svg+xml"), ("etag", "a")],
                "<svg/>",
            )
                .into_reply(),
            200,
            "image/svg+xml",
            "<svg/>",
        ),
    ];
    for (reply, status, content_type, data) in cases {
        assert_eq!(reply.status(), status, "{reply:?}");
        assert_eq!(reply.content_type(), content_type, "{reply:?}");
        assert_eq!(reply.text().unwrap(), data, "{reply:?}");
        assert!(reply.problem().is_none(), "{reply:?}");
    }
}

#[test]
fn failures_have_a_status_a_code_and_a_message() {
    let reply = Err::<Json<u8>, _>(Problem::conflict("taken", "it is taken")).into_reply();
    assert_eq!(
        reply.problem(),
        Some(Problem::conflict("taken", "it is taken"))
    );
    assert_eq!(
        code(&StatusCode::NOT_FOUND.into_reply()),
        (404, "http-404".into())
    );
    let unwritable = Json(BTreeMap::from([((1, 2), 3)])).into_reply();
    assert_eq!(code(&unwritable), (500, "unserializable-reply".into()));
}

#[tokio::test]
async fn an_unknown_type_is_answered_and_the_fallback_may_take_it() {
    async fn anything(message: Message) -> String {
        message.kind.to_string()
    }
    let router = Router::new().on("t", || async {});
    let reply = answer(router.clone(), Message::new("u", "")).await;
    assert_eq!(code(&reply), (404, "unknown-type".into()));
    let reply = answer(router.fallback(anything), Message::new("u", "")).await;
    assert_eq!(text(&reply), "u");
}

#[test]
#[should_panic(expected = "message type \"t\" has a handler already")]
fn a_second_handler_for_a_type_is_refused_at_the_start() {
    let _ = Router::<()>::new()
        .on("t", || async {})
        .on("t", || async {});
}

mod layers {
    use super::*;
    use std::time::Duration;
    use tower::ServiceBuilder;
    use tower::layer::layer_fn;
    use tower::util::{MapRequest, MapResponse};

    #[derive(Clone)]
    struct User(&'static str);

    impl<S: Sync> FromRequest<S> for User {
        type Rejection = StatusCode;

        async fn from_request(request: &Request, _: &S) -> Result<User, StatusCode> {
            let user = request.extensions().get::<User>().cloned();
            user.ok_or(StatusCode::UNAUTHORIZED)
        }
    }

    #[tokio::test]
    async fn the_layer_added_last_is_outermost_and_all_wrap_everything() {
        let tag = |name: &'static str| {
            layer_fn(move |inner| {
                MapResponse::new(inner, move |reply: Reply| reply.with_header("via", name))
            })
        };
        let router = Router::new()
            .layer(tag("inner"))
            .on("t", || async {})
            .layer(tag("outer"));
        for kind in ["t", "unknown"] {
            let reply = answer(router.clone(), Message::new(kind, "")).await;
            let via: Vec<_> = reply.headers().iter().map(|(_, value)| value).collect();
            assert_eq!(via, ["inner", "outer"], "{kind}");
        }
    }

    #[tokio::test]
    async fn what_a_layer_attaches_reaches_extractors() {
        async fn handler(User(name): User) -> &'static str {
            name
        }
        let attach = layer_fn(|inner| {
            MapRequest::new(inner, |mut request: Request| {
                request.extensions_mut().insert(User("ada"));
                request
            })
        });
        let router = Router::new().on("t", handler);
        let refused = answer(router.clone(), Message::new("t", "")).await;
        assert_eq!(refused.status(), 401);
        assert_eq!(
            text(&answer(router.layer(attach), Message::new("t", "")).await),
            "ada"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_of_a_layer_is_a_reply() {
        let slow = || async {
            std::future::pending::<()>().await;
        };
        let timeout = ServiceBuilder::new().timeout(Duration::from_secs(1));
        let router = Router::new().on("t", slow).layer(timeout);
        let reply = answer(router, Message::new("t", "")).await;
        assert_eq!(code(&reply), (500, "layer-failed".into()));
    }
}
