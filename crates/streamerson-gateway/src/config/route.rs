//! `[[route]]`: which requests become which messages.

use std::ops::Range;
use std::time::Duration;

use bytestring::ByteString;
use http::{HeaderName, Method, header};
use streamerson_core::{Name, Topic};

use super::section::Section;
use super::source::Source;
use super::{Settings, units};
use crate::routes;

/// Headers of a request that reach the worker when the route does not say which.
const PASSED_ON: [HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    header::USER_AGENT,
    HeaderName::from_static("x-request-id"),
];

/// Which requests become which messages, and how they are answered.
///
/// ```
/// use std::time::Duration;
/// use streamerson_core::Topic;
/// use streamerson_gateway::Route;
///
/// let mut route = Route::new("/orders/{id}", Topic::new("orders")?, "order.create");
/// route.timeout = Duration::from_secs(3);
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Route {
    /// The methods served. Default POST. With GET, HEAD is answered too.
    pub methods: Vec<Method>,
    /// The path, with parameters: `{id}` takes one segment, `{*rest}` all that is left.
    pub path: String,
    /// Where messages go, and their type.
    pub target: Target,
    /// The parameter of the path whose value is the key of the messages: those with the same key are handled in order on a topic that is
    /// divided. Default none.
    pub key: Option<String>,
    /// How requests are answered.
    pub mode: Mode,
    /// How long to wait for the reply (`reply`), or for the message to be stored (`send`). Default 30 s.
    pub timeout: Duration,
    /// The largest body, in bytes. Default 1 MiB.
    pub max_body: usize,
    /// What bodies are accepted. Default any.
    pub body: Accepts,
    /// The request headers that the worker gets to see.
    pub headers: Vec<HeaderName>,
}

/// Where the messages of a route go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To one topic, with one type.
    Fixed {
        /// The topic.
        topic: Topic,
        /// The message type.
        kind: ByteString,
    },
    /// To the topic and with the type that the path names by its parameters `topic` and `type`.
    Named,
}

/// How the requests of a route are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// With the worker's reply.
    #[default]
    Reply,
    /// With 202 once the message is stored; nobody waits for a reply.
    Send,
}

/// The bodies that a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Accepts {
    /// Whatever comes, unseen.
    #[default]
    Any,
    /// JSON: another content type is answered 415, and what does not parse 400.
    Json,
}

impl Route {
    /// POST requests at `path`, as messages of type `kind` to `topic`.
    pub fn new(path: impl Into<String>, topic: Topic, kind: impl Into<ByteString>) -> Route {
        let kind = kind.into();
        Route::with_target(path, Target::Fixed { topic, kind }, &Settings::default())
    }

    /// `/{topic}/{type}`, for every topic and type.
    pub fn every_topic(settings: &Settings) -> Route {
        Route {
            methods: vec![
                Method::GET,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ],
            ..Route::with_target("/{topic}/{type}", Target::Named, settings)
        }
    }

    fn with_target(path: impl Into<String>, target: Target, settings: &Settings) -> Route {
        Route {
            methods: vec![Method::POST],
            path: path.into(),
            target,
            key: None,
            mode: Mode::default(),
            timeout: settings.timeout,
            max_body: settings.max_body,
            body: Accepts::default(),
            headers: PASSED_ON.to_vec(),
        }
    }

    /// Reads one `[[route]]`; `None` when it lacks what every route needs.
    pub(super) fn read(
        mut section: Section<'_>,
        source: &Source<'_>,
        span: Range<usize>,
        settings: &Settings,
    ) -> Option<Route> {
        let path = section.scalar("path", path);
        let topic = section.scalar("topic", topic);
        let kind = section.scalar("type", kind);
        let methods = section.list("method", method);
        let key = section.scalar("key", key);
        let mode = section.scalar("mode", mode);
        let timeout = section.scalar("timeout", units::duration);
        let max_body = section.scalar("max_body", units::size);
        let body = section.scalar("body", accepts);
        let headers = section.list("headers", allowed_header);
        let missing = section.missing(&["path", "topic", "type"]);
        if !missing.is_empty() {
            source.mistake(
                span.clone(),
                format!("this route has no `{}`", missing.join("`, no `")),
            );
        }
        // Whole routes are checked together; this one will not be among them.
        if let (Some(path), true) = (&path, topic.is_none() || kind.is_none()) {
            let alone = Route::with_target(path.clone(), Target::Named, settings);
            if let Err(conflict) = routes::check([&alone]) {
                source.mistake(span.clone(), conflict.problem);
            }
        }
        if methods.as_ref().is_some_and(Vec::is_empty) {
            source.mistake(span, "`method`: the list is empty; leave it out for POST");
        }
        section.finish();

        let target = Target::Fixed {
            topic: topic?,
            kind: kind?,
        };
        let default = Route::with_target(path?, target, settings);
        Some(Route {
            methods: methods.unwrap_or(default.methods),
            key,
            mode: mode.unwrap_or(default.mode),
            timeout: timeout.unwrap_or(default.timeout),
            max_body: max_body.unwrap_or(default.max_body),
            body: body.unwrap_or(default.body),
            headers: headers.unwrap_or(default.headers),
            ..default
        })
    }
}

/// Whether a header belongs to one connection, and so must never travel further.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "expect"
            | "host"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} does not begin with /"));
    }
    if text.contains(['?', '#', '%']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("{text:?} must be a plain path, without ?, # and %"));
    }
    Ok(text.to_owned())
}

fn topic(text: &str) -> Result<Topic, String> {
    let topic = Topic::new(text).map_err(|error| error.detail().to_owned())?;
    if topic.is_inbox() || topic.is_dead_letters() {
        return Err(format!(
            "{text:?} is a reserved topic: requests must not write to inboxes or dead letters"
        ));
    }
    Ok(topic)
}

fn kind(text: &str) -> Result<ByteString, String> {
    Name::new(text)
        .map(|_| text.into())
        .map_err(|_| format!("{text:?} is not a message type: use 1 to 200 of A-Z a-z 0-9 . _ -"))
}

fn key(text: &str) -> Result<String, String> {
    let name = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    name.map(str::to_owned).ok_or_else(|| {
        format!("{text:?} is not a key: name a parameter of the path, for example \"{{id}}\"")
    })
}

fn method(text: &str) -> Result<Method, String> {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    known
        .into_iter()
        .find(|method| method.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| {
            format!("{text:?} is not one of GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS")
        })
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "reply" => Ok(Mode::Reply),
        "send" => Ok(Mode::Send),
        "accept" => Err(
            "\"accept\" is not supported yet; use \"reply\" to answer with the worker's reply, or \"send\" to answer 202 \
             once the message is stored"
                .into(),
        ),
        other => Err(format!("{other:?} is not one of \"reply\", \"send\"")),
    }
}

fn accepts(text: &str) -> Result<Accepts, String> {
    match text {
        "any" => Ok(Accepts::Any),
        "json" => Ok(Accepts::Json),
        other => Err(format!("{other:?} is not one of \"any\", \"json\"")),
    }
}

fn allowed_header(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{text:?} is not a header name"))?;
    if is_hop_by_hop(&name) {
        return Err(format!(
            "{text:?} belongs to the connection and is never passed on"
        ));
    }
    Ok(name)
}
