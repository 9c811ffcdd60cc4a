//! Ordered topics: one owner per partition, messages of a key in order, whatever happens to the workers.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use streamerson::core::broker::Capabilities;
use streamerson::core::lease::{Lease, Leases};
use streamerson::core::memory::MemoryBroker;
use streamerson::core::retention::{Retention, Trimmed};
use streamerson::core::retry::RetryPolicy;
use streamerson::core::stats::TopicStats;
use streamerson::core::{
    Append, Broker, Delivery, Entry, Fence, Inbox, Member, Membership, Meta, Name, Pending,
    Position, Reader, Result, Settler, Start, Topic, Upkeep, partition,
};
use streamerson::{
    Attempt, Client, Json, Message, NoReply, Problem, Publish, Router, State, Worker, connect,
};
use streamerson_embedded::EmbeddedBroker;
use streamerson_embedded::port::Port;
use streamerson_testkit::proxy::{Direction, Proxy};
use streamerson_testkit::redis::RedisServer;
use support::{away, entries, soon, topic, unanswered, until};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

const LEASE: Duration = Duration::from_millis(300);

/// One worker of the group `billing` on the ordered topic `orders`.
struct Replica {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<()>>,
}

impl Replica {
    fn start(broker: Arc<dyn Broker>, router: Router) -> Replica {
        Replica::with(broker, router, |worker| worker)
    }

    fn with(
        broker: Arc<dyn Broker>,
        router: Router,
        configure: impl FnOnce(Worker) -> Worker,
    ) -> Replica {
        let worker = Worker::new(broker)
            .ordered_topic("orders", 8)
            .group("billing")
            .lease(LEASE)
            .retry(RetryPolicy {
                base: Duration::from_millis(1),
                ..RetryPolicy::default()
            });
        Replica::serve(configure(worker), router)
    }

    fn serve(worker: Worker, router: Router) -> Replica {
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = worker.serve(router).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        Replica {
            stop: Some(stop),
            task: tokio::spawn(serve.into_future()),
        }
    }

    async fn stop(mut self) {
        self.stop.take();
        soon(self.task).await.unwrap().unwrap();
    }

    /// Ends it as a crash would.
    async fn kill(self) {
        self.task.abort();
        assert!(soon(self.task).await.is_err());
    }
}

/// A message of `key`, with a number as its payload.
fn numbered(key: &str, n: u64) -> Message {
    let meta = Meta {
        key: Some(key.into()),
        ..Meta::default()
    };
    Message::new("count", n.to_string()).with_meta(&meta)
}

async fn append(broker: &dyn Broker, to: &Topic, messages: Vec<Message>) {
    let batch = messages
        .into_iter()
        .map(|message| Append::new(to.clone(), message));
    for result in broker.append(batch.collect()).await {
        result.unwrap();
    }
}

/// Appends as a producer does that knows the partitions.
async fn send(broker: &dyn Broker, messages: Vec<Message>) {
    for message in messages {
        let number = partition::of(&partition::key(&message), 8);
        let to = partition::topic(&topic("orders"), number).unwrap();
        append(broker, &to, vec![message]).await;
    }
}

/// Publishes the effect of a message: its key and its number.
async fn count(message: Message) -> (Publish, NoReply) {
    let key = partition::key(&message).to_string();
    let n: u64 = std::str::from_utf8(&message.data).unwrap().parse().unwrap();
    (Publish::to("effects", "counted").json(&(key, n)), NoReply)
}

/// The first `n` effects, by key, in order.
async fn effects(broker: &dyn Broker, n: usize) -> BTreeMap<String, Vec<u64>> {
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in entries(broker, &topic("effects"), n).await {
        let (key, n): (String, u64) = serde_json::from_slice(&message.data).unwrap();
        by_key.entry(key).or_default().push(n);
    }
    by_key
}

async fn pending(broker: &dyn Broker) -> u64 {
    let mut pending = 0;
    for number in 0..8 {
        let of = partition::topic(&topic("orders"), number).unwrap();
        if let Ok(stats) = broker.stats(&of).await {
            pending += stats.groups.iter().map(|group| group.pending).sum::<u64>();
        }
    }
    pending
}

