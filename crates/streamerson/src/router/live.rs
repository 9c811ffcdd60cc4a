//! A router that is replaced at run time.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use parking_lot::RwLock;
use tower::Service;

use super::Router;
use crate::{Reply, Request};

/// A [`Router`] that can be replaced while workers serve it: handlers come and go at run time. Clones are the same one.
///
/// What has begun ends with the handler it began with.
///
/// ```
/// use streamerson::router::LiveRouter;
/// use streamerson::{Client, Router, Worker, connect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = connect("memory:").await?;
/// let live = LiveRouter::new(Router::new().on("greet", || async { "hello" }));
/// tokio::spawn(Worker::new(broker.clone()).topic("t").group("g").serve(live.clone()).into_future());
///
/// let client = Client::open(broker).await?;
/// assert_eq!(client.request("t", "greet").await?.text()?, "hello");
/// live.replace(Router::new().on("greet", || async { "bonjour" }));
/// assert_eq!(client.request("t", "greet").await?.text()?, "bonjour");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LiveRouter {
    current: Arc<RwLock<Router>>,
}

impl LiveRouter {
    /// Begins with `router`.
    pub fn new(router: Router) -> LiveRouter {
        LiveRouter {
            current: Arc::new(RwLock::new(router)),
        }
    }

    /// The router of now, for example to add a handler to it.
    pub fn current(&self) -> Router {
        self.current.read().clone()
    }

    /// From now on `router` handles what begins. Answers the one before.
    pub fn replace(&self, router: Router) -> Router {
        std::mem::replace(&mut *self.current.write(), router)
    }
}

impl Service<Request> for LiveRouter {
    type Response = Reply;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Reply, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.current().call(request)
    }
}
