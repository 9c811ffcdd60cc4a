//! Handlers: plain async functions.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::extract::FromRequest;
use crate::{IntoReply, Reply, Request};

/// An async function of up to twelve arguments that are [`FromRequest`], whose result is [`IntoReply`].
///
/// ```
/// use streamerson::{Attempt, Json, Problem, Router, State};
///
/// async fn add(State(offset): State<u64>, Attempt(_): Attempt, Json(n): Json<u64>) -> Result<Json<u64>, Problem> {
///     let sum = n.checked_add(offset).ok_or(Problem::bad_request("too-large", "the sum is too large"))?;
///     Ok(Json(sum))
/// }
///
/// let router: Router = Router::new().on("add", add).with_state(7);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler is an `async fn` of up to 12 arguments, each `FromRequest<S>` for the router's state `S`, whose result is `IntoReply`",
    note = "its future must be `Send`: no `Rc`, and no lock guard held across an `.await`"
)]
pub trait Handler<Args, S>: Send + Sync + 'static {
    /// Takes the arguments from `request` and `state`, runs the function, and makes its result a reply.
    fn call(&self, request: Request, state: &S) -> impl Future<Output = Reply> + Send;
}

macro_rules! handler {
    ($($arg:ident),*) => {
        impl<Function, Running, Result, S, $($arg,)*> Handler<($($arg,)*), S> for Function
        where
            Function: Fn($($arg,)*) -> Running + Send + Sync + 'static,
            Running: Future<Output = Result> + Send,
            Result: IntoReply,
            S: Send + Sync,
            $($arg: FromRequest<S> + Send,)*
        {
            #[allow(non_snake_case, unused_variables)]
            async fn call(&self, request: Request, state: &S) -> Reply {
                $(
                    let $arg = match $arg::from_request(&request, state).await {
                        Ok(argument) => argument,
                        Err(rejection) => return rejection.into_reply(),
                    };
                )*
                self($($arg,)*).await.into_reply()
            }
        }
    };
}

handler!();
handler!(A1);
handler!(A1, A2);
handler!(A1, A2, A3);
handler!(A1, A2, A3, A4);
handler!(A1, A2, A3, A4, A5);
handler!(A1, A2, A3, A4, A5, A6);
handler!(A1, A2, A3, A4, A5, A6, A7);
handler!(A1, A2, A3, A4, A5, A6, A7, A8);
handler!(A1, A2, A3, A4, A5, A6, A7, A8, A9);
handler!(A1, A2, A3, A4, A5, A6, A7, A8, A9, A10);
handler!(A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11);
handler!(A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12);

/// A handler with its state, whatever its type.
pub(crate) trait Route: Send + Sync {
    fn call(self: Arc<Self>, request: Request) -> BoxFuture<'static, Result<Reply, Infallible>>;
}

/// A handler and its state.
struct Bound<H, S, Args> {
    handler: Arc<H>,
    state: Arc<S>,
    args: std::marker::PhantomData<fn(Args)>,
}

impl<H, S, Args> Route for Bound<H, S, Args>
where
    H: Handler<Args, S>,
    S: Send + Sync + 'static,
    Args: 'static,
{
    fn call(self: Arc<Self>, request: Request) -> BoxFuture<'static, Result<Reply, Infallible>> {
        async move { Ok(self.handler.call(request, &self.state).await) }.boxed()
    }
}

/// A handler that waits for its state.
pub(crate) type Unbound<S> = Arc<dyn Fn(&Arc<S>) -> Arc<dyn Route> + Send + Sync>;

pub(crate) fn unbound<H, S, Args>(handler: H) -> Unbound<S>
where
    H: Handler<Args, S>,
    S: Send + Sync + 'static,
    Args: 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |state| {
        Arc::new(Bound {
            handler: handler.clone(),
            state: state.clone(),
            args: std::marker::PhantomData,
        })
    })
}
