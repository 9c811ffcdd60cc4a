//! One connection, from accept to close.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use super::stream::WatchedStream;
use super::watch::{Order, Watch};
use crate::metrics::ConnectionMetrics;

/// How long an HTTP/2 connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves one connection until it ends, is ordered to, or is too slow.
pub(super) async fn serve<S, B>(
    http: &Builder<TokioExecutor>,
    stream: TcpStream,
    watch: &Arc<Watch>,
    metrics: &ConnectionMetrics,
    service: S,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TokioIo::new(WatchedStream::new(stream, watch.clone()));
    let service = WatchedService {
        inner: service,
        watch: watch.clone(),
    };
    let mut serving = pin!(http.serve_connection(stream, service));
    // At once; from then on the pace tells when.
    let mut look = pin!(sleep_until(Instant::now()));
    let mut ending = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = serving.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return Poll::Ready(());
            }
            match watch.poll_order(cx) {
                Order::Stop => return Poll::Ready(()),
                Order::Finish if !ending => {
                    ending = true;
                    serving.as_mut().graceful_shutdown();
                    continue;
                }
                Order::Serve | Order::Finish => (),
            }
            ready!(look.as_mut().poll(cx));
            match watch.overdue() {
                Err(at) => look.as_mut().reset(at.into()),
                Ok(()) if ending => return Poll::Ready(()),
                Ok(()) => {
                    metrics.timed_out.inc();
                    if !watch.is_multiplexed() {
                        return Poll::Ready(());
                    }
                    // HTTP/2 has a word for it.
                    ending = true;
                    serving.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now() + GOODBYE);
                }
            }
        }
    })
    .await;
}

/// The service of one connection: it tells the pace.
struct WatchedService<S> {
    inner: S,
    watch: Arc<Watch>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for WatchedService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Watched<Oneshot<S, Request<Incoming>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.watch.began(request.version() == Version::HTTP_2);
        Watched {
            request: InProgress {
                watch: self.watch.clone(),
                has_body: !request.body().is_end_stream(),
            },
            answering: self.inner.clone().oneshot(request),
        }
    }
}

pin_project! {
    /// A request in progress on a connection.
    struct Watched<F> {
        request: InProgress,
        #[pin]
        answering: F,
    }
}

struct InProgress {
    watch: Arc<Watch>,
    has_body: bool,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.watch.ended();
    }
}

impl<F, B> Future for Watched<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.answering.poll(cx));
        let refused = response.status().is_client_error() || response.status().is_server_error();
        this.request
            .watch
            .set_refused_a_body(refused && this.request.has_body);
        Poll::Ready(Ok(response))
    }
}
