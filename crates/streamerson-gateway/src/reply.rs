//! From a worker's reply to a response. A reply is untrusted input: what HTTP cannot carry is not passed on.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use streamerson_core::Message;
use streamerson_core::meta::{Failure as WorkerFailure, Headers};

use crate::codes;
use crate::config::is_hop_by_hop;
use crate::problem::{self, Failure};
use crate::response;

/// What of a reply's `meta` matters to HTTP.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ReplyMeta {
    status: Option<u16>,
    ctype: Option<String>,
    hdr: Headers,
    err: Option<WorkerFailure>,
}

/// The response that `reply` stands for, to the request `id`.
pub(crate) fn into_response(reply: Message, id: &str) -> Result<Response<Full<Bytes>>, Failure> {
    if reply.meta.is_empty() {
        return Ok(response::json(StatusCode::OK, reply.data, id));
    }
    let meta = parse(&reply.meta)?;
    let status = meta.status.map(status).transpose()?;
    let mut response = match &meta.err {
        Some(failure) => {
            let failed = |status: &StatusCode| status.as_u16() >= 400;
            let status = status
                .filter(failed)
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            problem::of_worker(status, &failure.code, &failure.message, id)
        }
        None => success(
            status.unwrap_or(StatusCode::OK),
            meta.ctype.as_deref(),
            reply.data,
            id,
        )?,
    };
    add_headers(&mut response, &meta.hdr)?;
    Ok(response)
}

fn parse(meta: &[u8]) -> Result<ReplyMeta, Failure> {
    // To serde, a list may stand for an object.
    if !meta.trim_ascii_start().starts_with(b"{") {
        return Err(unusable("its meta is not a JSON object".into()));
    }
    serde_json::from_slice(meta)
        .map_err(|error| unusable(format!("its meta cannot be read: {error}")))
}

fn success(
    status: StatusCode,
    ctype: Option<&str>,
    data: Bytes,
    id: &str,
) -> Result<Response<Full<Bytes>>, Failure> {
    if response::is_bodiless(status) {
        return Ok(response::empty(status, id));
    }
    let Some(ctype) = ctype else {
        return Ok(response::json(status, data, id));
    };
    let ctype = value(&CONTENT_TYPE, ctype)?;
    Ok(response::typed(status, ctype, data, id))
}

fn add_headers(response: &mut Response<Full<Bytes>>, hdr: &Headers) -> Result<(), Failure> {
    let headers = response.headers_mut();
    let mut theirs = Vec::new();
    for (name, text) in hdr.iter() {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            let shown: String = name.chars().take(64).collect();
            unusable(format!("{shown:?} is not a header name"))
        })?;
        if is_hop_by_hop(&header) {
            return Err(unusable(format!("{header} is not for a reply to set")));
        }
        let value = value(&header, text)?;
        if header != response::REQUEST_ID {
            theirs.push((header, value));
        }
    }
    // What a worker sets replaces our default.
    for (header, _) in &theirs {
        headers.remove(header);
    }
    for (header, value) in theirs {
        headers.append(header, value);
    }
    Ok(())
}

fn status(status: u16) -> Result<StatusCode, Failure> {
    StatusCode::from_u16(status)
        .ok()
        .filter(|_| (200..=599).contains(&status))
        .ok_or_else(|| unusable(format!("its status {status} is not from 200 to 599")))
}

fn value(name: &HeaderName, text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| unusable(format!("the value of {name} holds a control character")))
}

fn unusable(why: String) -> Failure {
    Failure::new(
        codes::INVALID_REPLY,
        format!("the worker replied, but {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn reply(meta: &'static str) -> Message {
        let mut reply = Message::new("greet", "[1]");
        reply.meta = meta.into();
        reply
    }

    fn response(meta: &'static str) -> Response<Full<Bytes>> {
        into_response(reply(meta), "id-1").unwrap()
    }

    async fn body(response: Response<Full<Bytes>>) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_plain_reply_is_json_and_200() {
        let response = response("");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["streamerson-request-id"], "id-1");
        assert_eq!(body(response).await, "[1]");
    }

    #[tokio::test]
    async fn a_worker_decides_status_content_type_and_headers() {
        let response = response(
            r#"{"status":201,"ctype":"text/csv",
                "hdr":{"location":"/orders/7","cache-control":"max-age=5","set-cookie":["a=1","b=2"]}}"#,
        );
        assert_eq!(response.status(), 201);
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/csv");
        assert_eq!(headers["location"], "/orders/7");
        assert_eq!(headers["cache-control"], "max-age=5");
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(body(response).await, "[1]");
    }

    #[tokio::test]
    async fn a_failed_reply_is_a_problem_document() {
        let response =
            response(r#"{"status":409,"err":{"code":"out-of-stock","message":"none left"}}"#);
        assert_eq!(response.status(), 409);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let problem: serde_json::Value = serde_json::from_slice(&body(response).await).unwrap();
        assert_eq!(problem["code"], "out-of-stock");
        assert_eq!(problem["type"], "urn:streamerson:error:out-of-stock");
        assert_eq!(problem["detail"], "none left");
        assert_eq!(problem["origin"], "worker");
        assert_eq!(problem["status"], 409);
        assert_eq!(problem["instance"], "urn:uuid:id-1");
    }

    #[tokio::test]
    async fn a_failure_never_looks_like_success() {
        assert_eq!(response(r#"{"err":{"code":"x"}}"#).status(), 500);
        assert_eq!(
            response(r#"{"status":200,"err":{"code":"x"}}"#).status(),
            500
        );
    }

    #[tokio::test]
    async fn a_code_that_is_no_token_stays_out_of_the_type() {
        let response = response(r#"{"err":{"code":"a b\n"}}"#);
        let problem: serde_json::Value = serde_json::from_slice(&body(response).await).unwrap();
        assert_eq!(problem["type"], "about:blank");
    }

    #[tokio::test]
    async fn no_content_has_no_body() {
        let response = response(r#"{"status":204}"#);
        assert!(!response.headers().contains_key("content-type"));
        assert_eq!(body(response).await, "");
    }

    #[test]
    fn what_http_cannot_carry_is_refused() {
        for meta in [
            "nonsense",
            "[]",
            r#"{"status":99}"#,
            r#"{"status":101}"#,
            r#"{"status":600}"#,
            r#"{"status":70000}"#,
            r#"{"status":"200"}"#,
            r#"{"ctype":"text/plain\r\nx: y"}"#,
            r#"{"hdr":{"x":"a\r\nset-cookie: b"}}"#,
            r#"{"hdr":{"x":"\u0000"}}"#,
            r#"{"hdr":{"a b":"c"}}"#,
            r#"{"hdr":{"":"c"}}"#,
            r#"{"hdr":{"Transfer-Encoding":"chunked"}}"#,
            r#"{"hdr":{"content-length":"3"}}"#,
            r#"{"hdr":{"connection":"close"}}"#,
        ] {
            let refused = into_response(reply(meta), "id-1").unwrap_err();
            assert_eq!(refused.code, codes::INVALID_REPLY, "{meta}");
        }
    }
}
