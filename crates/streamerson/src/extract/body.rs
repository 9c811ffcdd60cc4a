//! The payload.

use std::convert::Infallible;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::FromRequest;
use crate::{Problem, Request};

/// The payload as JSON, as an argument; a value as JSON, as a reply.
///
/// A payload that does not fit is rejected with 400 and the code `invalid-payload`. An empty payload is `null`, so that
/// `Json<Option<T>>` takes a request without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: &Request, _: &S) -> Result<Json<T>, Problem> {
        let data = match &request.message().data {
            empty if empty.is_empty() => b"null",
            data => &data[..],
        };
        serde_json::from_slice(data)
            .map(Json)
            .map_err(|error| match where_it_fails::<T>(data) {
                Err(named) => invalid(request, &named),
                Ok(_) => invalid(request, &error),
            })
    }
}

/// Reads again what did not fit, to tell in which field: to keep track of that takes time, which others need not spend.
fn where_it_fails<T: DeserializeOwned>(
    data: &[u8],
) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(data))
}

impl<S: Sync> FromRequest<S> for Bytes {
    type Rejection = Infallible;

    async fn from_request(request: &Request, _: &S) -> Result<Bytes, Infallible> {
        Ok(request.message().data.clone())
    }
}

impl<S: Sync> FromRequest<S> for String {
    type Rejection = Problem;

    async fn from_request(request: &Request, _: &S) -> Result<String, Problem> {
        std::str::from_utf8(&request.message().data)
            .map(str::to_owned)
            .map_err(|error| invalid(request, &error))
    }
}

fn invalid(request: &Request, error: &dyn std::error::Error) -> Problem {
    let message = format!("the payload of {} does not fit: {error}", request.kind());
    Problem::bad_request("invalid-payload", message)
}
