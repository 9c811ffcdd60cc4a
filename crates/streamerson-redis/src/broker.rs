//! The broker: one shared connection, and the operations of the contract.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use streamerson_core::broker::{Append, Broker, Capabilities, Inbox, Member, Membership, Reader};
use streamerson_core::retention::{Retention, Trimmed};
use streamerson_core::stats::{IncidentCounts, Incidents, TopicStats};
use streamerson_core::{Name, Position, Result, Start, Topic};
use tokio::sync::watch;

use crate::connection::{Commands, Connector};
use crate::keys::Keys;
use crate::target::Target;
use crate::{append, boot, member, read, stats, topics, trim};

/// Topics on Redis or Valkey Streams. Clones share one connection; every reader and member has one more of its own.
///
/// ```no_run
/// use streamerson_core::{Append, Broker, Message, Name, Topic};
/// use streamerson_redis::RedisBroker;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> streamerson_core::Result<()> {
/// let broker = RedisBroker::connect("redis://127.0.0.1:6379", Name::new("shop")?).await?;
/// for warning in &broker.capabilities().warnings {
///     eprintln!("{warning}");
/// }
/// let message = Message::new("order.create", r#"{"item":7}"#);
/// for position in broker.append(vec![Append::new(Topic::new("orders")?, message)]).await {
///     println!("stored at {}", position?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisBroker {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Arc<Connector>,
    commands: Commands,
    keys: Keys,
    capabilities: Capabilities,
    counts: Arc<IncidentCounts>,
    /// Told by every member that leaves, so that those of the same process take over at once.
    departures: watch::Sender<()>,
}

impl RedisBroker {
    /// Connects to the Redis at `url` and asks it what it promises. Topics live under keys that begin with `namespace`.
    ///
    /// `url` is `redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]`, `rediss://…` for TLS, or `redis+unix:///PATH`. With TLS,
    /// `?ca=FILE` names the certificates to trust instead of the system's, `?cert=FILE&key=FILE` the client's own.
    ///
    /// Fails when Redis cannot be reached now. Later it is reached again by itself: a call made meanwhile fails with
    /// [`Unavailable`](streamerson_core::ErrorKind::Unavailable) after a second, and one whose answer was lost
    /// with [`Unknown`](streamerson_core::ErrorKind::Unknown). Nothing is sent twice.
    pub async fn connect(url: &str, namespace: Name) -> Result<RedisBroker> {
        let connector = Arc::new(Connector::new(Target::parse(url)?)?);
        let counts = Arc::new(IncidentCounts::default());
        let commands = Commands::connect(connector.clone(), counts.clone()).await?;
        let capabilities = boot::check(&commands, connector.target(), &namespace).await?;
        Ok(RedisBroker {
            shared: Arc::new(Shared {
                connector,
                commands,
                keys: Keys::new(namespace),
                capabilities,
                counts,
                departures: watch::Sender::new(()),
            }),
        })
    }

    pub(crate) fn connector(&self) -> &Arc<Connector> {
        &self.shared.connector
    }

    pub(crate) fn commands(&self) -> &Commands {
        &self.shared.commands
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    pub(crate) fn departures(&self) -> &watch::Sender<()> {
        &self.shared.departures
    }

    pub(crate) fn counts(&self) -> &Arc<IncidentCounts> {
        &self.shared.counts
    }
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisBroker({})", self.shared.connector.target())
    }
}

impl Broker for RedisBroker {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    fn incidents(&self) -> Incidents {
        self.shared.counts.read()
    }

    fn time(&self) -> BoxFuture<'_, Result<u64>> {
        boot::time(self.commands()).boxed()
    }

    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
        append::append(self, batch).boxed()
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
        async move {
            let reader = read::open(self, topic, start).await?;
            Ok(Box::new(reader) as Box<dyn Reader>)
        }
        .boxed()
    }

    fn join(&self, membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        async move {
            let member = member::join(self, membership).await?;
            Ok(Box::new(member) as Box<dyn Member>)
        }
        .boxed()
    }

    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
        read::inbox(self).boxed()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        topics::topics(self).boxed()
    }

    fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
        stats::stats(self, topic).boxed()
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Trimmed>> {
        trim::trim(self, topic, retention).boxed()
    }
}
