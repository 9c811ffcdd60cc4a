//! Batch handlers: many messages at once, an outcome for each.
//!
//! Messages that come while a batch is being handled form the next one: a batch is never waited for. Each message stays a
//! request of its own, with its own reply, layers and limits; only the handler sees them together.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, join_all};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::extract::FromRef;
use crate::handler::{Route, Unbound};
use crate::worker::panic_text;
use crate::{FromRequest, IntoReply, Problem, Reply, Request, State};

/// An async function of many messages: `async fn(Vec<T>) -> R` or `async fn(State<X>, Vec<T>) -> R`, where `T` is
/// [`FromRequest`] and `R` is [`IntoReplies`].
///
/// See [`Router::on_batch`](crate::Router::on_batch).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch handler",
    label = "not a batch handler",
    note = "a batch handler is an `async fn(Vec<T>)` or `async fn(State<X>, Vec<T>)`, where `T` is an extractor like `Json<Order>`, whose result is `Vec<R>` with a reply for each message, `()`, or a `Result` of these"
)]
pub trait BatchHandler<Args, S>: Send + Sync + 'static {
    /// What it takes of each message.
    type Item: FromRequest<S> + Send;

    /// Runs the function over `items`, and makes its result so many replies.
    fn call(
        &self,
        items: Vec<Self::Item>,
        state: &S,
    ) -> impl Future<Output = Result<Vec<Reply>, Box<Reply>>> + Send;
}

impl<Function, Running, Item, R, S> BatchHandler<(Vec<Item>,), S> for Function
where
    Function: Fn(Vec<Item>) -> Running + Send + Sync + 'static,
    Running: Future<Output = R> + Send,
    Item: FromRequest<S> + Send,
    R: IntoReplies,
    S: Send + Sync,
{
    type Item = Item;

    async fn call(&self, items: Vec<Item>, _: &S) -> Result<Vec<Reply>, Box<Reply>> {
        let n = items.len();
        self(items).await.into_replies(n)
    }
}

impl<Function, Running, X, Item, R, S> BatchHandler<(State<X>, Vec<Item>), S> for Function
where
    Function: Fn(State<X>, Vec<Item>) -> Running + Send + Sync + 'static,
    Running: Future<Output = R> + Send,
    X: FromRef<S> + Send,
    Item: FromRequest<S> + Send,
    R: IntoReplies,
    S: Send + Sync,
{
    type Item = Item;

    async fn call(&self, items: Vec<Item>, state: &S) -> Result<Vec<Reply>, Box<Reply>> {
        let n = items.len();
        let running = self(State(X::from_ref(state)), items);
        running.await.into_replies(n)
    }
}

/// What a batch handler may return: a reply for each message, or the failure of all.
///
/// | type | outcome |
/// |---|---|
/// | `Vec<R>`, one for each message, in order | each its own: a reply, a failure, a next stage |
/// | `()` | 204 for each |
/// | `Result<T, E>` | either; an `Err` is the failure of the whole batch |
pub trait IntoReplies {
    /// So many replies, or the failure of the whole batch.
    fn into_replies(self, n: usize) -> Result<Vec<Reply>, Box<Reply>>;
}

impl<R: IntoReply> IntoReplies for Vec<R> {
    fn into_replies(self, n: usize) -> Result<Vec<Reply>, Box<Reply>> {
        if self.len() != n {
            let message = format!(
                "the batch handler answered {} replies to {n} messages",
                self.len()
            );
            tracing::error!(message);
            return Err(Box::new(failure("batch-mismatch", message)));
        }
        Ok(self.into_iter().map(IntoReply::into_reply).collect())
    }
}

impl IntoReplies for () {
    fn into_replies(self, n: usize) -> Result<Vec<Reply>, Box<Reply>> {
        Ok((0..n).map(|_| ().into_reply()).collect())
    }
}

impl<T: IntoReplies, E: IntoReply> IntoReplies for Result<T, E> {
    fn into_replies(self, n: usize) -> Result<Vec<Reply>, Box<Reply>> {
        match self {
            Ok(replies) => replies.into_replies(n),
            Err(failure) => Err(Box::new(failure.into_reply())),
        }
    }
}

/// A batch handler that waits for its state.
pub(super) fn unbound<H, Args, S>(max: usize, handler: H) -> Unbound<S>
where
    H: BatchHandler<Args, S>,
    S: Send + Sync + 'static,
    Args: 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |state| {
        Arc::new(Batches {
            handler: handler.clone(),
            state: state.clone(),
            max: max.max(1),
            gathering: Mutex::default(),
            args: std::marker::PhantomData,
        })
    })
}

/// A batch handler, its state, and what waits for it.
struct Batches<H, S, Args> {
    handler: Arc<H>,
    state: Arc<S>,
    max: usize,
    gathering: Mutex<Gathering>,
    args: std::marker::PhantomData<fn(Args)>,
}

#[derive(Default)]
struct Gathering {
    waiting: Vec<Waiting>,
    /// Tasks that handle batches.
    tasks: usize,
    /// Of these, those that have not taken their first one yet.
    starting: usize,
}

struct Waiting {
    request: Request,
    reply: oneshot::Sender<Reply>,
}

