//! `--broker` and `--namespace`: which broker a command talks to.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use streamerson_core::{Broker, ErrorKind, Name};

use crate::failure::{Exit, Failure, Result};

/// The Redis-protocol port of a local `streamerson dev`.
pub(crate) const LOCAL: &str = "redis://127.0.0.1:6380";
const NAMESPACE: &str = "streamerson";

/// Where topics are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerArgs {
    /// Broker: redis://HOST:PORT, rediss://HOST:PORT[?ca=FILE&cert=FILE&key=FILE], unix:PATH, or embedded:DIR[?durability=os|disk].
    /// Default: the Redis-protocol port of a local `streamerson dev`, redis://127.0.0.1:6380
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMERSON_BROKER",
        hide_env_values = true
    )]
    pub(crate) broker: Option<String>,

    /// Prefix of every key in the broker
    #[arg(long, value_name = "NAME", env = "STREAMERSON_NAMESPACE")]
    pub(crate) namespace: Option<Name>,
}

impl BrokerArgs {
    /// What was named; an empty variable names nothing.
    fn url(&self) -> Option<&str> {
        self.broker.as_deref().filter(|url| !url.is_empty())
    }

    /// Connects to the broker, to look at what is there or to change it: a directory that is not there is named, not created.
    pub(crate) async fn connect_existing(&self) -> Result<Arc<dyn Broker>> {
        match self.url().and_then(directory) {
            Some(directory) if !directory.exists() => Err(Failure::new(
                Exit::NotFound,
                "data-directory-missing",
                format!("there is no data directory {}", directory.display()),
            )
            .with_help("check --broker (or STREAMERSON_BROKER)")),
            _ => self.connect().await,
        }
    }

    /// Connects to the broker, creating the directory of an embedded one as needed.
    pub(crate) async fn connect(&self) -> Result<Arc<dyn Broker>> {
        let url = self.url().unwrap_or(LOCAL);
        let forgets = url.starts_with("embedded:") && url.ends_with("?durability=memory");
        if url.starts_with("memory:") || forgets {
            return Err(Failure::usage(
                "broker-not-shared",
                format!("{url} lives inside one process, so nothing else could see what this command does there"),
            )
            .with_help("start `streamerson dev --durability memory`, and leave --broker out"));
        }
        let namespace = match &self.namespace {
            Some(namespace) => namespace.clone(),
            None => Name::new(NAMESPACE)?,
        };
        match self.url() {
            Some(url) => reachable(url, namespace).await,
            None => streamerson::connect_in(LOCAL, namespace).await.map_err(|error| {
                let away = error.kind() == ErrorKind::Unavailable;
                let failure = Failure::from(error);
                match away {
                    true => failure.with_help(
                        "start `streamerson dev` in another terminal, or name a broker with --broker URL (or STREAMERSON_BROKER)",
                    ),
                    false => failure,
                }
            }),
        }
    }
}

/// The directory of the embedded broker at `url`, if it is one.
fn directory(url: &str) -> Option<&Path> {
    let rest = url.strip_prefix("embedded:")?;
    let directory = without_query(rest);
    (!directory.is_empty()).then_some(Path::new(directory))
}

/// Connects to the broker at `url`, which somebody has named.
pub(crate) async fn reachable(url: &str, namespace: Name) -> Result<Arc<dyn Broker>> {
    let broker = streamerson::connect_in(url, namespace).await;
    broker.map_err(|error| {
        let is_locked = error.code() == "data-directory-locked";
        // It runs: the detail says what it takes.
        let away = error.kind() == ErrorKind::Unavailable && error.code() != "certificate-not-trusted";
        let failure = Failure::from(error);
        match away {
            true if is_locked => failure.with_help(format!(
                "the process that has it is the way to it: if that is `streamerson dev`, name its Redis-protocol port, for example --broker {LOCAL}"
            )),
            true => failure
                .with_help("check --broker (or STREAMERSON_BROKER), and that the broker runs"),
            false => failure,
        }
    })
}

/// `url` without user and password.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return without_query(url).to_owned();
    };
    // The last @, wherever it stands: a secret may hold any other character.
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{}", without_query(host)),
        None => format!("{scheme}://{}", without_query(rest)),
    }
}

/// A query may hold a password too: `unix://PATH?pass=…`.
fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(url, _)| url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let shown = [
            ("redis://h:1/2", "redis://h:1/2"),
            ("redis://user:p@ss@h:1/2", "redis://***@h:1/2"),
            ("rediss://:secret@h", "rediss://***@h"),
            ("redis://:a/b?c@h?d", "redis://***@h"),
            (
                "unix:///run/redis.sock?pass=secret",
                "unix:///run/redis.sock",
            ),
            ("unix:/run/redis.sock?pass=secret", "unix:/run/redis.sock"),
        ];
        for (url, expected) in shown {
            assert_eq!(redacted(url), expected);
        }
    }
}
