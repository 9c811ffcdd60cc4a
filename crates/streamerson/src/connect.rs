//! A broker by URL.

use std::sync::Arc;

use streamerson_core::memory::MemoryBroker;
use streamerson_core::{Broker, Error, Name, Result};

const NAMESPACE: &str = "streamerson";

/// Connects to the broker at `url`, in the namespace `streamerson`; [`connect_in`] in another.
///
/// | URL | broker |
/// |---|---|
/// | `memory:` | in this process, lost with it; each call opens another |
/// | `embedded:DIR`, `embedded:DIR?durability=memory`, `os` or `disk` | durable, in this process (feature `embedded`) |
/// | `redis://…`, `rediss://…`, `redis+unix:///PATH`, `unix:///PATH` | Redis or Valkey (feature `redis`) |
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), streamerson::Error> {
/// let broker = streamerson::connect("memory:").await?;
/// assert_eq!(broker.capabilities().broker, "memory");
/// # Ok(())
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Arc<dyn Broker>> {
    connect_in(url, Name::new(NAMESPACE)?).await
}

/// Connects to the broker at `url`, in a `namespace`: applications that share a server do not see each other's topics.
/// Brokers in this process have no namespaces, because they belong to one application anyway.
///
/// Everybody who takes part names the same one: a worker in another namespace than the gateway gets no requests, and nothing fails.
///
/// ```
/// use streamerson::connect_in;
/// use streamerson::core::Name;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson::Result<()> {
/// # let url = "memory:";
/// let broker = connect_in(url, Name::new("shop")?).await?;
/// # Ok(())
/// # }
/// ```
pub async fn connect_in(url: &str, namespace: Name) -> Result<Arc<dyn Broker>> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "memory" => memory(rest),
        "embedded" => embedded(rest).await,
        "redis" | "rediss" | "redis+unix" | "unix" => redis(url, namespace).await,
        _ => Err(Error::invalid(
            "unknown-broker",
            format!(
                "there is no broker for {scheme:?}; use one of {}",
                schemes()
            ),
        )),
    }
}

/// What this build can connect to.
fn schemes() -> String {
    let mut schemes = vec!["memory:"];
    if cfg!(feature = "embedded") {
        schemes.push("embedded:DIR");
    }
    if cfg!(feature = "redis") {
        schemes.extend([
            "redis://HOST:PORT",
            "rediss://HOST:PORT",
            "redis+unix:///PATH",
            "unix:///PATH",
        ]);
    }
    schemes.join(", ")
}

fn memory(rest: &str) -> Result<Arc<dyn Broker>> {
    if rest.is_empty() {
        return Ok(Arc::new(MemoryBroker::new()));
    }
    Err(Error::invalid(
        "invalid-broker-url",
        format!("memory:{rest} has a part too many; the memory broker is plain `memory:`"),
    ))
}

#[cfg(feature = "embedded")]
async fn embedded(rest: &str) -> Result<Arc<dyn Broker>> {
    use streamerson_core::ErrorKind;
    use streamerson_embedded::{EmbeddedBroker, Options};

    let (dir, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut options = Options::default();
    for (key, value) in query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        match key {
            "durability" => options.durability = value.parse()?,
            _ => {
                return Err(Error::invalid(
                    "invalid-broker-url",
                    format!(
                        "embedded:{rest} has an unknown option {key:?}; there is: durability=memory|os|disk"
                    ),
                ));
            }
        }
    }
    if dir.is_empty() {
        return Err(Error::invalid(
            "invalid-broker-url",
            "embedded: needs a directory, for example embedded:./data",
        ));
    }
    let dir = dir.to_owned();
    // Opening reads the log, which takes a while if it is long.
    let opened = tokio::task::spawn_blocking(move || EmbeddedBroker::open(dir, options)).await;
    let broker = opened.map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "broker-panicked",
            format!("opening the embedded broker failed: {error}"),
        )
    })??;
    Ok(Arc::new(broker))
}

#[cfg(not(feature = "embedded"))]
async fn embedded(_: &str) -> Result<Arc<dyn Broker>> {
    Err(disabled("embedded"))
}

#[cfg(feature = "redis")]
async fn redis(url: &str, namespace: Name) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(
        streamerson_redis::RedisBroker::connect(url, namespace).await?,
    ))
}

#[cfg(not(feature = "redis"))]
async fn redis(_: &str, _: Name) -> Result<Arc<dyn Broker>> {
    Err(disabled("redis"))
}

#[cfg(not(all(feature = "embedded", feature = "redis")))]
fn disabled(feature: &str) -> Error {
    Error::invalid(
        "broker-not-built-in",
        format!(
            "this build has no {feature} broker: enable the cargo feature {feature:?} of streamerson, or use one of {}",
            schemes()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unknown_scheme_lists_what_is_possible() {
        for url in ["", "nats://x", "memory", "6379"] {
            let outcome = connect(url).await;
            if url == "memory" {
                assert!(outcome.is_ok());
                continue;
            }
            let error = outcome.unwrap_err();
            assert_eq!(error.code(), "unknown-broker", "{url}");
            assert!(error.detail().contains("memory:"), "{error}");
        }
    }

    #[tokio::test]
    async fn surplus_and_missing_parts_are_refused() {
        assert_eq!(
            connect("memory:x").await.unwrap_err().code(),
            "invalid-broker-url"
        );
        #[cfg(feature = "embedded")]
        for url in [
            "embedded:",
            "embedded:?durability=disk",
            "embedded:d?size=1",
        ] {
            assert_eq!(
                connect(url).await.unwrap_err().code(),
                "invalid-broker-url",
                "{url}"
            );
        }
        #[cfg(not(feature = "embedded"))]
        assert_eq!(
            connect("embedded:d").await.unwrap_err().code(),
            "broker-not-built-in"
        );
        #[cfg(not(feature = "redis"))]
        assert_eq!(
            connect("redis://h").await.unwrap_err().code(),
            "broker-not-built-in"
        );
    }
}
