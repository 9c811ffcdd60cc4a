//! The gateway: a service that answers HTTP requests through a broker.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use streamerson::Client;
use streamerson::client::{InFlight, Options};
use streamerson_core::message::Id;
use streamerson_core::time::millis;
use streamerson_core::{Broker, Error, Message, Name, Position, Result, Topic};
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tower::Service;

use crate::answering::{Answering, Asker, answer};
use crate::body::First;
use crate::codes;
use crate::config::{Accepts, Config, Mode, Route, Target};
use crate::envelope::Envelope;
use crate::headers::RequestHeaders;
use crate::metrics::{ConnectionMetrics, InProgress, Metrics};
use crate::problem::Failure;
use crate::routes::{Found, Matched, RouteTable};
use crate::{body, json, path, response};

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
    metrics: Arc<Metrics>,
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
                metrics: Arc::new(Metrics::new(paths, client.clone())),
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

    /// Answers all requests that wait for a reply at once: 504 `no-reply-in-time`, because they may be handled all the same.
    /// For when the time to drain is over; a client that is only cut off would not know what became of its request.
    /// Answers how many that were.
    pub fn give_up(&self) -> usize {
        self.shared.client.give_up()
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

    /// What the broker's wall clock says, as far as it is known here.
    pub(crate) fn broker_unix_ms(&self) -> u64 {
        self.shared.client.broker_unix_ms()
    }

    pub(crate) fn routes(&self) -> &[Route] {
        &self.shared.routes
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }
}

/// The body must be [`Unpin`], as those of hyper and axum are; others become so in a box.
impl<B> Service<Request<B>> for Gateway
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let (head, body) = request.into_parts();
        self.shared.serve(head, body)
    }
}

