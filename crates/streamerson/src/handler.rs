//! Handlers: plain async functions, and what is agreed for one of them.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use streamerson_core::retry::RetryPolicy;

use crate::extract::FromRequest;
use crate::{Dedupe, IntoReply, Reply, Request};

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

    /// What is agreed for this handler.
    fn terms(&self) -> Terms {
        Terms::default()
    }

    /// The same handler, with its own policy for what fails and nobody waits for, instead of the worker's.
    ///
    /// ```
    /// use std::time::Duration;
    /// use streamerson::{Handler, Problem, RetryPolicy, Router};
    ///
    /// async fn send_mail() -> Result<(), Problem> {
    ///     Err(Problem::unavailable("mail-busy", "the mail server is busy").retry_after(Duration::from_secs(60)))
    /// }
    ///
    /// let patient = RetryPolicy { max_attempts: 20, max_age: Some(Duration::from_secs(86_400)), ..RetryPolicy::default() };
    /// let router: Router = Router::new().on("mail.send", send_mail.retry(patient));
    /// ```
    fn retry(self, policy: RetryPolicy) -> Agreed<Self, Args, S>
    where
        Self: Sized,
    {
        let retry = Some(policy);
        let terms = Terms {
            retry,
            ..self.terms()
        };
        Agreed::new(self, terms)
    }

    /// As [`retry`](Handler::retry), and the policy is also for requests: a transient failure is tried again while the deadline of
    /// the request leaves time for it, and answered otherwise. Without this, who waits is told of a failure at once.
    fn retry_requests(self, policy: RetryPolicy) -> Agreed<Self, Args, S>
    where
        Self: Sized,
    {
        let terms = Terms {
            retry: Some(policy),
            requests: true,
            ..self.terms()
        };
        Agreed::new(self, terms)
    }

    /// The same handler; of messages that are the same to `dedupe`, only the first has an effect.
    fn dedupe(self, dedupe: Dedupe) -> Agreed<Self, Args, S>
    where
        Self: Sized,
    {
        let dedupe = Some(dedupe);
        let terms = Terms {
            dedupe,
            ..self.terms()
        };
        Agreed::new(self, terms)
    }
}

/// What is agreed for one handler; where it says nothing, the settings of the worker hold.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Terms {
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) requests: bool,
    pub(crate) dedupe: Option<Dedupe>,
}

/// A handler, and what is agreed for it.
pub struct Agreed<H, Args, S> {
    handler: H,
    terms: Terms,
    types: PhantomData<fn(Args, S)>,
}

impl<H, Args, S> Agreed<H, Args, S> {
    fn new(handler: H, terms: Terms) -> Agreed<H, Args, S> {
        Agreed {
            handler,
            terms,
            types: PhantomData,
        }
    }
}

impl<H, Args, S> Handler<Args, S> for Agreed<H, Args, S>
where
    H: Handler<Args, S>,
    Args: 'static,
    S: 'static,
{
    fn call(&self, request: Request, state: &S) -> impl Future<Output = Reply> + Send {
        self.handler.call(request, state)
    }

    fn terms(&self) -> Terms {
        self.terms
    }
}

impl<H, Args, S> std::fmt::Debug for Agreed<H, Args, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agreed")
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
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
    args: PhantomData<fn(Args)>,
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
            args: PhantomData,
        })
    })
}
