//! The gateway: a service that answers HTTP requests through a broker.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures::future::{BoxFuture, FutureExt, poll_fn};
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use streamerson::Client;
use streamerson::client::Options;
use streamerson_core::time::unix_ms;
use streamerson_core::{Broker, Error, ErrorKind, Message, Name, Position, Result, Topic, message};
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tower::Service;

use crate::body::First;
use crate::codes;
use crate::config::{Accepts, Config, Mode, Route, Target};
use crate::envelope::Envelope;
use crate::headers::{RequestHeaders, X_REQUEST_ID};
use crate::metrics::{ConnectionMetrics, InProgress, Metrics};
use crate::problem::Failure;
use crate::routes::{Found, Matched, RouteTable};
use crate::{body, json, path, reply, response};

/// Longer request targets are answered 414.
const LONGEST_URI: usize = 8 << 10;

/// What a stored message survives, on the answer to a message that was sent.
const DURABILITY: HeaderName = HeaderName::from_static("streamerson-durability");

/// Turns requests into messages and replies into responses. Clones share everything.
///
/// It is a [`tower::Service`], so that it mounts into an axum app; [`Server`](crate::Server) serves it on its own.
///
/// ```
/// use std::sync::Arc;
/// use streamerson_core::memory::MemoryBroker;
/// use streamerson_core::Topic;
/// use streamerson_gateway::{Config, Gateway, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson_core::Result<()> {
/// let mut config = Config::default();
/// config.routes.push(Route::new("/orders", Topic::new("orders")?, "order.create"));
/// let gateway = Gateway::open(Arc::new(MemoryBroker::new()), &config).await?;
///
/// let app: axum::Router = axum::Router::new()
///     .route("/about", axum::routing::get(|| async { "a shop" }))
///     .fallback_service(gateway);
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: Arc<dyn Broker>,
    client: Client,
    routes: Vec<Route>,
    table: RouteTable,
    metrics: Metrics,
    max_in_flight: usize,
    body_read_timeout: Duration,
    durability: HeaderValue,
    draining: AtomicBool,
    closed: AtomicBool,
}

