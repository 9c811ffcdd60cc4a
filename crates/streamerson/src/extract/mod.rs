//! Extractors: what a handler may take as arguments.

mod body;
mod delivery;
mod effect;
mod http;
mod params;
mod state;

use std::convert::Infallible;
use std::future::Future;

use crate::{IntoReply, Request};

pub use body::Json;
pub use delivery::Attempt;
pub use effect::{Fence, IdempotencyKey};
pub use http::{Path, Query};
pub use state::{FromRef, State};

/// What a handler may take as an argument: made from the request and the router's state.
///
/// | argument | from |
/// |---|---|
/// | [`Json<T>`] | the payload as JSON; 400 `invalid-payload` if it does not fit |
/// | `Bytes`, `String` | the payload as it is; as UTF-8 text |
/// | [`Message`](crate::Message), [`Meta`](crate::Meta), [`Headers`](crate::Headers) | the message, and parts of it |
/// | [`Path<T>`], [`Query<T>`] | the HTTP request the message came from |
/// | [`Deadline`](crate::Deadline), [`Attempt`] | until when an answer is of use; how often the message was delivered |
/// | [`IdempotencyKey`], [`Fence`] | what makes an effect outside of the broker happen once, and refuses a late one |
/// | [`State<T>`] | the router's state, or a part of it ([`FromRef`]) |
/// | `Option<E>`, `Result<E, E::Rejection>` | another extractor, whose rejection the handler decides about |
///
/// Your own, here from a header:
///
/// ```
/// use streamerson::{FromRequest, Problem, Request};
/// use http::StatusCode;
///
/// struct Tenant(String);
///
/// impl<S: Sync> FromRequest<S> for Tenant {
///     type Rejection = Problem;
///
///     async fn from_request(request: &Request, _: &S) -> Result<Tenant, Problem> {
///         match request.meta()?.hdr.get("x-tenant") {
///             Some(tenant) => Ok(Tenant(tenant.into())),
///             None => Err(Problem::new(StatusCode::UNAUTHORIZED, "no-tenant", "the header x-tenant is missing")),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler whose router has the state `{S}`",
    label = "not an extractor",
    note = "arguments are `Json<T>` with `T: Deserialize`, `State<T>` with `T: FromRef<{S}>`, `Path<T>`, `Query<T>`, `Headers`, `Meta`, `Message`, `Bytes`, `String`, `Deadline`, `Attempt`, `IdempotencyKey`, `Fence`, and what implements `FromRequest<{S}>`"
)]
pub trait FromRequest<S>: Sized {
    /// The reply when there is no such thing in the request; the handler is not called then.
    type Rejection: IntoReply;

    /// Takes it from the request.
    fn from_request(
        request: &Request,
        state: &S,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send;
}

/// `None` when `E` rejects the request, for whatever reason.
impl<S: Sync, E: FromRequest<S>> FromRequest<S> for Option<E> {
    type Rejection = Infallible;

    async fn from_request(request: &Request, state: &S) -> Result<Option<E>, Infallible> {
        Ok(E::from_request(request, state).await.ok())
    }
}

impl<S: Sync, E: FromRequest<S>> FromRequest<S> for Result<E, E::Rejection> {
    type Rejection = Infallible;

    async fn from_request(
        request: &Request,
        state: &S,
    ) -> Result<Result<E, E::Rejection>, Infallible> {
        Ok(E::from_request(request, state).await)
    }
}
