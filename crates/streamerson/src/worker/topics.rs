//! The topics of a worker at work: each is served by a task of its own, and may come and go.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, Shared as SharedFuture};
use streamerson_core::{Error, ErrorKind, Result, Topic};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio_util::task::AbortOnDropHandle;
use tower::Service;

use super::handle::{Command, ended};
use super::ordered;
use super::serve::{Shared, serve_topic};
use super::settings::{WorkTopic, twice};
use super::stop::Stop;
use crate::{Reply, Request};

/// What is served now.
pub(super) struct Topics<S> {
    shared: Arc<Shared>,
    service: S,
    stop: Stop,
    tasks: JoinSet<(Topic, Result<()>)>,
    served: HashMap<Topic, Served>,
}

type Joined = SharedFuture<BoxFuture<'static, Result<()>>>;

struct Served {
    /// It is worked on in order.
    ordered: bool,
    stop: Stop,
    /// How joining it went, or will go; `None`: it is one of those that the worker began with.
    joined: Option<Joined>,
    /// Who waits for its end.
    waiting: Vec<oneshot::Sender<Result<bool>>>,
}

impl<S> Topics<S>
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    pub(super) fn new(shared: Arc<Shared>, service: S) -> Topics<S> {
        Topics {
            stop: Stop::new(shared.settings.drain),
            shared,
            service,
            tasks: JoinSet::new(),
            served: HashMap::new(),
        }
    }

    /// Serves a topic from the beginning: failing to join is for the worker.
    pub(super) fn begin(&mut self, work: WorkTopic) {
        self.serve(work, None, None);
    }

    /// Serves a topic too. With `tell`, failing to join is for whoever waits there, which is who has `joined`.
    fn serve(
        &mut self,
        work: WorkTopic,
        tell: Option<oneshot::Sender<Result<()>>>,
        joined: Option<Joined>,
    ) {
        let WorkTopic { topic, partitions } = work;
        let stop = self.stop.child();
        let served = Served {
            ordered: partitions.is_some(),
            stop: stop.clone(),
            joined,
            waiting: Vec::new(),
        };
        self.served.insert(topic.clone(), served);
        let (shared, service) = (self.shared.clone(), self.service.clone());
        self.tasks.spawn(async move {
            let name = topic.clone();
            let within = stop.clone();
            // A task of its own, so that a handler that blocks it cannot hold up the end.
            let serving = AbortOnDropHandle::new(tokio::spawn(async move {
                match partitions {
                    None => serve_topic(shared, topic, service, within, tell).await,
                    Some(partitions) => {
                        ordered::serve(shared, topic, partitions, service, within, tell).await
                    }
                }
            }));
            let ended = tokio::select! {
                ended = serving => ended.unwrap_or_else(|error| Err(panicked(&error))),
                () = stop.over() => {
                    tracing::warn!(topic = %name, "the topic could not be left in time; what was held there goes to other members");
                    Ok(())
                }
            };
            (name, ended)
        });
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Add { work, done } => self.add(work, done),
            Command::Remove { topic, done } => match self.served.get_mut(&topic) {
                Some(served) => {
                    served.stop.ask();
                    served.waiting.push(done);
                }
                // Whoever asked may have gone.
                None => drop(done.send(Ok(false))),
            },
        }
    }

    fn add(&mut self, work: WorkTopic, done: oneshot::Sender<Result<()>>) {
        let topic = &work.topic;
        let known = match (work.check(), self.served.get(topic)) {
            (Err(error), _) => Err(error),
            (_, Some(served)) if served.stop.is_asked() => Err(Error::new(
                ErrorKind::Conflict,
                "topic-leaving",
                format!("{topic} is being removed from the worker: add it when that is done"),
            )),
            (_, Some(served)) if served.ordered != work.partitions.is_some() => Err(twice(topic)),
            (_, Some(served)) => match served.joined.clone() {
                Some(joined) => return answer(joined, done),
                None => Ok(()),
            },
            (_, None) => {
                let (tell, told) = oneshot::channel();
                let told = told.map(|told| told.unwrap_or_else(|_| Err(ended())));
                let joined = told.boxed().shared();
                answer(joined.clone(), done);
                return self.serve(work, Some(tell), Some(joined));
            }
        };
        let _ = done.send(known);
    }

    /// The next end of a topic's task; `None` when nothing is served.
    pub(super) async fn ended(&mut self) -> Option<Result<()>> {
        let ended = self.tasks.join_next().await?;
        Some(ended.map_or_else(|error| Err(panicked(&error)), |end| self.note(end)))
    }

    fn note(&mut self, (topic, outcome): (Topic, Result<()>)) -> Result<()> {
        let waiting = self.served.remove(&topic).map(|served| served.waiting);
        for done in waiting.into_iter().flatten() {
            let _ = done.send(outcome.clone().map(|()| true));
        }
        outcome
    }

    /// Asks every topic's task to end.
    pub(super) fn stop(&self) {
        self.stop.ask();
    }
}

/// Tells how joining went, once it is known.
fn answer(joined: Joined, done: oneshot::Sender<Result<()>>) {
    drop(tokio::spawn(async move { done.send(joined.await) }));
}

pub(super) fn panicked(error: &JoinError) -> Error {
    Error::new(
        ErrorKind::Internal,
        "worker-panicked",
        format!("the worker itself failed: {error}"),
    )
}
