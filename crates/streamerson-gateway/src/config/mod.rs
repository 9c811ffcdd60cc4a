//! Configuration: one TOML file, every scalar key also as an environment variable.
//!
//! `broker` is `STREAMERSON_BROKER`, `listen` in `[gateway]` is `STREAMERSON_GATEWAY__LISTEN`. The environment wins over
//! the file, the file over the defaults; flags, which win over all, belong to the command line.

mod route;
mod section;
mod source;
mod units;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use streamerson_core::{Error, Name, Result};
use toml::de::DeTable;

pub(crate) use route::is_hop_by_hop;
pub use route::{Accepts, Mode, Route, Target};
pub use source::Environment;

use crate::routes;
use section::Section;
use source::Source;

/// What a gateway serves, and within which bounds.
///
/// ```
/// use streamerson_gateway::{Config, Environment};
///
/// let config = Config::parse(
///     "shop.toml",
///     r#"
///     broker = "redis://127.0.0.1:6379"
///
///     [[route]]
///     path = "/orders/{id}"
///     topic = "orders"
///     type = "order.create"
///     timeout = "3s"
///     "#,
///     &Environment::empty(),
/// )?;
/// assert_eq!(config.routes.len(), 1);
///
/// let error = Config::parse("shop.toml", "[gateway]\nlisen = \"0.0.0.0:80\"", &Environment::empty()).unwrap_err();
/// assert!(error.detail().starts_with("shop.toml:2:1: unknown key `lisen` in [gateway]; did you mean `listen`?"));
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// URL of the broker, when one is given.
    pub broker: Option<String>,
    /// The namespace of all topics.
    pub namespace: Name,
    /// The `[gateway]` section.
    pub gateway: Settings,
    /// What is served where.
    pub routes: Vec<Route>,
}

/// The `[gateway]` section.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Where HTTP is served. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Where health, metrics and routes are served; `None` (`"off"`): nowhere. Default `127.0.0.1:9090`.
    pub admin: Option<SocketAddr>,
    /// Requests in progress at one time; more are answered 503 at once. Default 10,000.
    pub max_in_flight: usize,
    /// How long a route waits for a reply, unless it says otherwise. Default 30 s.
    pub timeout: Duration,
    /// The largest body of a route, in bytes, unless it says otherwise. Default 1 MiB.
    pub max_body: usize,
    /// How long a client may take to send a body. Default 30 s.
    pub body_read_timeout: Duration,
    /// The bounds of connections.
    pub limits: Limits,
}

/// The bounds of connections; keys of the `[gateway]` section too.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at one time; more are answered 503 and closed. Default 10,000.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request. Default 10 s.
    pub header_read_timeout: Duration,
    /// How long a connection may be idle. Default 60 s.
    pub keep_alive: Duration,
    /// How long a drain waits for requests in progress. Default 10 s.
    pub drain_timeout: Duration,
    /// The largest head of a request, in bytes. Default 16 KiB.
    pub max_header: usize,
    /// Requests at one time on one HTTP/2 connection. Default 200.
    pub max_streams: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 10_000,
            header_read_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            max_header: 16 << 10,
            max_streams: 200,
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            admin: Some((Ipv4Addr::LOCALHOST, 9090).into()),
            max_in_flight: 10_000,
            timeout: Duration::from_secs(30),
            max_body: 1 << 20,
            body_read_timeout: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            broker: None,
            namespace: default_namespace(),
            gateway: Settings::default(),
            routes: Vec::new(),
        }
    }
}

impl Config {
    /// Reads the file at `path`, under `environment`.
    pub fn load(path: &Path, environment: &Environment) -> Result<Config> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let detail = format!("the configuration {name} cannot be read: {error}");
            Error::invalid("config-unreadable", detail)
        })?;
        Config::parse(&name, &text, environment)
    }

    /// The defaults, under `environment`.
    pub fn from_environment(environment: &Environment) -> Result<Config> {
        Config::parse("no file", "", environment)
    }

    /// Reads `text`, under `environment`. An error tells every mistake, with its place in `name`.
    pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<Config> {
        let source = Source::new(name, text, environment);
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                source.mistake(error.span().unwrap_or(0..0), error.message());
                return source.finish(Config::default());
            }
        };
        let config = read(&source, document.get_ref());
        source.finish(config)
    }

    /// Serves every topic and type at `/{topic}/{type}`, when no routes are configured: for development.
    pub fn serve_every_topic(&mut self) {
        if self.routes.is_empty() {
            self.routes.push(Route::every_topic(&self.gateway));
        }
    }
}

