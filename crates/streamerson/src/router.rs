//! The router: which handler handles which message type.

mod batch;
mod live;

use std::any::Any;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use http::StatusCode;
use tower::util::{BoxCloneSyncService, ServiceExt};
use tower::{BoxError, Layer, Service, service_fn};

use crate::handler::{Handler, Route, Terms, Unbound, unbound};
use crate::{IntoReply, Problem, Reply, Request};
pub use batch::{BatchHandler, IntoReplies};
pub use live::LiveRouter;

type Answering = BoxFuture<'static, Result<Reply, Infallible>>;
type Wrap = Arc<dyn Fn(RouterService) -> RouterService + Send + Sync>;

/// What a layer wraps: a service that answers every request.
pub type RouterService = BoxCloneSyncService<Request, Reply, Infallible>;

/// Which handler handles which message type. A `tower::Service` once it has its state.
///
/// ```
/// use streamerson::{Json, Request, Router, Message, core::Topic};
/// use tower::ServiceExt;
///
/// async fn double(Json(n): Json<u64>) -> Json<u64> {
///     Json(2 * n)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Without a broker, for example in a test:
/// let router = Router::new().on("double", double);
/// let request = Request::new(Topic::new("numbers")?, Message::new("double", "21"))?;
/// let reply = router.oneshot(request).await?;
/// assert_eq!(&reply.data()[..], b"42");
/// # Ok(())
/// # }
/// ```
pub struct Router<S = ()> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    routes: HashMap<String, Unbound<S>, ahash::RandomState>,
    fallback: Unbound<S>,
    agreements: Agreements,
    layers: Vec<Wrap>,
    ready: OnceLock<Ready>,
}

/// What is agreed for the handlers of a router, by message type.
#[derive(Debug, Clone, Default)]
pub(crate) struct Agreements {
    by_kind: HashMap<String, Terms, ahash::RandomState>,
    fallback: Terms,
    /// Has those of now.
    live: Option<LiveRouter>,
}

impl Agreements {
    /// Those of `service`, if it is a router. Another service, also one around a router, has none.
    pub(crate) fn of<T: 'static>(service: &T) -> Agreements {
        let service = service as &dyn Any;
        if let Some(live) = service.downcast_ref::<LiveRouter>() {
            return Agreements {
                live: Some(live.clone()),
                ..Agreements::default()
            };
        }
        let router = service.downcast_ref::<Router>();
        let mut agreed = router.map_or_else(Agreements::default, |router| {
            router.inner.agreements.clone()
        });
        let Agreements {
            by_kind, fallback, ..
        } = &mut agreed;
        if by_kind.values().all(|terms| terms == fallback) {
            // Nothing to look up with every message.
            by_kind.clear();
        }
        agreed
    }

    #[cfg(test)]
    pub(crate) fn same(terms: Terms) -> Agreements {
        Agreements {
            fallback: terms,
            ..Agreements::default()
        }
    }

    pub(crate) fn get(&self, kind: &str) -> Terms {
        if self.by_kind.is_empty() {
            let live = self.live.as_ref();
            return live.map_or(self.fallback, |live| {
                live.current().inner.agreements.get(kind)
            });
        }
        self.by_kind.get(kind).copied().unwrap_or(self.fallback)
    }
}

/// A router with its state, layers applied: made with the first request.
struct Ready {
    table: Table,
    layered: Option<RouterService>,
}

#[derive(Clone)]
struct Table {
    shared: Arc<Routes>,
}

struct Routes {
    by_kind: HashMap<String, Arc<dyn Route>, ahash::RandomState>,
    fallback: Arc<dyn Route>,
}

impl<S: Send + Sync + 'static> Default for Router<S> {
    fn default() -> Router<S> {
        Router::new()
    }
}

