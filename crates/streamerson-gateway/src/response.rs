//! Responses, with the headers that all of them carry.

use bytes::Bytes;
use bytestring::ByteString;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// Names the message that a request became, on every response.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("streamerson-request-id");

/// A response to the request `id`. Not to be stored by caches, unless a later header says otherwise.
pub(crate) fn with_body(
    status: StatusCode,
    ctype: Option<HeaderValue>,
    body: Bytes,
    id: &ByteString,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(6);
    if let Some(ctype) = ctype {
        headers.insert(CONTENT_TYPE, ctype);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_maybe_shared(id.as_bytes().clone()) {
        headers.insert(REQUEST_ID, id);
    }
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