impl Gateway {
    /// Opens a gateway that serves the routes of `config` through `broker`, with one inbox for all of its replies.
    pub async fn open(broker: Arc<dyn Broker>, config: &Config) -> Result<Gateway> {
        if config.routes.is_empty() {
            return Err(Error::invalid(
                "no-routes",
                "no routes are configured: add a [[route]], or serve every topic",
            ));
        }
        let table = RouteTable::new(&config.routes)
            .map_err(|conflict| Error::invalid("route-conflict", conflict.problem))?;
        let settings = &config.gateway;
        let options = Options {
            max_in_flight: settings.max_in_flight,
            ..Options::default()
        };
        let durability = broker.capabilities().durability.to_string();
        let client = Client::open_with(broker.clone(), options).await?;
        let paths = config.routes.iter().map(|route| route.path.as_str());
        Ok(Gateway {
            shared: Arc::new(Shared {
                metrics: Metrics::new(paths, client.clone()),
                durability: HeaderValue::try_from(durability)
                    .unwrap_or(HeaderValue::from_static("unknown")),
                broker,
                client,
                routes: config.routes.clone(),
                table,
                max_in_flight: settings.max_in_flight,
                body_read_timeout: settings.body_read_timeout,
                draining: AtomicBool::new(false),
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// Lets the gateway report that it is not ready, so that load balancers stop sending requests; those that come
    /// all the same are served. The first step of a shutdown.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Refuses new requests (503 `draining`), waits for those that wait for a reply, at most until their deadlines, and
    /// closes the inbox. The last step of a shutdown, after the server has drained.
    pub async fn close(&self) {
        self.drain();
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.client.close().await;
    }

    /// What a server of this gateway counts its connections in.
    pub fn connections(&self) -> ConnectionMetrics {
        self.shared.metrics.connections.clone()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn broker(&self) -> &Arc<dyn Broker> {
        &self.shared.broker
    }

    pub(crate) fn routes(&self) -> &[Route] {
        &self.shared.routes
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }
}

impl<B> Service<Request<B>> for Gateway
where
    B: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        let (head, body) = request.into_parts();
        async move { Ok(shared.serve(head, body).await) }.boxed()
    }
}

/// How a request goes on, after what could be done at once.
enum Begun<F> {
    /// It is on its way, and waits for the reply.
    Waits(F),
    /// It is only to be sent.
    Sends(Composed),
    /// Its body is not all there; this is.
    Uploads(Bytes),
    /// It is answered.
    Ends(Response<Full<Bytes>>),
}

/// A request whose head was read.
struct Asked<'a> {
    head: &'a Parts,
    matched: Matched<'a>,
    route: &'a Route,
    headers: RequestHeaders<'a>,
}

/// A request as a message, and where it goes.
struct Composed {
    topic: Topic,
    message: Message,
    timeout: Duration,
    mode: Mode,
}

impl Shared {
    /// Answers a request.
    ///
    /// One of these is made per request, and thousands wait at the same time, so it is kept small: what is needed only to
    /// begin is gone when it waits, and what is rare is boxed.
    async fn serve<B>(&self, head: Parts, body: B) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Send,
    {
        let id = message::new_id();
        let mut body = pin!(body);
        let (progress, begun) =
            poll_fn(|cx| Poll::Ready(self.begin(&head, body.as_mut(), &id, cx))).await;
        let answer = match begun {
            Ok(Begun::Waits(reply)) => answer(reply.await, &id),
            Ok(Begun::Sends(composed)) => self.send(composed, &id).boxed().await,
            Ok(Begun::Uploads(first)) => {
                self.upload(&head, body, first, &id, &progress)
                    .boxed()
                    .await
            }
            Ok(Begun::Ends(response)) => Ok(response),
            Err(failure) => Err(failure),
        };
        let mut response = answer.unwrap_or_else(|failure| failure.into_response(&id));
        if let Some(theirs) = head.headers.get(X_REQUEST_ID) {
            response.headers_mut().insert(X_REQUEST_ID, theirs.clone());
        }
        if head.method == Method::HEAD {
            response = response::without_body(response);
        }
        progress.answered(response.status());
        response
    }

    /// Does what can be done without waiting: for most requests, all that precedes their reply.
    fn begin<'a, B>(
        &'a self,
        head: &Parts,
        body: Pin<&mut B>,
        id: &ByteString,
        cx: &mut Context<'_>,
    ) -> (
        InProgress<'a>,
        Result<Begun<impl Future<Output = Result<Message>> + Send + use<'a, B>>, Failure>,
    )
    where
        B: Body<Data = Bytes>,
    {
        let path = canonical_path(head);
        let found = match &path {
            Ok(path) => self.table.find(&head.method, path),
            Err(failure) => Err(failure.clone()),
        };
        let matched = match found {
            Ok(Found::Route(matched)) => matched,
            Ok(Found::Options(allow)) => {
                let ends = Begun::Ends(options(allow, id));
                return (self.metrics.begin(None), Ok(ends));
            }
            Err(failure) => return (self.metrics.begin(None), Err(failure)),
        };
        let progress = self.metrics.begin(Some(matched.route));
        let begun = self.admit(&progress).and_then(|()| {
            let asked = self.read(head, matched)?;
            Ok(match body::poll_first(body, asked.route.max_body, cx)? {
                First::Whole(data) => self.begin_with(&asked, data, id)?,
                First::Part(first) => Begun::Uploads(first),
            })
        });
        (progress, begun)
    }

    /// Begins a request whose body is there.
    fn begin_with<'a>(
        &'a self,
        asked: &Asked<'_>,
        data: Bytes,
        id: &ByteString,
    ) -> Result<Begun<impl Future<Output = Result<Message>> + Send + use<'a>>, Failure> {
        let composed = compose(asked, data, id)?;
        Ok(match composed.mode {
            Mode::Reply => Begun::Waits(self.dispatch(composed)),
            Mode::Send => Begun::Sends(composed),
        })
    }

