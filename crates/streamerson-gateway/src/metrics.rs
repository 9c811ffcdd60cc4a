//! What is counted, under Prometheus names. Counting on the way of a request is a handful of atomic operations.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use streamerson::Client;

/// What the names of all metrics begin with.
const PREFIX: &str = "strm";

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS: [f64; 15] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// The label of requests that match no route.
const UNMATCHED: &str = "unmatched";

/// The statuses that HTTP has, for the handles of [`RouteMetrics`].
const STATUSES: std::ops::Range<usize> = 100..600;

type Durations = Family<Answered, Histogram, fn() -> Histogram>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    route: String,
}

/// The metrics of one gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    routes: Vec<RouteMetrics>,
    unmatched: RouteMetrics,
    in_flight: Gauge,
    pub(crate) connections: ConnectionMetrics,
}

/// The handles of one route: looked up once, so that a request only counts.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    route: String,
    durations: Durations,
    by_status: Box<[OnceLock<Histogram>]>,
    in_flight: Gauge,
    /// Of those in flight.
    receiving: Gauge,
    cancelled: Counter,
}

/// What a [`Server`](crate::Server) counts.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    pub(crate) open: Gauge,
    pub(crate) refused: Counter,
    pub(crate) timed_out: Counter,
}

impl ConnectionMetrics {
    fn register(&self, registry: &mut Registry) {
        let ConnectionMetrics {
            open,
            refused,
            timed_out,
        } = self.clone();
        registry.register("gateway_connections", "Open connections", open);
        registry.register(
            "gateway_connections_refused",
            "Connections answered 503 and closed because there were too many",
            refused,
        );
        registry.register(
            "gateway_connections_timed_out",
            "Connections closed because the client was too slow, or idle",
            timed_out,
        );
    }
}

impl Metrics {
    /// The metrics of routes with these path templates, and of `client`.
    pub(crate) fn new<'a>(paths: impl Iterator<Item = &'a str>, client: Client) -> Metrics {
        let mut registry = Registry::with_prefix(PREFIX);
        let durations = Durations::new_with_constructor(|| Histogram::new(BUCKETS));
        let cancelled = Family::<ByRoute, Counter>::default();
        registry.register(
            "gateway_request_duration_seconds",
            "Time from the head of a request to its answer",
            durations.clone(),
        );
        registry.register(
            "gateway_requests_cancelled",
            "Requests whose client hung up before the answer",
            cancelled.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of this program", build);
        registry.register_collector(Box::new(ClientCollector(client)));
        let connections = ConnectionMetrics::default();
        connections.register(&mut registry);
        // Routes that differ in their methods only are one to the metrics.
        let mut in_flight: Vec<Progress> = Vec::new();
        let mut route = |path: &str| {
            let known = in_flight.iter().find(|progress| progress.route == path);
            let progress = known.cloned().unwrap_or_else(|| {
                let progress = Progress::of(path);
                in_flight.push(progress.clone());
                progress
            });
            RouteMetrics::new(progress, &durations, &cancelled)
        };
        let (routes, unmatched) = (paths.map(&mut route).collect(), route(UNMATCHED));
        registry.register_collector(Box::new(InFlightCollector(in_flight)));
        Metrics {
            routes,
            unmatched,
            registry,
            in_flight: Gauge::default(),
            connections,
        }
    }

    fn route(&self, at: Option<usize>) -> &RouteMetrics {
        at.and_then(|at| self.routes.get(at))
            .unwrap_or(&self.unmatched)
    }

    /// Begins a request to the route at this place of the list, or to none.
    pub(crate) fn begin(self: &Arc<Metrics>, route: Option<usize>) -> InProgress {
        self.route(route).in_flight.inc();
        InProgress {
            metrics: self.clone(),
            route,
            others: self.in_flight.inc(),
            started: Instant::now(),
            answered: false,
        }
    }

    /// The OpenMetrics text, with what others tell beside.
    pub(crate) fn encode(&self, others: Vec<Box<dyn Collector>>) -> String {
        let mut beside = Registry::with_prefix(PREFIX);
        for other in others {
            beside.register_collector(other);
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &beside))
            .and_then(|()| encode_eof(&mut text));
        text
    }
}

