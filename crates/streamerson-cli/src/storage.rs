//! The broker of `dev`: its own embedded one, or one that runs elsewhere.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use streamerson_core::{Broker, Durability, Name};
use streamerson_embedded::port::{self, Listener, Port};
use streamerson_embedded::{EmbeddedBroker, Options};

use crate::endpoint::{LOCAL, reachable, redacted};
use crate::failure::{Failure, Result};

const DIRECTORY: &str = ".streamerson";

/// What was asked for, by flags, environment and file.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wanted {
    pub(crate) broker: Option<String>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) durability: Option<Durability>,
    pub(crate) redis_listen: Option<SocketAddr>,
}

/// Which broker it is to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In this process; without a directory it stores nothing.
    Embedded {
        directory: Option<PathBuf>,
        durability: Durability,
        listen: Option<SocketAddr>,
    },
    /// In another process.
    Remote { url: String },
}

/// A broker that is open.
pub(crate) struct OpenStorage {
    pub(crate) broker: Arc<dyn Broker>,
    /// The Redis-protocol port of the embedded broker.
    pub(crate) port: Option<Port>,
    /// Where it stores, for people.
    pub(crate) place: String,
    /// The URL by which other processes reach it, without its secrets.
    url: String,
}

impl OpenStorage {
    /// What a command needs to reach this broker; nothing when that is the default.
    pub(crate) fn flag(&self) -> String {
        match self.url == LOCAL {
            true => String::new(),
            false => format!(" --broker {}", self.url),
        }
    }
}

impl Storage {
    /// What `wanted` amounts to. Something that would have no effect is an error.
    pub(crate) fn resolve(wanted: Wanted) -> Result<Storage> {
        let Some(url) = &wanted.broker else {
            return embedded(wanted);
        };
        let rest = match url.split_once(':') {
            Some(("memory", "")) => None,
            Some(("embedded", rest)) => Some(rest),
            _ => {
                let flags = [
                    ("--data", wanted.data.is_some()),
                    ("--durability", wanted.durability.is_some()),
                    ("--redis-listen", wanted.redis_listen.is_some()),
                ];
                no_effect(&flags, url)?;
                return Ok(Storage::Remote { url: url.clone() });
            }
        };
        let flags = [
            ("--data", wanted.data.is_some()),
            ("--durability", wanted.durability.is_some()),
        ];
        no_effect(&flags, url)?;
        let (directory, durability) = match rest {
            None => (None, Durability::Memory),
            Some(rest) => place(url, rest)?,
        };
        Ok(Storage::Embedded {
            directory,
            durability,
            listen: wanted.redis_listen,
        })
    }

    /// Opens the broker; an embedded one listens on `listen` unless told otherwise.
    pub(crate) async fn open(self, namespace: Name, listen: SocketAddr) -> Result<OpenStorage> {
        let (directory, durability, wanted) = match self {
            Storage::Remote { url } => {
                let broker = reachable(&url, namespace).await?;
                let capabilities = broker.capabilities();
                return Ok(OpenStorage {
                    place: format!(
                        "{} ({}, durability {})",
                        redacted(&url),
                        capabilities.broker,
                        capabilities.durability
                    ),
                    url: redacted(&url),
                    broker,
                    port: None,
                });
            }
            Storage::Embedded {
                directory,
                durability,
                listen,
            } => (directory, durability, listen),
        };
        // First, so that a taken address leaves no directory behind.
        let listener = Listener::bind(wanted.unwrap_or(listen), port::Options::default());
        let listener = listener.map_err(busy)?;
        let (broker, place) = match directory {
            None => (
                EmbeddedBroker::in_memory(),
                "in memory, gone with this process".to_owned(),
            ),
            Some(directory) => {
                let options = Options {
                    durability,
                    ..Options::default()
                };
                let broker = EmbeddedBroker::open(&directory, options).map_err(unusable)?;
                let shown = std::path::absolute(&directory).unwrap_or(directory);
                (
                    broker,
                    format!("{} (durability {durability})", shown.display()),
                )
            }
        };
        let port = listener.open(broker.clone(), namespace);
        Ok(OpenStorage {
            url: format!("redis://{}", port.local_addr()),
            broker: Arc::new(broker),
            port: Some(port),
            place,
        })
    }
}