    fn admit(&self, progress: &InProgress<'_>) -> Result<(), Failure> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Failure::new(codes::DRAINING, "try another gateway"));
        }
        if progress.others() >= self.max_in_flight {
            return Err(Failure::new(
                codes::OVERLOADED,
                "the limit of this gateway is reached; try again soon",
            ));
        }
        Ok(())
    }

    /// Reads the head of a request; refuses what need not wait for the body.
    fn read<'a>(&'a self, head: &'a Parts, matched: Matched<'a>) -> Result<Asked<'a>, Failure> {
        let route = self.routes.get(matched.route);
        let route = route.ok_or_else(inconsistent)?;
        let headers = RequestHeaders::read(&head.headers, &route.headers)?;
        if route.body == Accepts::Json {
            json::check_type(headers.content_type)?;
        }
        Ok(Asked {
            head,
            matched,
            route,
            headers,
        })
    }

    fn dispatch<'a>(
        &'a self,
        composed: Composed,
    ) -> impl Future<Output = Result<Message>> + Send + use<'a> {
        let deadline = Instant::now() + composed.timeout;
        self.client
            .dispatch(composed.topic, composed.message, deadline)
    }

    /// Goes on once the rest of the body is there.
    async fn upload<B>(
        &self,
        head: &Parts,
        body: Pin<&mut B>,
        first: Bytes,
        id: &ByteString,
        progress: &InProgress<'_>,
    ) -> Result<Response<Full<Bytes>>, Failure>
    where
        B: Body<Data = Bytes> + Send,
    {
        let path = canonical_path(head)?;
        let Found::Route(matched) = self.table.find(&head.method, &path)? else {
            return Err(inconsistent());
        };
        let asked = self.read(head, matched)?;
        let limit = asked.route.max_body;
        let receiving = progress.receiving();
        let data = body::rest(body, first, limit, self.body_read_timeout).await?;
        drop(receiving);
        match self.begin_with(&asked, data, id)? {
            Begun::Waits(reply) => answer(reply.await, id),
            Begun::Sends(composed) => self.send(composed, id).await,
            Begun::Ends(response) => Ok(response),
            Begun::Uploads(_) => Err(Failure::new(codes::INTERNAL, "a body did not end")),
        }
    }

    /// Stores a message that nobody waits for the reply to.
    async fn send(
        &self,
        composed: Composed,
        id: &ByteString,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        let stored = self.client.append(composed.topic, composed.message);
        let position = tokio::time::timeout(composed.timeout, stored).await;
        Ok(self.stored(position.map_err(unconfirmed)?.map_err(of_broker)?, id))
    }

    fn stored(&self, position: Position, id: &ByteString) -> Response<Full<Bytes>> {
        let body = format!(r#"{{"id":"{id}","position":"{position}"}}"#);
        let mut response = response::json(StatusCode::ACCEPTED, body.into(), id);
        response
            .headers_mut()
            .insert(DURABILITY, self.durability.clone());
        response
    }
}

fn answer(reply: Result<Message>, id: &ByteString) -> Result<Response<Full<Bytes>>, Failure> {
    reply::into_response(reply.map_err(of_broker)?, id)
}

/// The message that a request becomes.
fn compose(asked: &Asked<'_>, data: Bytes, id: &ByteString) -> Result<Composed, Failure> {
    let Asked { head, route, .. } = asked;
    let (topic, kind) = target(&route.target, &asked.matched)?;
    if route.body == Accepts::Json {
        json::check(&head.method, &data)?;
    }
    // Nobody waits for the reply to a message that is only sent, so it does not expire.
    let exp = (route.mode == Mode::Reply).then(|| expiry(route.timeout));
    let envelope = Envelope::new(head, &asked.headers, &asked.matched, route);
    let (meta, data) = envelope.encode(exp, data)?;
    let message = Message {
        id: id.clone(),
        kind,
        corr: ByteString::new(),
        reply: ByteString::new(),
        meta,
        data,
    };
    Ok(Composed {
        topic,
        message,
        timeout: route.timeout,
        mode: route.mode,
    })
}

