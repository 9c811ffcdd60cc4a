//! The message itself, and its delivery.

use std::convert::Infallible;

use super::FromRequest;
use crate::{Deadline, Headers, Message, Meta, Problem, Request};

/// How often the message has been delivered, this time included: more than 1 after a retry or the loss of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt(pub u32);

impl<S: Sync> FromRequest<S> for Attempt {
    type Rejection = Infallible;

    async fn from_request(request: &Request, _: &S) -> Result<Attempt, Infallible> {
        Ok(Attempt(request.attempt()))
    }
}

impl<S: Sync> FromRequest<S> for Deadline {
    type Rejection = Infallible;

    async fn from_request(request: &Request, _: &S) -> Result<Deadline, Infallible> {
        Ok(request.deadline())
    }
}

impl<S: Sync> FromRequest<S> for Message {
    type Rejection = Infallible;

    async fn from_request(request: &Request, _: &S) -> Result<Message, Infallible> {
        Ok(request.message().clone())
    }
}

impl<S: Sync> FromRequest<S> for Meta {
    type Rejection = Problem;

    async fn from_request(request: &Request, _: &S) -> Result<Meta, Problem> {
        meta(request).cloned()
    }
}

impl<S: Sync> FromRequest<S> for Headers {
    type Rejection = Problem;

    async fn from_request(request: &Request, _: &S) -> Result<Headers, Problem> {
        meta(request).map(|meta| meta.hdr.clone())
    }
}

/// The parsed meta; a meta that cannot be read is the sender's mistake.
pub(super) fn meta(request: &Request) -> Result<&Meta, Problem> {
    request
        .meta()
        .map_err(|error| Problem::bad_request(error.code(), error.detail().to_owned()))
}