/// Waits until nothing is delivered and not settled.
async fn settled(broker: &dyn Broker) {
    soon(async {
        while pending(broker).await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Who owns how many of the partitions, says the broker.
async fn owners(broker: &dyn Broker) -> BTreeMap<Name, usize> {
    let mut owners = BTreeMap::new();
    for number in 0..8 {
        let of = partition::topic(&topic("orders"), number).unwrap();
        let leases = broker.leases(&of).await.unwrap();
        for lease in leases
            .into_iter()
            .filter(|lease| lease.name.as_str() == "owner.billing")
        {
            *owners.entry(lease.holder).or_default() += 1;
        }
    }
    owners
}

/// Waits until the partitions are shared like this.
async fn shared_as(broker: &dyn Broker, shares: &[usize]) {
    soon(async {
        while !owners(broker)
            .await
            .into_values()
            .eq(shares.iter().copied())
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Counts, and notes which attempts there were, and how often.
type Attempts = Arc<Mutex<HashMap<u32, u64>>>;

async fn note(
    State(attempts): State<Attempts>,
    Attempt(attempt): Attempt,
    message: Message,
) -> (Publish, NoReply) {
    *attempts.lock().entry(attempt).or_default() += 1;
    tokio::time::sleep(Duration::from_millis(1)).await;
    count(message).await
}

/// Handlers that begin, and end when they are let.
#[derive(Clone, Default)]
struct Held {
    begun: Arc<AtomicU64>,
    release: Arc<Mutex<Option<Arc<Semaphore>>>>,
}

impl Held {
    fn new() -> Held {
        let held = Held::default();
        *held.release.lock() = Some(Arc::new(Semaphore::new(0)));
        held
    }

    fn release(&self) {
        if let Some(semaphore) = self.release.lock().take() {
            semaphore.add_permits(Semaphore::MAX_PERMITS / 2);
        }
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }
}

async fn hold(State(held): State<Held>, message: Message) -> (Publish, NoReply) {
    held.begun.fetch_add(1, Ordering::SeqCst);
    let semaphore = held.release.lock().clone();
    if let Some(semaphore) = semaphore {
        semaphore.acquire().await.unwrap().forget();
    }
    count(message).await
}

/// Replicas join, leave and die while a producer sends: every message has one effect, in the order of its key.
async fn crowd(broker: Arc<dyn Broker>) {
    crowd_through(broker.clone(), broker, LEASE).await;
}

/// The same, with workers that see the broker through `shared`.
async fn crowd_through(broker: Arc<dyn Broker>, shared: Arc<dyn Broker>, lease: Duration) {
    const KEYS: u64 = 20;
    const EACH: u64 = 60;
    let broker = &*broker;
    let router = Router::new().on("count", count);
    let start = || Replica::with(shared.clone(), router.clone(), |worker| worker.lease(lease));
    let sending = async {
        for n in 0..EACH {
            let batch = (0..KEYS).map(|key| numbered(&format!("k{key}"), n));
            send(broker, batch.collect()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let crowd = async {
        let reached = async |share: u64| {
            soon(entries(
                broker,
                &topic("effects"),
                (KEYS * EACH * share / 100) as usize,
            ))
            .await;
        };
        let first = start();
        reached(5).await;
        let second = start();
        reached(15).await;
        let third = start();
        reached(30).await;
        first.kill().await;
        reached(45).await;
        let fourth = start();
        reached(55).await;
        second.stop().await;
        reached(70).await;
        fourth.kill().await;
        (third, start())
    };
    let ((third, fifth), ()) = tokio::join!(crowd, sending);
    let effects = soon(effects(broker, (KEYS * EACH) as usize)).await;
    settled(broker).await;
    third.stop().await;
    fifth.stop().await;
    assert_eq!(effects.len() as u64, KEYS);
    for (key, numbers) in effects {
        assert_eq!(numbers, (0..EACH).collect::<Vec<_>>(), "{key}");
    }
    let stats = broker.stats(&topic("effects")).await.unwrap();
    assert_eq!(stats.length, KEYS * EACH, "each message had one effect");
}

mod keys_keep_their_order_while_replicas_join_leave_and_die {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_memory() {
        crowd(Arc::new(MemoryBroker::new())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("embedded:{}", folder.path().display());
        crowd(connect(&url).await.unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_redis() {
        let server = RedisServer::start().await;
        crowd(connect(&server.url()).await.unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_redis_with_connections_that_break_in_the_middle_of_an_answer() {
        let server = RedisServer::start().await;
        let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into())
            .await
            .unwrap();
        let direct = connect(&server.url()).await.unwrap();
        let url = format!("redis://{}", proxy.address());
        let through = connect(&url).await.unwrap();
        let breaking = async {
            for bytes in [700, 2900, 5100, 300, 9300, 1500] {
                let seen = proxy.accepted();
                proxy.cut_after(Direction::ToClient, bytes);
                proxy.accepted_at_least(seen + 1).await;
                // Longer than clients wait before they come again.
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = crowd_through(direct, through, Duration::from_secs(1)) => (),
            () = breaking => (),
        }
        assert!(proxy.accepted() > 20, "connections did break");
    }
}

#[tokio::test]
async fn only_the_failing_key_waits_and_it_goes_on_after_its_dead_letter() {
    async fn fail_zero(
        Attempt(attempt): Attempt,
        message: Message,
    ) -> Result<(Publish, NoReply), Problem> {
        if &message.data[..] == b"0" && &*partition::key(&message) == "bad" {
            return Err(Problem::unavailable("busy", format!("attempt {attempt}")));
        }
        Ok(count(message).await)
    }
    let broker = MemoryBroker::new();
    let shared: Arc<dyn Broker> = Arc::new(broker.clone());
    let router = Router::new().on("count", fail_zero);
    // All in one partition, so that only lanes keep them apart.
    let keys: Vec<String> = (0..)
        .map(|n| format!("k{n}"))
        .filter(|key| partition::of(key, 8) == partition::of("bad", 8))
        .take(3)
        .collect();
    let mut messages = Vec::new();
    for n in 0..10 {
        messages.push(numbered("bad", n));
        messages.extend(keys.iter().map(|key| numbered(key, n)));
    }
    send(&broker, messages).await;
    let replica = Replica::with(shared, router, |worker| {
        worker.retry(RetryPolicy {
            base: Duration::from_millis(200),
            max_attempts: 2,
            jitter: 0.0,
            ..RetryPolicy::default()
        })
    });
    let others = soon(effects(&broker, 30)).await;
    assert!(
        !others.contains_key("bad"),
        "the others did not wait for it"
    );
    let all = soon(effects(&broker, 39)).await;
    replica.stop().await;
    assert_eq!(all["bad"], (1..10).collect::<Vec<_>>());
    let letters = partition::topic(&topic("orders"), partition::of("bad", 8))
        .unwrap()
        .dead_letters();
    let letter = soon(entries(&broker, &letters, 1)).await.remove(0);
    let why = letter.parse_meta().unwrap().dlq.unwrap();
    assert_eq!((why.attempts, why.code.as_str()), (2, "busy"));
}

#[tokio::test]
async fn after_a_restart_a_key_still_waits_for_its_retry() {
    async fn first_fails(
        Attempt(attempt): Attempt,
        message: Message,
    ) -> Result<(Publish, NoReply), Problem> {
        if attempt == 1 && &message.data[..] == b"0" {
            return Err(Problem::unavailable("busy", "later"));
        }
        Ok(count(message).await)
    }
    let broker = MemoryBroker::new();
    let shared: Arc<dyn Broker> = Arc::new(broker.clone());
    let start = || {
        Replica::with(
            shared.clone(),
            Router::new().on("count", first_fails),
            |worker| {
                worker.retry(RetryPolicy {
                    base: Duration::from_millis(700),
                    jitter: 0.0,
                    ..RetryPolicy::default()
                })
            },
        )
    };
    let first = start();
    send(&broker, vec![numbered("a", 0), numbered("b", 7)]).await;
    soon(effects(&broker, 1)).await;
    let of_a = partition::topic(&topic("orders"), partition::of("a", 8)).unwrap();
    let group = Name::new("billing").unwrap();
    soon(async {
        let parked = async || {
            broker
                .pending(&of_a, &group, Position::ZERO, 9)
                .await
                .is_ok_and(|held| held.first().is_some_and(|held| held.due.is_some()))
        };
        while !parked().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    first.stop().await;
    send(&broker, (1..5).map(|n| numbered("a", n)).collect()).await;
    let second = start();
    let effects = soon(effects(&broker, 6)).await;
    second.stop().await;
    assert_eq!(effects["a"], [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_partition_changes_hands_without_anything_being_done_twice() {
    let broker = MemoryBroker::new();
    let shared: Arc<dyn Broker> = Arc::new(broker.clone());
    let attempts = Attempts::default();
    let router = Router::new().on("count", note).with_state(attempts.clone());
    // Long enough that a busy machine does not cost a lease.
    let start = || {
        Replica::with(shared.clone(), router.clone(), |worker| {
            worker.lease(Duration::from_secs(3))
        })
    };
    let first = start();
    for n in 0..50 {
        send(
            &broker,
            (0..8).map(|key| numbered(&format!("k{key}"), n)).collect(),
        )
        .await;
    }
    soon(entries(&broker, &topic("effects"), 40)).await;
    let second = start();
    soon(entries(&broker, &topic("effects"), 200)).await;
    first.stop().await;
    let effects = soon(effects(&broker, 400)).await;
    second.stop().await;
    for (key, numbers) in effects {
        assert_eq!(numbers, (0..50).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(*attempts.lock(), HashMap::from([(1, 400)]));
}

/// Both replicas work on the topic from when they are told to until they are told not to.
async fn added_and_removed(broker: Arc<dyn Broker>) {
    const EACH: u64 = 30;
    let attempts = Attempts::default();
    let router = Router::new().on("count", note).with_state(attempts.clone());
    let start = || {
        // Long enough that what is handed over was released, and did not run out.
        let lease = Duration::from_secs(20);
        let worker = Worker::new(broker.clone()).group("billing").lease(lease);
        let handle = worker.handle();
        (Replica::serve(worker, router.clone()), handle)
    };
    let ((first, leaves), (second, stays)) = (start(), start());
    for handle in [&leaves, &stays, &leaves] {
        soon(handle.add_ordered_topic("orders", 8)).await.unwrap();
    }
    let orders = topic("orders");
    assert_eq!(soon(broker.partitions(&orders)).await.unwrap(), 8);
    shared_as(&*broker, &[4, 4]).await;

    let sending = async {
        for n in 0..EACH {
            let batch = (0..8).map(|key| numbered(&format!("k{key}"), n));
            send(&*broker, batch.collect()).await;
        }
    };
    let removal = async {
        soon(entries(&*broker, &topic("effects"), 40)).await;
        assert!(soon(leaves.remove_topic("orders")).await.unwrap());
    };
    tokio::join!(sending, removal);
    shared_as(&*broker, &[8]).await;
    assert!(!soon(leaves.remove_topic("orders")).await.unwrap());
    let effects = soon(effects(&*broker, 8 * EACH as usize)).await;
    for (key, numbers) in effects {
        assert_eq!(numbers, (0..EACH).collect::<Vec<_>>(), "{key}");
    }
    // What was on its way when the removal began was delivered again, and handled once.
    assert_eq!(attempts.lock().values().sum::<u64>(), 8 * EACH);

    soon(leaves.add_ordered_topic("orders", 8)).await.unwrap();
    shared_as(&*broker, &[4, 4]).await;
    first.stop().await;
    second.stop().await;
    shared_as(&*broker, &[]).await;
}

mod a_topic_added_at_run_time_is_shared_in_order_and_handed_over_when_it_is_removed {
    use super::*;

    #[tokio::test]
    async fn in_memory() {
        added_and_removed(Arc::new(MemoryBroker::new())).await;
    }

    #[tokio::test]
    async fn embedded() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("embedded:{}", folder.path().display());
        added_and_removed(connect(&url).await.unwrap()).await;
    }

    #[tokio::test]
    async fn on_redis() {
        let server = RedisServer::start().await;
        added_and_removed(connect(&server.url()).await.unwrap()).await;
    }
}

/// The lease of the only partition of `orders`, if it has an owner.
async fn owner(broker: &dyn Broker) -> Option<Lease> {
    let of = partition::topic(&topic("orders"), 0).unwrap();
    let leases = soon(broker.leases(&of)).await.unwrap();
    let mut leases = leases.into_iter();
    leases.find(|lease| lease.name.as_str() == "owner.billing")
}

/// Waits until so many members know of each other.
async fn seats(broker: &dyn Broker, n: usize) {
    soon(async {
        let is_seat = |lease: &Lease| lease.name.as_str().starts_with("share.");
        let seats = async || {
            let leases = broker.leases(&topic("orders")).await.unwrap();
            leases.iter().filter(|lease| is_seat(lease)).count()
        };
        while seats().await < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Three replicas, of which the first owns the only partition and has `a` in hand; the handlers of the third end at once.
async fn crowd_of_three(
    brokers: [Arc<dyn Broker>; 3],
    lease: Duration,
) -> ([Replica; 3], [Held; 3]) {
    let held = [Held::new(), Held::new(), Held::default()];
    let mut replicas = Vec::new();
    for (n, (broker, held)) in brokers.into_iter().zip(&held).enumerate() {
        let worker = Worker::new(broker.clone())
            .ordered_topic("orders", 1)
            .group("billing")
            .lease(lease);
        let router = Router::new().on("count", hold).with_state(held.clone());
        replicas.push(Replica::serve(worker, router));
        // Their names begin with the time: who is there first comes first.
        seats(&*broker, n + 1).await;
        if n == 0 {
            append(&*broker, &topic("orders.0"), vec![numbered("a", 1)]).await;
            until(|| held.begun() == 1).await;
        }
    }
    (replicas.try_into().ok().unwrap(), held)
}

/// The owner of a partition is killed with work in hand, and so is who would be next, shortly before the lease ends.
async fn owners_killed(broker: Arc<dyn Broker>) {
    let lease = Duration::from_secs(2);
    let brokers = std::array::from_fn(|_| broker.clone());
    let ([first, second, third], held) = crowd_of_three(brokers, lease).await;
    first.kill().await;
    let lost = owner(&*broker).await.unwrap();
    let end = Instant::now() + lost.remaining;
    tokio::time::sleep_until(end - lease / 20).await;
    second.kill().await;
    let gained = soon(async {
        loop {
            match owner(&*broker).await {
                Some(owner) if owner.holder != lost.holder => return owner,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    })
    .await;
    // The broker says how long ago it was acquired, however late that was seen.
    let waited = (Instant::now() - (lease - gained.remaining)).saturating_duration_since(end);
    assert!(waited < lease / 2, "nobody's for {waited:?}");
    assert_eq!(soon(effects(&*broker, 1)).await["a"], [1]);
    assert_eq!(held.map(|held| held.begun()), [1, 0, 1]);
    third.stop().await;
}

mod the_work_of_killed_owners_goes_on_when_the_lease_of_the_last_one_ends {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("embedded:{}", folder.path().display());
        owners_killed(connect(&url).await.unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_redis() {
        let server = RedisServer::start().await;
        owners_killed(connect(&server.url()).await.unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_of_killed_owners_goes_on_at_once_where_the_broker_sees_their_connections_close() {
    let broker = EmbeddedBroker::in_memory();
    let namespace = Name::new("streamerson").unwrap();
    let port = Port::bind(([127, 0, 0, 1], 0).into(), broker.clone(), namespace).unwrap();
    let url = format!("redis://{}", port.local_addr());
    let _serving = AbortOnDropHandle::new(tokio::spawn(port.serve(std::future::pending())));
    // Nobody waits here until it has run out.
    let lease = Duration::from_secs(60);
    let mut brokers = Vec::new();
    for _ in 0..3 {
        brokers.push(connect(&url).await.unwrap());
    }
    let brokers = brokers.try_into().unwrap();
    let ([first, second, third], held) = crowd_of_three(brokers, lease).await;
    first.kill().await;
    second.kill().await;
    assert_eq!(soon(effects(&broker, 1)).await["a"], [1]);
    assert_eq!(held.map(|held| held.begun()), [1, 0, 1]);
    third.stop().await;
}

#[tokio::test]
async fn what_a_stale_owner_still_does_has_no_effect() {
    let broker = Cut::default();
    let (stale, fresh) = (Held::new(), Held::default());
    let first = Replica::start(
        Arc::new(broker.clone()),
        Router::new().on("count", hold).with_state(stale.clone()),
    );
    send(&broker.broker, vec![numbered("a", 1)]).await;
    until(|| stale.begun() == 1).await;

    // Its signs of life do not arrive any more; what it settles would.
    broker.cut.store(true, Ordering::SeqCst);
    let second = Replica::start(
        Arc::new(broker.broker.clone()),
        Router::new().on("count", hold).with_state(fresh.clone()),
    );
    soon(effects(&broker.broker, 1)).await;
    stale.release();
    send(&broker.broker, vec![numbered("a", 2)]).await;
    let effects = soon(effects(&broker.broker, 2)).await;
    assert_eq!(effects["a"], [1, 2]);
    assert_eq!(
        stale.begun(),
        1,
        "nothing more is begun by who lost the lease"
    );
    settled(&broker.broker).await;
    second.stop().await;
    first.kill().await;
    assert_eq!(
        broker.broker.stats(&topic("effects")).await.unwrap().length,
        2
    );
}

#[tokio::test]
async fn what_is_sent_to_the_topic_as_a_whole_is_forwarded_in_order() {
    let broker = MemoryBroker::new();
    let shared: Arc<dyn Broker> = Arc::new(broker.clone());
    let orders = topic("orders");
    append(
        &broker,
        &orders,
        (0..50)
            .map(|n| numbered(["a", "b", "c"][n as usize % 3], n))
            .collect(),
    )
    .await;
    let router = Router::new().on("count", count);
    let replicas = [
        Replica::start(shared.clone(), router.clone()),
        Replica::start(shared.clone(), router),
    ];
    append(
        &broker,
        &orders,
        (50..300)
            .map(|n| numbered(["a", "b", "c"][n as usize % 3], n))
            .collect(),
    )
    .await;
    let effects = soon(effects(&broker, 300)).await;
    for (first, numbers) in effects.values().enumerate() {
        let expected: Vec<u64> = (0..300).filter(|n| *n as usize % 3 == first).collect();
        assert_eq!(*numbers, expected);
    }
    for replica in replicas {
        replica.stop().await;
    }
    let stats = broker.stats(&orders).await.unwrap();
    assert_eq!((stats.groups[0].pending, stats.groups[0].lag), (0, Some(0)));
}

#[tokio::test]
async fn clients_and_handlers_send_to_the_partition_of_the_key() {
    async fn double(Json(n): Json<u64>) -> Json<u64> {
        Json(2 * n)
    }
    async fn pass(message: Message) -> (Publish, NoReply) {
        (
            Publish::to("orders", "count")
                .key("from a handler")
                .json(&message.data.len()),
            NoReply,
        )
    }
    let broker = MemoryBroker::new();
    let shared: Arc<dyn Broker> = Arc::new(broker.clone());
    let router = Router::new().on("count", count).on("double", double);
    broker.divide(&topic("orders"), 8).await.unwrap();
    let replica = Replica::start(shared.clone(), router);
    let queue = Worker::new(shared.clone())
        .topic("work")
        .group("passers")
        .serve(Router::new().on("pass", pass));
    let queue = tokio::spawn(queue.into_future());
    let client = Client::open(shared).await.unwrap();
    for n in 0..3u64 {
        client
            .send("orders", "count")
            .key("a")
            .json(&n)
            .await
            .unwrap();
    }
    client.send("work", "pass").text("seven b").await.unwrap();
    assert_eq!(soon(effects(&broker, 4)).await["a"], [0, 1, 2]);
    let reply = soon(
        client
            .request("orders", "double")
            .key("a")
            .json(&21)
            .into_future(),
    )
    .await
    .unwrap();
    assert_eq!(reply.json::<u64>().unwrap(), 42);
    let reply = soon(client.request("orders", "double").json(&4).into_future())
        .await
        .unwrap();
    assert_eq!(
        reply.json::<u64>().unwrap(),
        8,
        "a message without a key has a partition too"
    );
    replica.stop().await;
    queue.abort();
    assert_eq!(broker.stats(&topic("orders")).await.unwrap().length, 0);
    let of_a = partition::topic(&topic("orders"), partition::of("a", 8)).unwrap();
    assert!(broker.stats(&of_a).await.unwrap().length >= 4);
}

#[tokio::test]
async fn a_key_with_more_messages_than_there_is_room_for_keeps_its_order() {
    async fn slow_start(
        Attempt(attempt): Attempt,
        message: Message,
    ) -> Result<(Publish, NoReply), Problem> {
        if attempt < 3 && &message.data[..] == b"0" {
            return Err(Problem::unavailable("busy", "later"));
        }
        Ok(count(message).await)
    }
    let broker = MemoryBroker::new();
    let shared: Arc<dyn Broker> = Arc::new(broker.clone());
    send(&broker, (0..3000).map(|n| numbered("a", n)).collect()).await;
    let router = Router::new().on("count", slow_start);
    let replica = Replica::with(shared, router, |worker| {
        worker.retry(RetryPolicy {
            base: Duration::from_millis(300),
            jitter: 0.0,
            ..RetryPolicy::default()
        })
    });
    // The bound on what waits, and a little more for the attempts.
    soon(async {
        while pending(&broker).await < 1000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(pending(&broker).await <= 1010);
    let effects = soon(effects(&broker, 3000)).await;
    replica.stop().await;
    assert_eq!(effects["a"], (0..3000).collect::<Vec<_>>());
}

#[tokio::test]
async fn wrong_settings_are_refused() {
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
    let worker = || Worker::new(broker.clone()).group("billing");
    for (worker, code) in [
        (worker().ordered_topic("orders", 0), "invalid-partitions"),
        (worker().ordered_topic("orders", 2000), "invalid-partitions"),
        (worker().ordered_topic("orders:dlq", 4), "topic-reserved"),
        (
            worker().ordered_topic("orders", 4).topic("orders"),
            "topic-twice",
        ),
    ] {
        let error = soon(worker.serve(Router::new()).into_future())
            .await
            .unwrap_err();
        assert_eq!(error.code(), code);
    }
}

#[tokio::test]
async fn an_answer_that_got_lost_does_not_change_the_order() {
    let broker = Cut::default();
    send(&broker.broker, (0..3).map(|n| numbered("a", n)).collect()).await;
    broker.lose.store(true, Ordering::SeqCst);
    let replica = Replica::start(Arc::new(broker.clone()), Router::new().on("count", count));
    until(|| !broker.lose.load(Ordering::SeqCst)).await;
    send(&broker.broker, (3..6).map(|n| numbered("a", n)).collect()).await;
    send(&broker.broker, vec![numbered("b", 0)]).await;
    let effects = soon(effects(&broker.broker, 7)).await;
    replica.stop().await;
    assert_eq!(effects["a"], [0, 1, 2, 3, 4, 5]);
}

/// The in-memory broker, with members whose requests for leases do not arrive, or which lose what they were given.
#[derive(Debug, Clone, Default)]
struct Cut {
    broker: MemoryBroker,
    cut: Arc<AtomicBool>,
    /// The next delivery gets lost.
    lose: Arc<AtomicBool>,
}

struct Losing {
    member: Box<dyn Member>,
    lose: Arc<AtomicBool>,
}

impl Member for Losing {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        async move {
            let given = self.member.next(max).await?;
            match self.lose.swap(false, Ordering::SeqCst) {
                true => Err(unanswered()),
                false => Ok(given),
            }
        }
        .boxed()
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.member.settler()
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.member.leave()
    }
}

impl Leases for Cut {
    fn acquire<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease>> {
        if self.cut.load(Ordering::SeqCst) {
            return std::future::ready(Err(away())).boxed();
        }
        self.broker.acquire(topic, name, holder, ttl)
    }

    fn release<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        self.broker.release(topic, name, holder)
    }

    fn leases<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Lease>>> {
        self.broker.leases(topic)
    }
}

streamerson_testkit::pass_on! { Cut, broker, Upkeep;
    range(topic: &'a Topic, after: Position, max: usize) -> Vec<Entry>;
    pending(topic: &'a Topic, group: &'a Name, after: Position, max: usize) -> Vec<Pending>;
    seek(topic: &'a Topic, group: &'a Name, to: Start, fence: Option<&'a Fence>) -> ();
    take(topic: &'a Topic, position: Position, outputs: Vec<Append>) -> bool;
    remove_group(topic: &'a Topic, group: &'a Name) -> bool;
    remove_topic(topic: &'a Topic) -> bool;
    remove_members(topic: &'a Topic, group: &'a Name, silent: Duration) -> Vec<Name>;
    divide(topic: &'a Topic, partitions: u32) -> u32;
    partitions(topic: &'a Topic) -> u32;
}

impl Broker for Cut {
    fn capabilities(&self) -> &Capabilities {
        self.broker.capabilities()
    }

    fn time(&self) -> BoxFuture<'_, Result<u64>> {
        self.broker.time()
    }

    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
        self.broker.append(batch)
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
        self.broker.read(topic, start)
    }

    fn join(&self, membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        async move {
            let member = self.broker.join(membership).await?;
            let lose = self.lose.clone();
            Ok(Box::new(Losing { member, lose }) as Box<dyn Member>)
        }
        .boxed()
    }

    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
        self.broker.inbox()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.broker.topics()
    }

    fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
        self.broker.stats(topic)
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Trimmed>> {
        self.broker.trim(topic, retention)
    }
}