impl<S: Send + Sync + 'static> Router<S> {
    /// A router that answers everything with 404 and the code `unknown-type`.
    pub fn new() -> Router<S> {
        let inner = Inner {
            routes: HashMap::default(),
            fallback: unbound(UnknownType),
            agreements: Agreements::default(),
            layers: Vec::new(),
            ready: OnceLock::new(),
        };
        Router {
            inner: Arc::new(inner),
        }
    }

    /// Handles messages of type `kind` with `handler`.
    ///
    /// # Panics
    ///
    /// If there is a handler for `kind` already: a mistake in the program, best found when it starts.
    #[track_caller]
    pub fn on<H, Args>(self, kind: impl Into<String>, handler: H) -> Router<S>
    where
        H: Handler<Args, S>,
        Args: 'static,
    {
        self.route(kind.into(), handler.terms(), unbound(handler))
    }

    /// Handles messages of type `kind` with `handler`, up to `max` at once.
    ///
    /// Messages that come while a batch is being handled form the next one; nothing waits for a batch to fill, and a full
    /// one is begun although another is being handled. At most as many messages are together as the worker's
    /// [`concurrency`](crate::Worker::concurrency).
    ///
    /// Each message has its own outcome. A batch that fails as a whole, by a panic or an error, is halved and handled again
    /// until the failure is that of one message: so a handler must bear to see a message again, for example because it does
    /// its work in one transaction. A message that was delivered before, because it was retried or its worker was
    /// lost, is handled alone.
    ///
    /// ```
    /// use streamerson::{Json, Problem, Router, State};
    ///
    /// # #[derive(Clone)] struct Db;
    /// # impl Db { async fn insert(&self, _: &[u32]) -> Result<(), String> { Ok(()) } }
    /// async fn store(State(db): State<Db>, orders: Vec<Json<u32>>) -> Result<Vec<Json<u32>>, Problem> {
    ///     let orders: Vec<u32> = orders.into_iter().map(|Json(order)| order).collect();
    ///     db.insert(&orders).await.map_err(|error| Problem::unavailable("db-away", error))?;
    ///     Ok(orders.into_iter().map(Json).collect())
    /// }
    ///
    /// let router: Router = Router::new().on_batch("order.store", 500, store).with_state(Db);
    /// ```
    ///
    /// # Panics
    ///
    /// If there is a handler for `kind` already.
    #[track_caller]
    pub fn on_batch<H, Args>(self, kind: impl Into<String>, max: usize, handler: H) -> Router<S>
    where
        H: BatchHandler<Args, S>,
        Args: 'static,
    {
        let terms = Terms::default();
        self.route(kind.into(), terms, batch::unbound(max, handler))
    }

    #[track_caller]
    fn route(self, kind: String, terms: Terms, route: Unbound<S>) -> Router<S> {
        let mut inner = self.into_inner();
        if inner.routes.contains_key(&kind) {
            panic!("message type {kind:?} has a handler already; a type has one handler");
        }
        inner.agreements.by_kind.insert(kind.clone(), terms);
        inner.routes.insert(kind, route);
        Router {
            inner: Arc::new(inner),
        }
    }

    /// Handles messages of all other types with `handler`.
    pub fn fallback<H, Args>(self, handler: H) -> Router<S>
    where
        H: Handler<Args, S>,
        Args: 'static,
    {
        let mut inner = self.into_inner();
        inner.agreements.fallback = handler.terms();
        inner.fallback = unbound(handler);
        Router {
            inner: Arc::new(inner),
        }
    }

    /// Wraps the whole router in `layer`: all handlers, also those added later, and the fallback. The layer added last
    /// sees a request first. An error of the layer is answered as it is if it is a [`Problem`], else with 500 and the code `layer-failed`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use streamerson::{Reply, Request, Router};
    /// use tower::layer::layer_fn;
    /// use tower::util::MapResponse;
    ///
    /// let stamp = layer_fn(|inner| MapResponse::new(inner, |reply: Reply| reply.with_header("x-served-by", "blue")));
    /// let router: Router = Router::new().layer(stamp);
    /// ```
    pub fn layer<L>(self, layer: L) -> Router<S>
    where
        L: Layer<RouterService> + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoReply + 'static,
        <L::Service as Service<Request>>::Error: Into<BoxError> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        let mut inner = self.into_inner();
        inner.layers.push(Arc::new(move |service| {
            let layered = layer.layer(service);
            BoxCloneSyncService::new(service_fn(move |request| {
                let answering = layered.clone().oneshot(request);
                async move {
                    match answering.await {
                        Ok(reply) => Ok(reply.into_reply()),
                        Err(error) => Ok(failed(error.into())),
                    }
                }
            }))
        }));
        Router {
            inner: Arc::new(inner),
        }
    }

    /// Gives the handlers so far their state.
    pub fn with_state<S2: Send + Sync + 'static>(self, state: S) -> Router<S2> {
        let inner = self.into_inner();
        let state = Arc::new(state);
        let bind = |route: Unbound<S>| -> Unbound<S2> {
            let bound = route(&state);
            Arc::new(move |_| bound.clone())
        };
        let inner = Inner {
            routes: inner
                .routes
                .into_iter()
                .map(|(kind, route)| (kind, bind(route)))
                .collect(),
            fallback: bind(inner.fallback),
            agreements: inner.agreements,
            layers: inner.layers,
            ready: OnceLock::new(),
        };
        Router {
            inner: Arc::new(inner),
        }
    }

    /// The message types that have a handler, in order.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = self.inner.routes.keys().map(String::as_str).collect();
        kinds.sort_unstable();
        kinds
    }

    fn into_inner(self) -> Inner<S> {
        match Arc::try_unwrap(self.inner) {
            // Made ready by an earlier request, it would not know of what is added now.
            Ok(inner) => Inner {
                ready: OnceLock::new(),
                ..inner
            },
            Err(shared) => Inner {
                routes: shared.routes.clone(),
                fallback: shared.fallback.clone(),
                agreements: shared.agreements.clone(),
                layers: shared.layers.clone(),
                ready: OnceLock::new(),
            },
        }
    }
}

