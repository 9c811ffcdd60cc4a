//! What a run would leave behind in a broker that somebody else has started, and its removal.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use streamerson::connect_in;
use streamerson_core::{Name, Topic};
use tokio::time::timeout;

use super::resp::Connection;
use super::settings::Names;
use crate::failure::{Exit, Failure, Result};

/// How many keys a broker looks at before others have their turn again.
const PAGE: &str = "1000";

/// How long the broker may take to forget a run.
const PATIENCE: Duration = Duration::from_secs(60);

/// Removes all topics of a run, with their dead letters, its inbox, and what was remembered about its messages. Nobody may
/// work on them any more.
pub(crate) async fn remove(
    server: SocketAddr,
    namespace: &Name,
    names: &Names,
    inbox: &str,
) -> Result<()> {
    let removal = async {
        let url = format!("redis://{server}");
        remove_topics(&url, namespace, names, inbox)
            .await
            .map_err(|error| error.detail().to_owned())?;
        let keys = format!("{namespace}:{{{}*", names.prefix);
        forget(server, &keys)
            .await
            .map_err(|error| error.to_string())
    };
    let why = match timeout(PATIENCE, removal).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(_) => format!("it takes longer than {PATIENCE:?}"),
    };
    let detail = format!(
        "the topics {}* may still be at redis://{server}: {why}",
        names.prefix
    );
    Err(Failure::new(Exit::Failed, "traces-left", detail)
        .with_help("see `streamerson topic ls`, and remove them with `streamerson topic rm`"))
}

async fn remove_topics(
    url: &str,
    namespace: &Name,
    names: &Names,
    inbox: &str,
) -> streamerson_core::Result<()> {
    let broker = connect_in(url, namespace.clone()).await?;
    for topic in names.all()? {
        broker.remove_topic(&topic).await?;
        broker.remove_topic(&topic.dead_letters()).await?;
    }
    broker.remove_topic(&Topic::new(inbox.to_owned())?).await?;
    Ok(())
}

/// Removes the keys that match `pattern`. Redis keeps what members remember of their effects under a key for each, until it
/// expires, and has no list of them.
async fn forget(server: SocketAddr, pattern: &str) -> io::Result<()> {
    let mut redis = Connection::open(server).await?;
    let mut cursor = "0".to_owned();
    loop {
        let scan = ["SCAN", &cursor, "MATCH", pattern, "COUNT", PAGE];
        let mut keys = redis.ask(&scan).await?;
        if keys.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        cursor = keys.remove(0);
        if !keys.is_empty() {
            let unlink: Vec<&str> = ["UNLINK"]
                .into_iter()
                .chain(keys.iter().map(String::as_str))
                .collect();
            redis.ask(&unlink).await?;
        }
        if cursor == "0" {
            return Ok(());
        }
    }
}
