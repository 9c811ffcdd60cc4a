//! Responses, with the headers that all of them carry.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// Names the message that a request became, on every response.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("streamerson-request-id");

/// The headers of a plain answer. Cloning them is cheaper than inserting them one by one, and every request gets them.
static PLAIN: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, HeaderValue::from_static(""));
    headers
});

/// A JSON response to the request `id`. Not to be stored by caches, unless a later header says otherwise.
pub(crate) fn json(status: StatusCode, body: Bytes, id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.clone_from(&PLAIN);
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// The same, with another content type.
pub(crate) fn typed(
    status: StatusCode,
    ctype: HeaderValue,
    body: Bytes,
    id: &str,
) -> Response<Full<Bytes>> {
    let mut response = json(status, body, id);
    response.headers_mut().insert(CONTENT_TYPE, ctype);
    response
}

/// The same, without a body.
pub(crate) fn empty(status: StatusCode, id: &str) -> Response<Full<Bytes>> {
    let mut response = json(status, Bytes::new(), id);
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// The same response as an answer to HEAD: its length is told, its body left out.
pub(crate) fn without_body(response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let (mut head, body) = response.into_parts();
    let length = http_body::Body::size_hint(&body).exact().unwrap_or(0);
    if !is_bodiless(head.status) {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, Full::default())
}

/// Whether a response of this status has no body by definition.
pub(crate) fn is_bodiless(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}
