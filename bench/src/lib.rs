//! What every program of the benchmark shares: the job itself, so that systems differ only in
//! the path a request takes, and the allocator of the `streamerson` binary, so that none has an
//! advantage from it.
//!
//! `cargo xtask bench` starts these programs and measures them; see `xtask/src/bench`.

use std::error::Error;

use axum::Router;
use axum::serve::ListenerExt as _;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The path every HTTP front serves.
pub const PATH: &str = "/hello/greet";

/// How a program of the benchmark ends.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The request: who wants to be greeted.
#[derive(Debug, Deserialize)]
pub struct Greet {
    name: String,
}

/// The answer to a [`Greet`].
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Howdy {
    howdy: String,
}

/// The work that every system does for one request.
///
/// ```
/// use streamerson_bench::greet;
///
/// let ada = serde_json::from_str(r#"{"name":"Ada"}"#)?;
/// assert_eq!(serde_json::to_string(&greet(ada))?, r#"{"howdy":"there, Ada"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn greet(greet: Greet) -> Howdy {
    Howdy {
        howdy: format!("there, {}", greet.name),
    }
}

/// The command line of a program, which is `names.len()` positional arguments.
///
/// # Errors
///
/// Names the arguments when their number is another.
pub fn arguments<const N: usize>(names: [&str; N]) -> Result<[String; N], String> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    given
        .try_into()
        .map_err(|_| format!("arguments: {}", names.join(" ")))
}

/// Serves `app` on `address` until the process is killed.
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn serve(address: &str, app: Router) -> Outcome {
    // Nagle's algorithm would hold back replies; every HTTP server meant for production turns it off.
    let listener = TcpListener::bind(address).await?.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await?;
    Ok(())
}
