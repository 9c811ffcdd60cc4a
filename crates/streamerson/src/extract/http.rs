//! The HTTP request a message came from.

use serde::de::DeserializeOwned;

use super::delivery::meta;
use super::{FromRequest, params};
use crate::{Problem, Request};

/// The parameters of the path that the gateway matched: a struct or map by name, or a single value where there is a single parameter.
///
/// Rejected with 400 and the code `invalid-path` if they do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Path<T>(pub T);

/// The query of the HTTP request; empty for a message that did not come by HTTP.
///
/// Rejected with 400 and the code `invalid-query` if it does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request(request: &Request, _: &S) -> Result<Path<T>, Problem> {
        let Some(http) = &meta(request)?.http else {
            return Err(Problem::bad_request(
                "invalid-path",
                format!(
                    "{} takes parameters from a path, but the message did not come by HTTP",
                    request.kind()
                ),
            ));
        };
        params::from_params(&http.params)
            .map(Path)
            .map_err(|error| {
                Problem::bad_request(
                    "invalid-path",
                    format!("the path {} does not fit: {error}", http.path),
                )
            })
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request(request: &Request, _: &S) -> Result<Query<T>, Problem> {
        let query = meta(request)?.http.as_ref().map_or("", |http| &http.query);
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs)
            .map(Query)
            .map_err(|error| {
                Problem::bad_request("invalid-query", format!("the query does not fit: {error}"))
            })
    }
}
