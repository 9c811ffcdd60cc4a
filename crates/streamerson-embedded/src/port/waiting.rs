//! Waiting for news of topics.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use streamerson_core::Topic;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::shared::Unblock;

/// How long a command waits for news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all.
    None,
    /// So long.
    For(Duration),
    /// Until there are some.
    Forever,
}

/// A command that looks again and again, until it finds something or runs out of patience.
///
/// Each time: [`Waiting::listen`], look, and when there was nothing, [`Waiting::news`].
#[derive(Debug)]
pub(super) struct Waiting {
    patience: Patience,
    since: Instant,
    ended: CancellationToken,
    unblock: Arc<Unblock>,
}

/// Completes with the next news. Whoever looks after it was made misses nothing.
pub(super) struct News {
    signals: Vec<Pin<Box<OwnedNotified>>>,
}

impl Waiting {
    /// Begins to wait.
    pub(super) fn new(session: &Session, patience: Patience) -> Waiting {
        Waiting {
            patience,
            since: Instant::now(),
            ended: session.ended(),
            unblock: session.unblock(),
        }
    }

    /// Listens for news of `topics`, unless there is no patience to wait for them.
    pub(super) fn listen<'a>(
        &self,
        session: &Session,
        topics: impl Iterator<Item = &'a Topic>,
    ) -> News {
        let signal = |topic| {
            let mut notified = Box::pin(session.engine().changed(topic).notified_owned());
            notified.as_mut().enable();
            notified
        };
        let signals = match self.patience {
            Patience::None => Vec::new(),
            _ => topics.map(signal).collect(),
        };
        News { signals }
    }

    /// Waits for `news`. `false`: the time is up, or the client has gone.
    pub(super) async fn news(&self, news: News) -> bool {
        if news.signals.is_empty() {
            return false;
        }
        let over = async {
            match self.patience {
                Patience::None => {}
                Patience::For(limit) => tokio::time::sleep_until(self.since + limit).await,
                Patience::Forever => std::future::pending().await,
            }
        };
        let news = async {
            tokio::select! {
                biased;
                () = self.ended.cancelled() => false,
                _ = select_all(news.signals) => true,
                () = over => false,
            }
        };
        self.unblock.wait(news).await.unwrap_or(false)
    }
}
