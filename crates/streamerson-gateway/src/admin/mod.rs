//! Health, metrics, routes and advice on scaling, for an address that the public does not reach.

mod expose;
mod figures;
mod scale;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde_json::{Value, json};
use streamerson::worker::Counters;
use streamerson_core::{ErrorKind, Topic};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tower::Service;

use self::expose::{Exposed, Workers};
use self::figures::{Figures, Known};
use self::scale::Scale;
use crate::config::{Accepts, Mode, Route, Target};
use crate::gateway::Gateway;
use crate::response;

/// How long the broker may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long its answer holds: however often health is asked for, the broker is asked rarely.
const FRESH: Duration = Duration::from_millis(500);
/// Where advice on scaling is.
const SCALE: &str = "/admin/v1/scale/";
/// A topic that nobody needs to have: a broker that can say so is there.
const PROBE: &str = "streamerson.probe";

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The service of the admin address of a gateway.
///
/// `/livez` (also `/healthz`): the process answers. `/readyz`: the gateway is not draining, and the broker is there.
/// `/metrics`: OpenMetrics text. `/routes`: what is served, and which consumer groups work on it, as JSON. `/admin/v1/scale/{topic}/{group}`: how many replicas a
/// consumer group should have.
#[derive(Debug, Clone)]
pub struct Admin {
    gateway: Gateway,
    broker: Arc<Mutex<Option<(Instant, bool)>>>,
    figures: Arc<Known>,
    scale: Scale,
    workers: Arc<[(String, Counters)]>,
}

impl Admin {
    /// The admin service of `gateway`.
    pub fn new(gateway: Gateway) -> Admin {
        Admin {
            broker: Arc::default(),
            figures: Arc::new(Known::new(gateway.broker().clone())),
            scale: Scale::new(gateway.clone()),
            gateway,
            workers: Arc::default(),
        }
    }

    /// Shows what workers of this process have counted among the metrics, each under its name.
    ///
    /// ```
    /// # use streamerson::Worker;
    /// # use streamerson_gateway::{Admin, Gateway};
    /// # fn show(gateway: Gateway, worker: &Worker) {
    /// let admin = Admin::new(gateway).with_workers([("billing", worker.counters())]);
    /// # }
    /// ```
    pub fn with_workers<N: Into<String>>(
        self,
        workers: impl IntoIterator<Item = (N, Counters)>,
    ) -> Admin {
        let workers = workers.into_iter();
        Admin {
            workers: workers
                .map(|(name, counters)| (name.into(), counters))
                .collect(),
            ..self
        }
    }

    async fn answer(&self, uri: &Uri) -> Response<Full<Bytes>> {
        if let Some(group) = uri.path().strip_prefix(SCALE) {
            let query = uri.query().unwrap_or_default();
            let (status, body) = self.scale.answer(group, query).await;
            return respond(status, JSON, body);
        }
        match uri.path() {
            "/livez" | "/healthz" => respond(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => self.readiness().await,
            "/metrics" => respond(StatusCode::OK, OPEN_METRICS, self.metrics().await),
            "/routes" => {
                let figures = self.figures.all().await;
                let routes = self.gateway.routes().iter();
                let routes: Value = routes.map(|route| describe(route, &figures)).collect();
                respond(StatusCode::OK, JSON, routes.to_string())
            }
            _ => respond(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are /livez, /readyz, /metrics, /routes and /admin/v1/scale/TOPIC/GROUP\n",
            ),
        }
    }

    async fn metrics(&self) -> String {
        let exposed = Exposed {
            figures: self.figures.all().await,
            incidents: self.gateway.broker().incidents(),
            now_unix_ms: self.gateway.broker_unix_ms(),
        };
        let workers = Workers(self.workers.clone());
        self.gateway
            .metrics()
            .encode(vec![Box::new(exposed), Box::new(workers)])
    }

    async fn readiness(&self) -> Response<Full<Bytes>> {
        let unready = |why| respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, why);
        if self.gateway.is_draining() {
            return unready("draining\n");
        }
        match self.broker_is_there().await {
            true => respond(StatusCode::OK, TEXT, "ok\n"),
            false => unready("the broker cannot be reached\n"),
        }
    }

    /// Asks the broker, once for all who ask at the same time.
    async fn broker_is_there(&self) -> bool {
        let mut known = self.broker.lock().await;
        if let Some((at, there)) = *known
            && at.elapsed() < FRESH
        {
            return there;
        }
        let there = self.probe().await;
        *known = Some((Instant::now(), there));
        there
    }

    async fn probe(&self) -> bool {
        let Ok(topic) = Topic::new(PROBE) else {
            return false;
        };
        match timeout(PATIENCE, self.gateway.broker().stats(&topic)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == ErrorKind::NotFound,
            Err(_) => false,
        }
    }
}

impl<B> Service<Request<B>> for Admin
where
    B: Send + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        async move {
            let (head, _) = request.into_parts();
            let response = match head.method {
                Method::GET => this.answer(&head.uri).await,
                Method::HEAD => response::without_body(this.answer(&head.uri).await),
                _ => {
                    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
                    let allow = HeaderValue::from_static("GET, HEAD");
                    response.headers_mut().insert(ALLOW, allow);
                    response
                }
            };
            Ok(response)
        }
        .boxed()
    }
}

fn respond(
    status: StatusCode,
    ctype: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, ctype);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn describe(route: &Route, figures: &Figures) -> Value {
    let (topic, kind) = match &route.target {
        Target::Fixed { topic, kind } => (topic.as_str(), &**kind),
        Target::Named => ("{topic}", "{type}"),
    };
    let groups = match &route.target {
        Target::Fixed { topic, .. } => figures.groups(topic),
        Target::Named => None,
    };
    json!({
        "groups": groups,
        "methods": route.methods.iter().map(Method::as_str).collect::<Vec<_>>(),
        "path": route.path,
        "topic": topic,
        "type": kind,
        "key": route.key.as_ref().map(|key| format!("{{{key}}}")),
        "mode": match route.mode {
            Mode::Reply => "reply",
            Mode::Send => "send",
        },
        "timeout_ms": route.timeout.as_millis() as u64,
        "max_body": route.max_body,
        "body": match route.body {
            Accepts::Any => "any",
            Accepts::Json => "json",
        },
        "headers": route.headers.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
    })
}
