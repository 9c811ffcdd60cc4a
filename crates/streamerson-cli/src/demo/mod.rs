//! The workers of `dev --demo`: something to try without writing anything.

mod hello;
mod notes;

use std::future::IntoFuture;
use std::sync::Arc;

use streamerson::worker::Counters;
use streamerson::{Router, Worker};
use streamerson_core::{Broker, Result};
use tokio_util::sync::CancellationToken;

/// The demo's workers, about to serve.
pub(crate) struct Demo {
    hello: Worker,
    notes: Worker,
}

impl Demo {
    /// The workers of the demo topics of `broker`.
    pub(crate) fn new(broker: &Arc<dyn Broker>) -> Demo {
        let worker = |topic| Worker::new(broker.clone()).topic(topic).group("demo");
        Demo {
            hello: worker("hello"),
            notes: worker("notes"),
        }
    }

    /// What they count, by topic.
    pub(crate) fn counters(&self) -> Vec<(&'static str, Counters)> {
        vec![
            ("hello", self.hello.counters()),
            ("notes", self.notes.counters()),
        ]
    }

    /// Serves until `shutdown`.
    pub(crate) async fn serve(self, shutdown: CancellationToken) -> Result<()> {
        let serve = |worker: Worker, router: Router| {
            worker
                .serve(router)
                .with_graceful_shutdown(shutdown.clone().cancelled_owned())
                .into_future()
        };
        let hello = serve(self.hello, hello::router());
        let notes = serve(self.notes, notes::router());
        tokio::try_join!(hello, notes).map(|_| ())
    }
}

/// What to type to try the demo: against the gateway, if it serves every topic, and against the broker that `broker` names.
pub(crate) fn commands(gateway: Option<&str>, broker: &str) -> Vec<String> {
    let watch = format!("streamerson tail hello --from earliest{broker}");
    match gateway {
        Some(gateway) => vec![
            format!(r#"curl {gateway}/hello/greet -d '{{"name":"Ada"}}'"#),
            format!(
                r#"curl {gateway}/notes/add -d '{{"text":"buy milk"}}'; curl {gateway}/notes/list"#
            ),
            watch,
        ],
        None => vec![
            format!(r#"streamerson request hello greet --data '{{"name":"Ada"}}'{broker}"#),
            watch,
        ],
    }
}