fn inconsistent() -> Failure {
    Failure::new(codes::INTERNAL, "the route table is inconsistent")
}

/// The path that routes are matched with.
fn canonical_path(head: &Parts) -> Result<Cow<'_, str>, Failure> {
    let uri = &head.uri;
    if uri.path().len() + uri.query().map_or(0, str::len) >= LONGEST_URI {
        let detail = format!("path and query are longer than {LONGEST_URI} bytes");
        return Err(Failure::new(codes::URI_TOO_LONG, detail));
    }
    path::canonical(uri.path()).map_err(|why| Failure::new(codes::INVALID_PATH, why))
}

/// The deadline of a request that waits this long, as it travels.
fn expiry(timeout: Duration) -> u64 {
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    unix_ms().saturating_add(ms)
}

fn unconfirmed(_: Elapsed) -> Failure {
    let detail = "the broker did not confirm the message in time";
    Failure::new(codes::OUTCOME_UNKNOWN, detail)
}

/// Where a matched request goes. Clients must write neither to inboxes nor to dead letters.
fn target(target: &Target, matched: &Matched<'_>) -> Result<(Topic, ByteString), Failure> {
    if let Target::Fixed { topic, kind } = target {
        return Ok((topic.clone(), kind.clone()));
    }
    let parameter = |name| {
        let value = path::decode(matched.params.get(name)?).ok()?;
        Some(ByteString::from(&*value))
    };
    let named = parameter("topic").zip(parameter("type"));
    let named = named.and_then(|(topic, kind)| {
        // A message type is written like a name.
        Name::new(kind.clone()).ok()?;
        Some((Topic::new(topic).ok()?, kind))
    });
    let named = named.filter(|(topic, _)| !topic.is_inbox() && !topic.is_dead_letters());
    named.ok_or_else(|| {
        Failure::new(
            codes::ROUTE_NOT_FOUND,
            "this path does not name a topic and a message type: each is 1 to 200 of A-Z a-z 0-9 . _ -, \
             and inboxes are not served",
        )
    })
}

fn options(allow: &HeaderValue, id: &ByteString) -> Response<Full<Bytes>> {
    let mut response = response::empty(StatusCode::NO_CONTENT, id);
    response.headers_mut().insert(ALLOW, allow.clone());
    response
}

/// A failure on the way to the worker. Its detail is for the log: it may name what clients should not see.
fn of_broker(error: Error) -> Failure {
    match (error.kind(), error.code()) {
        (ErrorKind::Unavailable, "overloaded") => Failure::new(
            codes::OVERLOADED,
            "too many requests wait for their reply; try again soon",
        ),
        (ErrorKind::Unavailable, _) => {
            tracing::debug!(%error, "a request was not stored");
            Failure::new(
                codes::BROKER_UNAVAILABLE,
                "the request was not stored; try again soon",
            )
        }
        (ErrorKind::Unknown, "no-reply-in-time") => Failure::new(
            codes::NO_REPLY_IN_TIME,
            "no reply arrived before the deadline; the request may have been handled, or may still be",
        ),
        (ErrorKind::Unknown, _) => {
            tracing::debug!(%error, "it is not known whether a request was stored");
            Failure::new(
                codes::OUTCOME_UNKNOWN,
                "the broker did not confirm the request; it may have been stored, and may be handled",
            )
        }
        (ErrorKind::Closed, _) => Failure::new(codes::DRAINING, "try another gateway"),
        (ErrorKind::Invalid, "message-too-large") => Failure::new(
            codes::BODY_TOO_LARGE,
            "the broker does not take messages of this size",
        ),
        (ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict, _) => {
            tracing::error!(%error, "the broker refused a message");
            Failure::new(
                codes::BROKER_REFUSED,
                "the log of the gateway has the reason",
            )
        }
        _ => {
            tracing::error!(%error, "a request failed in a way that no request should");
            Failure::new(codes::INTERNAL, "the log of the gateway has the reason")
        }
    }
}