impl Inner<()> {
    fn ready(&self) -> &Ready {
        self.ready.get_or_init(|| {
            let state = Arc::new(());
            let routes = Routes {
                by_kind: self
                    .routes
                    .iter()
                    .map(|(kind, route)| (kind.clone(), route(&state)))
                    .collect(),
                fallback: (self.fallback)(&state),
            };
            let table = Table {
                shared: Arc::new(routes),
            };
            let layered = (!self.layers.is_empty()).then(|| {
                let innermost = BoxCloneSyncService::new(table.clone());
                self.layers
                    .iter()
                    .fold(innermost, |service, wrap| wrap(service))
            });
            Ready { table, layered }
        })
    }
}

impl Table {
    fn answer(&self, request: Request) -> Answering {
        let route = self
            .shared
            .by_kind
            .get(request.kind())
            .unwrap_or(&self.shared.fallback);
        route.clone().call(request)
    }
}

impl Service<Request> for Table {
    type Response = Reply;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answering {
        self.answer(request)
    }
}

impl Service<Request> for Router {
    type Response = Reply;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answering {
        let ready = self.inner.ready();
        match &ready.layered {
            Some(layered) => layered.clone().oneshot(request).boxed(),
            None => ready.table.answer(request),
        }
    }
}

impl<S> Clone for Router<S> {
    fn clone(&self) -> Router<S> {
        Router {
            inner: self.inner.clone(),
        }
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("kinds", &self.inner.routes.keys())
            .finish_non_exhaustive()
    }
}

/// Answers what nobody handles.
struct UnknownType;

impl<S: Send + Sync> Handler<(), S> for UnknownType {
    async fn call(&self, request: Request, _: &S) -> Reply {
        let message = format!(
            "no handler for messages of type {:?} on topic {}; check the spelling, or add the handler",
            request.kind(),
            request.topic()
        );
        Problem::not_found("unknown-type", message).into_reply()
    }
}

/// A layer may fail with a [`Problem`], which is answered as it is.
fn failed(error: BoxError) -> Reply {
    match error.downcast::<Problem>() {
        Ok(problem) => problem.into_reply(),
        Err(error) => {
            tracing::error!(%error, "a layer failed");
            let message = "a layer around the handler failed; its log has the reason";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "layer-failed", message).into_reply()
        }
    }
}
