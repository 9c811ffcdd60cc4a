//! `streamerson gateway`: a stateless gateway.

use std::path::PathBuf;

use clap::Args;
use streamerson_gateway::Environment;

use crate::edge::{Edge, EdgeArgs, routes};
use crate::endpoint::{reachable, redacted};
use crate::failure::{Failure, Result};
use crate::output::message;
use crate::signal;

/// Run a gateway: HTTP requests become messages, replies become responses
///
/// Stateless: any number of gateways may serve the same broker behind a load balancer. SIGTERM and Ctrl-C let requests
/// in flight finish. Flags win over environment variables (STREAMERSON_BROKER, STREAMERSON_GATEWAY__LISTEN, …), and
/// these over the file.
#[derive(Debug, Args)]
#[command(name = "gateway")]
pub(crate) struct GatewayCommand {
    /// Configuration: routes, and within which bounds they are served
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    #[command(flatten)]
    edge: EdgeArgs,

    /// Broker: redis://HOST:PORT, rediss://… or unix:PATH
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMERSON_BROKER",
        hide_env_values = true
    )]
    broker: Option<String>,
}

impl GatewayCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let config = self
            .edge
            .configuration(Some(&self.config), &Environment::of_process())?;
        let url = self.broker.or(config.broker.clone()).ok_or_else(|| {
            Failure::usage("broker-missing", "no broker is named").with_help(format!(
                "add broker = \"redis://HOST:PORT\" to {}, or pass --broker URL",
                self.config.display()
            ))
        })?;
        if url.starts_with("memory:") || url.starts_with("embedded:") {
            return Err(Failure::usage(
                "broker-not-shared",
                "this broker lives inside one process, so that no worker could join it",
            )
            .with_help("use `streamerson dev`, or a broker that others can reach"));
        }
        let edge = Edge::bind(&config)?;
        let broker = reachable(&url, config.namespace.clone()).await?;
        let (gateway, admin) = (edge.url(), edge.admin_url());
        let edge = edge.open(broker.clone(), &config).await?;
        let shutdown = signal::shutdown()?;

        let capabilities = broker.capabilities();
        message(&format!(
            "gateway  {gateway} ({})",
            routes(config.routes.len())
        ));
        message(&format!(
            "broker   {} ({}, durability {})",
            redacted(&url),
            capabilities.broker,
            capabilities.durability
        ));
        if let Some(admin) = admin {
            message(&format!("admin    {admin}/readyz"));
        }
        for warning in &capabilities.warnings {
            message(&format!("warning: {warning}"));
        }
        edge.serve(shutdown).await;
        Ok(())
    }
}