/// How a request goes on, after what could be done at once.
enum Begun {
    /// It is on its way, and waits for the reply.
    Waits(InFlight),
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
    /// What can be done without waiting is done here: for most requests, all that precedes their reply. So thousands may
    /// wait, and none of them holds its request, whose head would keep the read buffer of its connection.
    fn serve<B>(self: &Arc<Self>, head: Parts, mut body: B) -> Answering
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let id = Id::new();
        let (progress, begun) = self.begin(&head, &mut body, id.as_str());
        let asker = Asker::new(&head, id, progress);
        match begun {
            Ok(Begun::Waits(reply)) => Answering::waits(reply, asker),
            Ok(Begun::Sends(composed)) => {
                let shared = self.clone();
                Answering::works(async move {
                    let answer = shared.send(composed, asker.id()).await;
                    asker.answered(answer)
                })
            }
            Ok(Begun::Uploads(first)) => {
                let shared = self.clone();
                Answering::works(async move {
                    let answer = shared.upload(&head, &mut body, first, &asker).await;
                    asker.answered(answer)
                })
            }
            Ok(Begun::Ends(response)) => Answering::ended(asker.answered(Ok(response))),
            Err(failure) => Answering::ended(asker.answered(Err(failure))),
        }
    }

    /// Does what can be done without waiting.
    fn begin<B>(&self, head: &Parts, body: &mut B, id: &str) -> (InProgress, Result<Begun, Failure>)
    where
        B: Body<Data = Bytes> + Unpin,
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
            // Nobody is woken by this look: who waits for the rest of the body looks again.
            let mut context = Context::from_waker(Waker::noop());
            Ok(
                match body::poll_first(Pin::new(body), asked.route.max_body, &mut context)? {
                    First::Whole(data) => {
                        let composed = compose(&asked, data, id, self.client.broker_unix_ms())?;
                        match composed.mode {
                            Mode::Reply => Begun::Waits(self.dispatch(composed)),
                            Mode::Send => Begun::Sends(composed),
                        }
                    }
                    First::Part(first) => Begun::Uploads(first),
                },
            )
        });
        (progress, begun)
    }

    fn admit(&self, progress: &InProgress) -> Result<(), Failure> {
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
        let headers = RequestHeaders::read(head.version, &head.headers, &route.headers)?;
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

    fn dispatch(&self, composed: Composed) -> InFlight {
        let deadline = Instant::now() + composed.timeout;
        self.client
            .dispatch(composed.topic, composed.message, deadline)
    }

    /// Goes on once the rest of the body is there.
    async fn upload<B>(
        &self,
        head: &Parts,
        body: &mut B,
        first: Bytes,
        asker: &Asker,
    ) -> Result<Response<Full<Bytes>>, Failure>
    where
        B: Body<Data = Bytes> + Send + Unpin,
    {
        let path = canonical_path(head)?;
        let Found::Route(matched) = self.table.find(&head.method, &path)? else {
            return Err(inconsistent());
        };
        let asked = self.read(head, matched)?;
        let limit = asked.route.max_body;
        let receiving = asker.progress().receiving();
        let data = body::rest(Pin::new(body), first, limit, self.body_read_timeout).await?;
        drop(receiving);
        let id = asker.id();
        let composed = compose(&asked, data, id, self.client.broker_unix_ms())?;
        match composed.mode {
            Mode::Reply => answer(self.dispatch(composed).await, id),
            Mode::Send => self.send(composed, id).await,
        }
    }

    /// Stores a message that nobody waits for the reply to.
    async fn send(&self, composed: Composed, id: &str) -> Result<Response<Full<Bytes>>, Failure> {
        let stored = self.client.append(composed.topic, composed.message);
        let position = tokio::time::timeout(composed.timeout, stored).await;
        Ok(self.stored(
            position.map_err(unconfirmed)?.map_err(Failure::of_broker)?,
            id,
        ))
    }

    fn stored(&self, position: Position, id: &str) -> Response<Full<Bytes>> {
        let body = format!(r#"{{"id":"{id}","position":"{position}"}}"#);
        let mut response = response::json(StatusCode::ACCEPTED, body.into(), id);
        response
            .headers_mut()
            .insert(DURABILITY, self.durability.clone());
        response
    }
}

/// The message that a request becomes; `now` is what the broker's clock says.
fn compose(asked: &Asked<'_>, data: Bytes, id: &str, now: u64) -> Result<Composed, Failure> {
    let Asked {
        head,
        route,
        matched,
        headers,
    } = asked;
    let named = named(&route.target, matched);
    // Nobody waits for the reply to a message that is only sent, so it does not expire.
    let exp = (route.mode == Mode::Reply).then(|| now.saturating_add(millis(route.timeout)));
    let envelope = Envelope::new(head, headers, matched, route);
    let kind = named.as_ref().map(|(_, kind)| &**kind);
    let encoded = envelope.encode(id, kind, exp, data)?;
    let named = named.map(|(topic, _)| (topic, encoded.kind));
    let (topic, kind) = target(&route.target, named)?;
    if route.body == Accepts::Json {
        json::check(&head.method, &encoded.data)?;
    }
    let message = Message {
        id: encoded.id,
        kind,
        corr: ByteString::new(),
        reply: ByteString::new(),
        meta: encoded.meta,
        data: encoded.data,
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

fn unconfirmed(_: Elapsed) -> Failure {
    let detail = "the broker did not confirm the message in time";
    Failure::new(codes::OUTCOME_UNKNOWN, detail)
}

/// The topic and the message type that the path names, if it is for the path to say.
fn named<'a>(target: &Target, matched: &Matched<'a>) -> Option<(Cow<'a, str>, Cow<'a, str>)> {
    let parameter = |name| path::decode(matched.params.get(name)?).ok();
    match target {
        Target::Fixed { .. } => None,
        Target::Named => parameter("topic").zip(parameter("type")),
    }
}

/// Where a request goes. Clients must write neither to inboxes nor to dead letters.
fn target(
    target: &Target,
    named: Option<(Cow<'_, str>, ByteString)>,
) -> Result<(Topic, ByteString), Failure> {
    if let Target::Fixed { topic, kind } = target {
        return Ok((topic.clone(), kind.clone()));
    }
    let named = named.and_then(|(topic, kind)| {
        // A message type is written like a name.
        Name::new(kind.clone()).ok()?;
        // The topic is remembered for longer than the message, so it has memory of its own.
        Some((Topic::new(&*topic).ok()?, kind))
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

fn options(allow: &HeaderValue, id: &str) -> Response<Full<Bytes>> {
    let mut response = response::empty(StatusCode::NO_CONTENT, id);
    response.headers_mut().insert(ALLOW, allow.clone());
    response
}