impl RouteMetrics {
    fn new(
        progress: Progress,
        durations: &Durations,
        cancelled: &Family<ByRoute, Counter>,
    ) -> RouteMetrics {
        let label = ByRoute {
            route: progress.route.clone(),
        };
        RouteMetrics {
            route: progress.route,
            durations: durations.clone(),
            by_status: STATUSES.map(|_| OnceLock::new()).collect(),
            in_flight: progress.in_flight,
            receiving: progress.receiving,
            cancelled: cancelled.get_or_create_owned(&label),
        }
    }

    fn answered(&self, status: StatusCode, seconds: f64) {
        let slot = self
            .by_status
            .get(usize::from(status.as_u16()) - STATUSES.start);
        let Some(slot) = slot else {
            return;
        };
        let histogram = slot.get_or_init(|| {
            self.durations.get_or_create_owned(&Answered {
                route: self.route.clone(),
                code: status.as_u16(),
            })
        });
        histogram.observe(seconds);
    }
}

/// One request in progress. Dropped without an answer, it was cancelled.
#[derive(Debug)]
pub(crate) struct InProgress {
    metrics: Arc<Metrics>,
    route: Option<usize>,
    others: i64,
    started: Instant,
    answered: bool,
}

impl InProgress {
    fn route(&self) -> &RouteMetrics {
        self.metrics.route(self.route)
    }

    /// How many requests were in progress when this one began.
    pub(crate) fn others(&self) -> usize {
        self.others.try_into().unwrap_or(0)
    }

    /// The body of the request is on the way, until the answer is dropped.
    pub(crate) fn receiving(&self) -> Receiving<'_> {
        let receiving = &self.route().receiving;
        receiving.inc();
        Receiving(receiving)
    }

    pub(crate) fn answered(mut self, status: StatusCode) {
        self.answered = true;
        self.route()
            .answered(status, self.started.elapsed().as_secs_f64());
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        let route = self.metrics.route(self.route);
        route.in_flight.dec();
        if !self.answered {
            route.cancelled.inc();
        }
    }
}

/// A request whose body is on the way.
#[derive(Debug)]
pub(crate) struct Receiving<'a>(&'a Gauge);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The requests of one route in progress, as they are counted.
#[derive(Debug, Clone)]
struct Progress {
    route: String,
    in_flight: Gauge,
    receiving: Gauge,
}

impl Progress {
    fn of(route: &str) -> Progress {
        Progress {
            route: route.to_owned(),
            in_flight: Gauge::default(),
            receiving: Gauge::default(),
        }
    }
}

/// Tells the stages apart when metrics are read: a request counts only the stage it seldom has.
#[derive(Debug)]
struct InFlightCollector(Vec<Progress>);

impl Collector for InFlightCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (name, help) = ("gateway_requests_in_flight", "Requests in progress");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for progress in &self.0 {
            let receiving = progress.receiving.get().max(0);
            // The two are not read at the same instant.
            let waiting = (progress.in_flight.get() - receiving).max(0);
            for (stage, count) in [("receiving", receiving), ("waiting", waiting)] {
                let labels = [("route", progress.route.as_str()), ("stage", stage)];
                ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// What the client has counted by itself, read when metrics are.
#[derive(Debug)]
struct ClientCollector(Client);

impl Collector for ClientCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.0.stats();
        for (name, help, count) in [
            (
                "client_messages_sent",
                "Messages stored by the broker",
                stats.sent,
            ),
            (
                "client_messages_failed",
                "Messages that the broker did not take",
                stats.failed,
            ),
            ("client_replies", "Requests answered", stats.answered),
            (
                "client_timeouts",
                "Requests whose deadline passed without a reply",
                stats.timed_out,
            ),
            (
                "client_late_replies",
                "Replies that nobody waited for",
                stats.late,
            ),
        ] {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}
