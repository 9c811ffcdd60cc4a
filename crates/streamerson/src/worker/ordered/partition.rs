//! Works on one owned partition: joins, serves, hands over.

use std::convert::Infallible;
use std::sync::Arc;

use streamerson_core::{ErrorKind, Membership, Result};
use tokio::sync::Notify;
use tower::Service;

use super::member::{Common, Keeper, LanedMember};
use crate::backoff::Backoff;
use crate::worker::running::Stopped;
use crate::worker::serve::{Shared, serve_member};
use crate::worker::stop::Stop;
use crate::{Reply, Request};

/// Works under `membership` for as long as its lease lasts, or until `drain`; then it settles what runs or could start, and
/// leaves. With each `renewed`, what waits shows signs of life.
pub(super) async fn serve<S>(
    shared: Arc<Shared>,
    membership: Membership,
    service: S,
    common: Arc<Common>,
    drain: Stop,
    renewed: Arc<Notify>,
) -> Stopped
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let topic = membership.topic.clone();
    let epoch = membership.fence.as_ref().map_or(0, |fence| fence.epoch);
    let drained = drain.stage();
    let member = tokio::select! {
        joined = join(&shared, membership, common, drain.clone(), drained.clone()) => joined,
        () = drain.asked() => return Stopped::Asked,
    };
    let member = match member {
        Ok(member) => member,
        Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Corrupt) => {
            return Stopped::Failed(error);
        }
        Err(error) => return Stopped::Lost(error),
    };
    let keeper = member.keeper();
    let serving = serve_member(&shared, &topic, service, Box::new(member), epoch, &drained);
    tokio::select! {
        stopped = serving => stopped,
        never = keep(&keeper, &renewed) => never,
        // Half of the time for what waits to start; the other half is for what runs then.
        never = hurry(&drain, &drained) => never,
    }
}

/// Joins as the owner, as soon as the broker lets it.
async fn join(
    shared: &Shared,
    membership: Membership,
    common: Arc<Common>,
    drain: Stop,
    drained: Stop,
) -> Result<LanedMember> {
    let mut backoff = Backoff::new();
    loop {
        let joined = LanedMember::join(
            shared.settings.broker.clone(),
            membership.clone(),
            common.clone(),
            drain.clone(),
            drained.clone(),
        );
        match joined.await {
            Err(error) if super::is_passing(&error) => {
                tracing::warn!(topic = %membership.topic, %error, "the partition cannot be joined at the moment");
                backoff.wait().await;
            }
            joined => return joined,
        }
    }
}

async fn keep(keeper: &Keeper, renewed: &Notify) -> Stopped {
    loop {
        renewed.notified().await;
        if let Err(error) = keeper.keep().await {
            tracing::debug!(%error, "the leases of waiting messages cannot be extended at the moment");
        }
    }
}

/// Ends the wait for what could still be started.
async fn hurry(drain: &Stop, drained: &Stop) -> Stopped {
    drain.asked().await;
    tokio::time::sleep_until(drain.begin_by()).await;
    drained.ask();
    std::future::pending().await
}
