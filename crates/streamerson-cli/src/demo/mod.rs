//! The workers of `dev --demo`: something to try without writing anything.

mod hello;
mod notes;

use std::future::IntoFuture;
use std::sync::Arc;

use streamerson::{Router, Worker};
use streamerson_core::{Broker, Result};
use tokio_util::sync::CancellationToken;

/// Serves the demo topics until `shutdown`.
pub(crate) async fn serve(broker: Arc<dyn Broker>, shutdown: CancellationToken) -> Result<()> {
    let serve = |topic: &'static str, router: Router| {
        Worker::new(broker.clone())
            .topic(topic)
            .group("demo")
            .serve(router)
            .with_graceful_shutdown(shutdown.clone().cancelled_owned())
            .into_future()
    };
    let hello = serve("hello", hello::router());
    let notes = serve("notes", notes::router());
    tokio::try_join!(hello, notes).map(|_| ())
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