impl<H, S, Args> Route for Batches<H, S, Args>
where
    H: BatchHandler<Args, S>,
    S: Send + Sync + 'static,
    Args: 'static,
{
    fn call(self: Arc<Self>, request: Request) -> BoxFuture<'static, Result<Reply, Infallible>> {
        async move { Ok(self.answer(request).await) }.boxed()
    }
}

impl<H, S, Args> Batches<H, S, Args>
where
    H: BatchHandler<Args, S>,
    S: Send + Sync + 'static,
    Args: 'static,
{
    async fn answer(self: Arc<Self>, request: Request) -> Reply {
        let (reply, replied) = oneshot::channel();
        let waiting = Waiting { request, reply };
        if waiting.request.attempt() > 1 {
            // It may have stopped its worker, or taken too long: alone it can do no harm to others.
            self.handle(vec![waiting]).await;
        } else if self.join(waiting) {
            tokio::spawn(self.work());
        }
        replied.await.unwrap_or_else(|_| {
            failure(
                "batch-dropped",
                "the batch of this message was dropped".into(),
            )
        })
    }

    /// Waits with the others. Answers whether one more task is needed: when there is none, or when a full batch waits that
    /// nobody is about to take.
    fn join(&self, waiting: Waiting) -> bool {
        let mut gathering = self.gathering.lock();
        gathering.waiting.push(waiting);
        let taken = gathering.starting.saturating_mul(self.max);
        let needed = gathering.tasks == 0
            || gathering.waiting.len() - taken.min(gathering.waiting.len()) >= self.max;
        gathering.tasks += usize::from(needed);
        gathering.starting += usize::from(needed);
        needed
    }

    /// Handles batches until none waits. It ends early when all who wait for a batch are gone.
    async fn work(self: Arc<Self>) {
        // What was read together is handled together.
        tokio::task::yield_now().await;
        let mut first = true;
        while let Some(batch) = self.take(std::mem::take(&mut first)) {
            // Whatever code of the application does, this task is counted, and so has to go on.
            let handling = AssertUnwindSafe(self.handle(batch)).catch_unwind();
            if let Err(panic) = handling.await {
                tracing::error!(panic = panic_text(&*panic), "a batch was dropped");
            }
        }
    }

    fn take(&self, first: bool) -> Option<Vec<Waiting>> {
        let mut gathering = self.gathering.lock();
        gathering.starting -= usize::from(first);
        let n = gathering.waiting.len().min(self.max);
        if n == 0 {
            gathering.tasks -= 1;
            return None;
        }
        Some(gathering.waiting.drain(..n).collect())
    }

    /// Answers each of `batch`. What fails as a whole is halved, until the failure is that of one message.
    async fn handle(&self, batch: Vec<Waiting>) {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let items = self.extract(&mut part).await;
            if part.is_empty() {
                continue;
            }
            let calling = AssertUnwindSafe(self.call(items)).catch_unwind();
            let outcome = tokio::select! {
                outcome = calling => outcome,
                () = abandoned(&mut part) => continue,
            };
            let failure = match outcome {
                Ok(Ok(replies)) => {
                    for (waiting, reply) in part.into_iter().zip(replies) {
                        // Whoever waited may be gone.
                        let _ = waiting.reply.send(reply);
                    }
                    continue;
                }
                Ok(Err(failure)) => *failure,
                Err(panic) => panicked(&part[0].request, &*panic),
            };
            let rest = part.split_off(part.len() / 2);
            if !part.is_empty() {
                parts.extend([rest, part]);
            } else if let Some(alone) = rest.into_iter().next() {
                let _ = alone.reply.send(failure);
            }
        }
    }

    async fn call(&self, items: Vec<H::Item>) -> Result<Vec<Reply>, Box<Reply>> {
        self.handler.call(items, &self.state).await
    }

    /// The items of `batch`; what has none is answered, and leaves.
    async fn extract(&self, batch: &mut Vec<Waiting>) -> Vec<H::Item> {
        let mut items = Vec::with_capacity(batch.len());
        for mut waiting in std::mem::take(batch) {
            if waiting.reply.is_closed() {
                // Its time is over: it may be under way again already.
                continue;
            }
            let Waiting { request, reply } = &mut waiting;
            let extracting = async {
                let item = H::Item::from_request(request, &self.state).await;
                item.map_err(IntoReply::into_reply)
            };
            let extracted = tokio::select! {
                extracted = AssertUnwindSafe(extracting).catch_unwind() => extracted,
                () = reply.closed() => continue,
            };
            let rejection = match extracted {
                Ok(Ok(item)) => {
                    items.push(item);
                    batch.push(waiting);
                    continue;
                }
                Ok(Err(rejection)) => rejection,
                Err(panic) => panicked(request, &*panic),
            };
            let _ = waiting.reply.send(rejection);
        }
        items
    }
}

/// Waits until nobody waits for `batch` any more: their time is over, or their worker ends.
async fn abandoned(batch: &mut [Waiting]) {
    join_all(batch.iter_mut().map(|waiting| waiting.reply.closed())).await;
}

fn panicked(request: &Request, panic: &(dyn std::any::Any + Send)) -> Reply {
    let kind = request.kind();
    tracing::error!(%kind, panic = panic_text(panic), "a batch handler panicked");
    let message = format!("the handler of {kind} panicked; its log has the reason");
    failure("handler-panicked", message)
}

fn failure(code: &'static str, message: String) -> Reply {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code, message).into_reply()
}
