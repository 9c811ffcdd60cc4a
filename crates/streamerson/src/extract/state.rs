//! What handlers share.

use std::convert::Infallible;

use super::FromRequest;
use crate::Request;

/// The router's state, or a part of it, cloned for each message: keep it cheap to clone, for example behind an `Arc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State<T>(pub T);

/// A part of the router's state. Every `Clone` type is a part of itself.
///
/// ```
/// use streamerson::extract::FromRef;
///
/// #[derive(Clone)]
/// struct Pool;
///
/// #[derive(Clone)]
/// struct App { pool: Pool }
///
/// // Handlers of a router with the state `App` may now take `State<Pool>`.
/// impl FromRef<App> for Pool {
///     fn from_ref(app: &App) -> Pool {
///         app.pool.clone()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a part of the state `{S}`",
    note = "give the router that state with `Router::with_state`, or implement `FromRef<{S}>` for `{Self}`"
)]
pub trait FromRef<S> {
    /// Takes the part from the whole.
    fn from_ref(state: &S) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> T {
        state.clone()
    }
}

impl<S: Sync, T: FromRef<S>> FromRequest<S> for State<T> {
    type Rejection = Infallible;

    async fn from_request(_: &Request, state: &S) -> Result<State<T>, Infallible> {
        Ok(State(T::from_ref(state)))
    }
}