fn read(source: &Source<'_>, document: &DeTable<'_>) -> Config {
    let mut top = Section::new(
        source,
        "the top level",
        Some(document),
        Some("STREAMERSON_"),
    );
    let broker = top.scalar("broker", filled);
    let namespace = top.scalar("namespace", |text| {
        Name::new(text).map_err(|error| error.detail().to_owned())
    });
    let gateway = settings(Section::new(
        source,
        "[gateway]",
        top.table("gateway"),
        Some("STREAMERSON_GATEWAY__"),
    ));
    let tables = top.tables("route");
    top.finish();

    let mut routes = Vec::new();
    for (span, table) in tables {
        let section = Section::new(source, "[[route]]", Some(table), None);
        if let Some(route) = Route::read(section, source, span.clone(), &gateway) {
            routes.push((span, route));
        }
    }
    if let Err(conflict) = routes::check(routes.iter().map(|(_, route)| route)) {
        let place = |at: usize| routes.get(at).map_or(0..0, |(span, _)| span.clone());
        let mut problem = conflict.problem;
        if let Some(with) = conflict.with {
            let line = source.line(place(with).start);
            problem += &format!(" (the other route is in line {line})");
        }
        source.mistake(place(conflict.route), problem);
    }
    Config {
        broker,
        namespace: namespace.unwrap_or_else(default_namespace),
        gateway,
        routes: routes.into_iter().map(|(_, route)| route).collect(),
    }
}

fn settings(mut section: Section<'_>) -> Settings {
    let default = Settings::default();
    let limits = Limits {
        max_connections: count(&mut section, "max_connections")
            .unwrap_or(default.limits.max_connections),
        header_read_timeout: section
            .scalar("header_read_timeout", units::duration)
            .unwrap_or(default.limits.header_read_timeout),
        keep_alive: section
            .scalar("keep_alive", units::duration)
            .unwrap_or(default.limits.keep_alive),
        drain_timeout: section
            .scalar("drain_timeout", units::duration)
            .unwrap_or(default.limits.drain_timeout),
        max_header: section
            .scalar("max_header", header_size)
            .unwrap_or(default.limits.max_header),
        max_streams: count(&mut section, "max_streams")
            .and_then(|streams| streams.try_into().ok())
            .unwrap_or(default.limits.max_streams),
    };
    let settings = Settings {
        listen: section.scalar("listen", address).unwrap_or(default.listen),
        admin: section
            .scalar("admin", address_or_off)
            .unwrap_or(default.admin),
        max_in_flight: count(&mut section, "max_in_flight").unwrap_or(default.max_in_flight),
        timeout: section
            .scalar("timeout", units::duration)
            .unwrap_or(default.timeout),
        max_body: section
            .scalar("max_body", units::size)
            .unwrap_or(default.max_body),
        body_read_timeout: section
            .scalar("body_read_timeout", units::duration)
            .unwrap_or(default.body_read_timeout),
        limits,
    };
    section.finish();
    settings
}

fn default_namespace() -> Name {
    #[expect(clippy::unwrap_used, reason = "the literal is a valid name")]
    Name::new("streamerson").unwrap()
}

fn filled(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("must not be empty".into()),
        text => Ok(text.to_owned()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an address: write an IP address and a port, for example \"127.0.0.1:8080\"")
    })
}

fn address_or_off(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        text => address(text)
            .map(Some)
            .map_err(|message| format!("{message}, or \"off\"")),
    }
}

fn count(section: &mut Section<'_>, key: &'static str) -> Option<usize> {
    section.scalar(key, |text| match text.replace('_', "").parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err(format!("{text:?} is not a number from 1 to 1000000")),
    })
}

fn header_size(text: &str) -> Result<usize, String> {
    // The HTTP/1 parser needs room for 8 KiB.
    match units::size(text)? {
        size @ 0x2000..=0x10_0000 => Ok(size),
        _ => Err(format!("{text:?} is out of range: use 8KiB to 1MiB")),
    }
}