fn embedded(wanted: Wanted) -> Result<Storage> {
    let durability = wanted.durability.unwrap_or(Durability::Disk);
    let in_memory = durability == Durability::Memory;
    if in_memory && wanted.data.is_some() {
        return Err(Failure::usage(
            "flag-without-effect",
            "--data has no effect with --durability memory, which stores nothing",
        ));
    }
    let directory = wanted.data.unwrap_or_else(|| PathBuf::from(DIRECTORY));
    Ok(Storage::Embedded {
        directory: (!in_memory).then_some(directory),
        durability,
        listen: wanted.redis_listen,
    })
}

/// Directory and durability of `embedded:DIR[?durability=CLASS]`.
fn place(url: &str, rest: &str) -> Result<(Option<PathBuf>, Durability)> {
    let (directory, query) = rest.split_once('?').unwrap_or((rest, ""));
    let durability = match query.strip_prefix("durability=") {
        Some(class) => class.parse()?,
        None if query.is_empty() => Durability::Disk,
        None => {
            let detail = format!("{url} has an unknown option; there is durability=memory|os|disk");
            return Err(Failure::usage("invalid-broker-url", detail));
        }
    };
    match (directory, durability) {
        ("", Durability::Memory) => Ok((None, durability)),
        (directory, Durability::Memory) => {
            let detail = format!(
                "the directory {directory} has no effect with durability=memory, which stores nothing"
            );
            Err(Failure::usage("flag-without-effect", detail).with_help("write --broker memory:"))
        }
        ("", _) => {
            let detail = format!("{url} needs a directory, for example embedded:./data");
            Err(Failure::usage("invalid-broker-url", detail))
        }
        (directory, _) => Ok((Some(Path::new(directory).to_owned()), durability)),
    }
}

fn no_effect(flags: &[(&str, bool)], url: &str) -> Result<()> {
    match flags.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(Failure::usage(
            "flag-without-effect",
            format!("{flag} has no effect with the broker {}", redacted(url)),
        )
        .with_help(format!(
            "leave out {flag}, or the broker (--broker, or broker in the configuration)"
        ))),
    }
}

fn unusable(error: streamerson_core::Error) -> Failure {
    Failure::from(error)
        .with_help("choose another directory with --data DIR, or none with --durability memory")
}

fn busy(error: streamerson_core::Error) -> Failure {
    if error.code() == "password-required" {
        return Failure::usage(
            "loopback-required",
            "--redis-listen must be a loopback address, because there is no password that protects the broker",
        )
        .with_help("write --redis-listen 127.0.0.1:PORT, or run a Redis and name it with --broker");
    }
    Failure::from(error)
        .with_help("choose another address of this machine with --redis-listen 127.0.0.1:PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(broker: &str) -> Wanted {
        Wanted {
            broker: Some(broker.into()),
            ..Wanted::default()
        }
    }

    #[test]
    fn the_default_is_a_directory_and_the_disk() {
        let storage = Storage::resolve(Wanted::default()).unwrap();
        let expected = Storage::Embedded {
            directory: Some(DIRECTORY.into()),
            durability: Durability::Disk,
            listen: None,
        };
        assert_eq!(storage, expected);
    }

    #[test]
    fn an_embedded_url_says_the_same_as_the_flags() {
        let by_flags = Storage::resolve(Wanted {
            data: Some("d".into()),
            durability: Some(Durability::Os),
            ..Wanted::default()
        });
        let by_url = Storage::resolve(wanted("embedded:d?durability=os"));
        assert_eq!(by_flags.unwrap(), by_url.unwrap());
        for url in [
            "embedded:",
            "embedded:d?size=1",
            "embedded:d?durability=tape",
        ] {
            assert!(Storage::resolve(wanted(url)).is_err(), "{url}");
        }
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let data = |wanted: Wanted| Wanted {
            data: Some("d".into()),
            ..wanted
        };
        let refused = [
            data(wanted("redis://:secret@h")),
            data(wanted("memory:")),
            data(wanted("embedded:e")),
            wanted("embedded:e?durability=memory"),
            Wanted {
                redis_listen: Some(([127, 0, 0, 1], 1).into()),
                ..wanted("redis://h")
            },
            Wanted {
                durability: Some(Durability::Memory),
                ..data(Wanted::default())
            },
        ];
        for wanted in refused {
            let said = Storage::resolve(wanted).unwrap_err().to_string();
            assert!(said.contains("(flag-without-effect)"), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
