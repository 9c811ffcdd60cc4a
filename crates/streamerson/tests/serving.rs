//! Workers: what handlers do to them, what the broker does to them, and how they end.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use streamerson::core::retention::Retention;
use streamerson::core::retry::RetryPolicy;
use streamerson::core::time::unix_ms;
use streamerson::core::{Append, Broker, Error, ErrorKind, Start};
use streamerson::{
    Attempt, Client, Deadline, Json, Message, Meta, NoReply, Problem, Publish, Router, State,
    Worker,
};
use support::{Fault, Faulty, Serving, away, dead_letter, entries, soon, topic, unanswered, until};
use tokio::sync::Semaphore;

fn shared(broker: &Faulty) -> Arc<dyn Broker> {
    Arc::new(broker.clone())
}

async fn client(broker: &Faulty) -> Client {
    Client::open(shared(broker)).await.unwrap()
}

async fn append(broker: &Faulty, message: Message) {
    let results = broker
        .append(vec![Append::new(topic("work"), message)])
        .await;
    assert!(results[0].is_ok());
}

async fn pending(broker: &Faulty) -> u64 {
    broker.stats(&topic("work")).await.unwrap().groups[0].pending
}

/// Five attempts with delays too short to notice.
fn hasty() -> RetryPolicy {
    RetryPolicy {
        base: Duration::from_millis(1),
        ..RetryPolicy::default()
    }
}

async fn echo(Json(value): Json<Value>) -> Json<Value> {
    Json(value)
}

/// Handlers that begin, and end when they are let.
#[derive(Clone)]
struct Held {
    begun: Arc<AtomicUsize>,
    release: Arc<Semaphore>,
}

impl Held {
    fn new() -> Held {
        Held {
            begun: Arc::default(),
            release: Arc::new(Semaphore::new(0)),
        }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

async fn hold(State(held): State<Held>, Attempt(attempt): Attempt) -> Json<u32> {
    held.begun.fetch_add(1, Ordering::SeqCst);
    held.release.acquire().await.unwrap().forget();
    Json(attempt)
}

fn holding(held: &Held) -> Router {
    Router::new()
        .on("hold", hold)
        .on("echo", echo)
        .with_state(held.clone())
}

mod failures {
    use super::*;

    async fn panics() {
        panic!("as it was told");
    }

    async fn panics_later() {
        tokio::task::yield_now().await;
        panic!("as it was told");
    }

    #[tokio::test]
    async fn panics_unknown_types_and_bad_payloads_are_answered_and_the_worker_lives() {
        let broker = Faulty::default();
        let router = Router::new()
            .on("now", panics)
            .on("later", panics_later)
            .on("echo", echo);
        let serving = Serving::start(shared(&broker), router);
        let client = client(&broker).await;
        for (kind, code) in [
            ("now", "handler-panicked"),
            ("later", "handler-panicked"),
            ("missing", "unknown-type"),
            ("echo", "invalid-payload"),
        ] {
            let outcome = soon(client.request("work", kind).text("{").into_future()).await;
            assert_eq!(outcome.unwrap_err().code(), code);
        }
        let reply = client.request("work", "echo").json(&1).await.unwrap();
        assert_eq!(reply.json::<u8>().unwrap(), 1);
        let stats = serving.stats();
        assert_eq!((stats.failed, stats.dead), (4, 0));
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_in_a_layer_is_answered() {
        let broker = Faulty::default();
        let layer = tower::layer::layer_fn(|inner| {
            tower::util::MapRequest::new(inner, |_| panic!("as it was told"))
        });
        let serving = Serving::start(shared(&broker), Router::new().layer(layer));
        let client = client(&broker).await;
        let outcome = soon(client.request("work", "t").into_future()).await;
        assert_eq!(outcome.unwrap_err().code(), "handler-panicked");
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_kept_with_its_reason() {
        for (kind, payload, code, attempts) in [
            ("missing", "{}", "unknown-type", 1),
            ("echo", "{", "invalid-payload", 1),
            ("now", "{}", "handler-panicked", 5),
        ] {
            let broker = Faulty::default();
            let router = Router::new().on("now", panics).on("echo", echo);
            let serving = Serving::with(shared(&broker), router, |worker| worker.retry(hasty()));
            let sent = Message::new(kind, payload);
            append(&broker, sent.clone()).await;
            let (letter, meta) = dead_letter(&broker).await;
            assert_eq!((letter.id, letter.data), (sent.id, sent.data));
            let why = meta.dlq.unwrap();
            assert_eq!((why.code.as_str(), why.attempts), (code, attempts));
            assert_eq!(
                (why.topic.as_str(), why.group.as_str()),
                ("work", "workers")
            );
            assert!(!why.reason.is_empty());
            assert_eq!((pending(&broker).await, serving.stats().dead), (0, 1));
            serving.stop().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_failure_that_passes_is_tried_again_until_it_works() {
        async fn third_time(Attempt(attempt): Attempt) -> Result<(), Problem> {
            if attempt < 3 {
                return Err(Problem::unavailable("busy", "later"));
            }
            Ok(())
        }
        let broker = Faulty::default();
        let router = Router::new().on("t", third_time);
        let serving = Serving::with(shared(&broker), router, |worker| worker.retry(hasty()));
        append(&broker, Message::new("t", "")).await;
        until(|| serving.stats().handled == 3).await;
        assert_eq!((serving.stats().retried, serving.stats().dead), (2, 0));
        serving.stop().await.unwrap();
        assert_eq!(pending(&broker).await, 0);
    }

    #[tokio::test]
    async fn an_unreadable_meta_is_the_senders_failure() {
        let broker = Faulty::default();
        let serving = Serving::start(shared(&broker), Router::new().on("echo", echo));
        let mut message = Message::new("echo", "1");
        message.meta = "nonsense".into();
        append(&broker, message).await;
        assert_eq!(
            dead_letter(&broker).await.1.dlq.unwrap().code,
            "invalid-meta"
        );
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_message_that_stops_its_workers_is_not_handled_for_ever() {
        let broker = Faulty::default();
        let held = Held::new();
        let once = RetryPolicy {
            max_attempts: 2,
            ..RetryPolicy::default()
        };
        append(&broker, Message::new("hold", "")).await;
        for attempt in 1..=2 {
            let serving =
                Serving::with(shared(&broker), holding(&held), |worker| worker.retry(once));
            until(|| held.begun() == attempt).await;
            serving.kill().await;
        }
        let serving = Serving::with(shared(&broker), holding(&held), |worker| worker.retry(once));
        let why = dead_letter(&broker).await.1.dlq.unwrap();
        assert_eq!((why.code.as_str(), why.attempts), ("too-many-attempts", 3));
        assert_eq!(held.begun(), 2);
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn an_expired_message_is_dropped_unseen() {
        let broker = Faulty::default();
        let held = Held::new();
        let expired = Meta {
            exp: Some(1),
            ..Meta::default()
        };
        append(&broker, Message::new("hold", "").with_meta(&expired)).await;
        let serving = Serving::start(shared(&broker), holding(&held));
        until(|| serving.stats().expired == 1).await;
        serving.stop().await.unwrap();
        assert_eq!((held.begun(), pending(&broker).await), (0, 0));
    }
}

mod concurrency {
    use super::*;

    #[tokio::test]
    async fn handlers_that_never_end_leave_room_for_others_up_to_the_limit() {
        let broker = Faulty::default();
        let held = Held::new();
        let serving = Serving::with(shared(&broker), holding(&held), |worker| {
            worker.concurrency(3)
        });
        let client = client(&broker).await;
        for n in 1..=2 {
            append(&broker, Message::new("hold", "")).await;
            until(|| held.begun() == n).await;
        }
        for n in 0..100 {
            let reply = soon(client.request("work", "echo").json(&n).into_future())
                .await
                .unwrap();
            assert_eq!(reply.json::<i32>().unwrap(), n);
        }
        // At the limit, nothing more is taken: another member could have it.
        append(&broker, Message::new("hold", "")).await;
        until(|| held.begun() == 3).await;
        append(&broker, Message::new("hold", "")).await;
        assert_eq!(pending(&broker).await, 3);
        held.release.add_permits(4);
        until(|| held.begun() == 4).await;
        serving.stop().await.unwrap();
        assert_eq!(pending(&broker).await, 0);
    }

    #[tokio::test]
    async fn what_is_prefetched_waits_its_turn() {
        let broker = Faulty::default();
        let held = Held::new();
        for _ in 0..5 {
            append(&broker, Message::new("hold", "")).await;
        }
        let serving = Serving::with(shared(&broker), holding(&held), |worker| {
            worker.concurrency(1).prefetch(2)
        });
        until(|| held.begun() == 1).await;
        assert_eq!(pending(&broker).await, 3);
        for n in 2..=5 {
            assert_eq!(held.begun(), n - 1);
            held.release.add_permits(1);
            until(|| held.begun() == n).await;
        }
        held.release.add_permits(1);
        until(|| serving.stats().handled == 5).await;
        serving.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_handler_that_blocks_delays_neither_settlements_nor_leases() {
        let (entered, entering) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(parking_lot::Mutex::new((entered, released)));
        let block = move || {
            let gate = gate.clone();
            async move {
                let gate = gate.lock();
                gate.0.send(()).unwrap();
                gate.1.recv().unwrap();
            }
        };
        let broker = Faulty::default();
        let router = Router::new().on("block", block).on("echo", echo);
        let lease = Duration::from_millis(500);
        let serving = Serving::with(shared(&broker), router, |worker| worker.lease(lease));
        append(&broker, Message::new("block", "")).await;
        tokio::task::spawn_blocking(move || {
            entering.recv_timeout(Duration::from_secs(10)).unwrap()
        })
        .await
        .unwrap();

        // A rival waits for several leases, and gets only what comes next.
        let held = Held::new();
        let rival = Serving::with(shared(&broker), holding(&held), |worker| {
            worker.lease(lease)
        });
        tokio::time::sleep(2 * lease).await;
        append(&broker, Message::new("echo", "1")).await;
        until(|| rival.stats().handled == 1).await;
        // What was handled may not be settled yet.
        soon(async {
            while pending(&broker).await != 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        release.send(()).unwrap();
        until(|| serving.stats().handled == 1).await;
        serving.stop().await.unwrap();
        rival.stop().await.unwrap();
        assert_eq!(pending(&broker).await, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn handlers_that_compute_for_long_are_spread_over_tasks() {
        async fn compute(State(tasks): State<Arc<parking_lot::Mutex<Vec<tokio::task::Id>>>>) {
            tasks.lock().push(tokio::task::id());
            std::thread::sleep(Duration::from_millis(5));
        }
        let broker = Faulty::default();
        let tasks = Arc::default();
        let router = Router::new()
            .on("t", compute)
            .with_state(Arc::clone(&tasks));
        for _ in 0..20 {
            append(&broker, Message::new("t", "")).await;
        }
        let serving = Serving::start(shared(&broker), router);
        until(|| serving.stats().handled == 20).await;
        let mut ids = tasks.lock().clone();
        ids.sort_unstable_by_key(ToString::to_string);
        ids.dedup();
        assert!(
            ids.len() >= 18,
            "three at most in the reading task, then each in its own: {}",
            ids.len()
        );
        serving.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_handler_that_waited_is_settled_while_more_and_more_arrives() {
        async fn quick() -> (Publish, NoReply) {
            (Publish::to("out", "quick").text(""), NoReply)
        }
        async fn waits() -> (Publish, NoReply) {
            tokio::task::yield_now().await;
            (Publish::to("out", "waited").text(""), NoReply)
        }
        let broker = Faulty::default();
        append(&broker, Message::new("waits", "")).await;
        for _ in 0..20_000 {
            append(&broker, Message::new("quick", "")).await;
        }
        let router = Router::new().on("quick", quick).on("waits", waits);
        let serving = Serving::start(shared(&broker), router);
        until(|| serving.stats().handled == 20_001).await;
        serving.stop().await.unwrap();

        let out = topic("out");
        let mut reader = broker.read(&out, Start::Earliest).await.unwrap();
        let entries = reader.next(10_000).await.unwrap();
        assert!(
            entries
                .iter()
                .any(|entry| entry.message.as_ref().unwrap().kind == "waited")
        );
    }
}

mod faults {
    use super::*;

    /// Serves one request while the faults happen.
    async fn survives(broker: &Faulty) {
        let serving = Serving::start(shared(broker), Router::new().on("echo", echo));
        let client = client(broker).await;
        let reply = soon(client.request("work", "echo").json(&1).into_future())
            .await
            .unwrap();
        assert_eq!(reply.json::<u8>().unwrap(), 1);
        serving.stop().await.unwrap();
        assert_eq!(pending(broker).await, 0);
        assert_eq!((client.stats().answered, client.stats().late), (1, 0));
    }

    const HOUR: u64 = 3_600_000;
    const MOST_OF_AN_HOUR: Duration = Duration::from_secs(3000);

    /// Serves a request whose deadline has passed an hour ago by the clock of this machine, while the broker's says `time`.
    /// Answers whether its handler had time left.
    async fn serves_what_seems_expired(time: streamerson::Result<u64>) -> bool {
        let broker = Faulty::default();
        *broker.faults.time.lock() = Some(time);
        let has_time =
            async |deadline: Deadline| Json(deadline.remaining().unwrap() > MOST_OF_AN_HOUR);
        let serving = Serving::start(shared(&broker), Router::new().on("ask", has_time));
        let client = client(&broker).await;
        let meta = Meta {
            exp: Some(unix_ms() - HOUR),
            ..Meta::default()
        };
        let message = Message::new("ask", "").with_meta(&meta);
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        let reply = soon(client.dispatch(topic("work"), message, until)).await;
        serving.stop().await.unwrap();
        reply.unwrap().data == "true"
    }

    #[tokio::test]
    async fn deadlines_are_judged_by_the_clock_of_the_broker() {
        assert!(serves_what_seems_expired(Ok(unix_ms() - 2 * HOUR)).await);
    }

    #[tokio::test]
    async fn a_message_that_seems_expired_is_handled_while_the_broker_does_not_tell_the_time() {
        assert!(!serves_what_seems_expired(Err(away())).await);
    }

    #[tokio::test]
    async fn a_broker_that_is_away_at_the_start_is_waited_for() {
        let broker = Faulty::default();
        *broker.faults.join.lock() = vec![Fault::Refused(away()), Fault::Refused(unanswered())];
        survives(&broker).await;
    }

    #[tokio::test]
    async fn reading_goes_on_after_the_broker_was_away() {
        let broker = Faulty::default();
        *broker.faults.next.lock() = vec![Fault::Refused(away()), Fault::Refused(unanswered())];
        survives(&broker).await;
        assert!(broker.faults.next.lock().is_empty());
    }

    #[tokio::test]
    async fn a_lost_membership_is_had_again() {
        let broker = Faulty::default();
        let gone = Error::new(
            ErrorKind::NotFound,
            "group-not-found",
            "somebody removed the group",
        );
        *broker.faults.next.lock() = vec![
            Fault::Refused(gone),
            Fault::Refused(Error::closed("closed")),
        ];
        survives(&broker).await;
        assert!(broker.faults.next.lock().is_empty());
    }

    #[tokio::test]
    async fn a_settlement_that_was_not_taken_is_repeated() {
        let broker = Faulty::default();
        *broker.faults.settle.lock() = vec![Fault::Refused(away()), Fault::Refused(unanswered())];
        survives(&broker).await;
        assert!(broker.faults.settle.lock().is_empty());
    }

    #[tokio::test]
    async fn a_settlement_whose_answer_was_lost_is_answered_once() {
        let broker = Faulty::default();
        *broker.faults.settle.lock() = vec![Fault::Lost(unanswered())];
        let serving = Serving::start(shared(&broker), Router::new().on("echo", echo));
        let client = client(&broker).await;
        soon(client.request("work", "echo").json(&1).into_future())
            .await
            .unwrap();
        until(|| serving.stats().fenced == 1).await;
        assert_eq!((client.stats().answered, client.stats().late), (1, 0));
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn who_asked_is_told_when_the_broker_refuses_the_answer_and_the_work_is_not_done_again() {
        let broker = Faulty::default();
        let refused = Error::invalid("message-too-large", "the reply is too large");
        *broker.faults.settle.lock() = vec![Fault::Refused(refused)];
        let lease = Duration::from_millis(150);
        let held = Held::new();
        held.release.add_permits(10);
        let serving = Serving::with(shared(&broker), holding(&held), |worker| {
            worker.lease(lease)
        });
        let client = client(&broker).await;
        let error = soon(client.request("work", "hold").into_future())
            .await
            .unwrap_err();
        assert_eq!(error.code(), "outputs-refused");
        serving.stop().await.unwrap();
        assert_eq!(held.begun(), 1);
    }

    #[tokio::test]
    async fn a_result_the_broker_never_takes_makes_a_dead_letter_when_nobody_waits() {
        let broker = Faulty::default();
        let refused = Error::invalid("message-too-large", "the next message is too large");
        *broker.faults.settle.lock() = vec![Fault::Refused(refused)];
        let held = Held::new();
        held.release.add_permits(10);
        let serving = Serving::start(shared(&broker), holding(&held));
        append(&broker, Message::new("hold", "")).await;
        let (letter, meta) = dead_letter(&broker).await;
        let why = meta.dlq.unwrap();
        assert_eq!(
            (&letter.kind[..], &why.code[..]),
            ("hold", "outputs-refused")
        );
        assert!(why.reason.contains("message-too-large"), "{}", why.reason);
        until(|| serving.stats().dead == 1).await;
        serving.stop().await.unwrap();
        assert_eq!(held.begun(), 1);
    }

    #[tokio::test]
    async fn a_failure_the_broker_never_takes_is_counted_and_its_message_delivered_again() {
        let broker = Faulty::default();
        let refused = Error::invalid("message-too-large", "the next message is too large");
        *broker.faults.settle.lock() = vec![Fault::Refused(refused); 2];
        let lease = Duration::from_millis(150);
        let held = Held::new();
        held.release.add_permits(10);
        let serving = Serving::with(shared(&broker), holding(&held), |worker| {
            worker.lease(lease)
        });
        append(&broker, Message::new("hold", "")).await;
        until(|| held.begun() == 2).await;
        until(|| serving.stats().handled == 2).await;
        assert_eq!(serving.stats().unsettled, 1);
        serving.stop().await.unwrap();
    }

    /// A worker whose handler of `audited` also publishes to the topic `audit`, and a client; both know the topic `work`.
    async fn auditing(broker: &Faulty) -> (Serving, Client) {
        async fn audited() -> (Publish, Json<u32>) {
            (Publish::to("audit", "seen").json(&1), Json(1))
        }
        let router = Router::new().on("echo", echo).on("audited", audited);
        let serving = Serving::start(shared(broker), router);
        let client = client(broker).await;
        soon(client.request("work", "echo").json(&1).into_future())
            .await
            .unwrap();
        (serving, client)
    }

    #[tokio::test]
    async fn an_output_to_a_topic_that_may_not_be_asked_about_is_refused_for_good() {
        let broker = Faulty::default();
        let (serving, client) = auditing(&broker).await;
        let refused = Error::invalid("no-permission", "this user may not see it");
        *broker.faults.upkeep.lock() = vec![("partitions", refused); 100];
        let asked = client.request("work", "audited").into_future();
        let error = soon(asked).await.unwrap_err();
        assert_eq!(error.code(), "outputs-refused");
        serving.stop().await.unwrap();
        assert_eq!(pending(&broker).await, 0);
    }

    #[tokio::test]
    async fn an_output_whose_topic_cannot_be_asked_about_yet_holds_no_other_settlement_up() {
        let broker = Faulty::default();
        let (serving, client) = auditing(&broker).await;
        *broker.faults.upkeep.lock() = vec![("partitions", away()); 100_000];
        // More than are settled together.
        for _ in 0..300 {
            client.send("work", "audited").await.unwrap();
        }
        until(|| serving.stats().handled == 301).await;
        let echoed = client.request("work", "echo").json(&2).into_future();
        assert_eq!(soon(echoed).await.unwrap().json::<u32>().unwrap(), 2);
        broker.faults.upkeep.lock().clear();
        assert_eq!(entries(&broker, &topic("audit"), 300).await.len(), 300);
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_worker_that_cannot_settle_any_more_ends_with_the_reason() {
        let broker = Faulty::default();
        broker.faults.panics.store(true, Ordering::SeqCst);
        let serving = Serving::start(shared(&broker), Router::new().on("echo", echo));
        append(&broker, Message::new("echo", "1")).await;
        let error = serving.ended().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Internal, "worker-panicked")
        );
    }

    #[tokio::test]
    async fn a_shutdown_answers_who_is_done_before_the_slowest_is() {
        let broker = Faulty::default();
        let held = Held::new();
        let serving = Serving::with(shared(&broker), holding(&held), |worker| worker);
        let client = client(&broker).await;
        let ask = || {
            let client = client.clone();
            tokio::spawn(async move { client.request("work", "hold").await })
        };
        let slow = ask();
        until(|| held.begun() == 1).await;
        let quick = ask();
        until(|| held.begun() == 2).await;
        let stopped = tokio::spawn(serving.stop());
        held.release.add_permits(1);
        let first = soon(async {
            tokio::select! { one = slow => one, other = quick => other }
        })
        .await;
        assert!(first.unwrap().is_ok());
        assert!(!stopped.is_finished());
        held.release.add_permits(1);
        stopped.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_sign_of_life_may_get_lost() {
        let broker = Faulty::default();
        let held = Held::new();
        *broker.faults.extend.lock() = vec![Fault::Refused(away())];
        let lease = Duration::from_millis(900);
        let serving = Serving::with(shared(&broker), holding(&held), |worker| {
            worker.lease(lease)
        });
        append(&broker, Message::new("hold", "")).await;
        until(|| held.begun() == 1).await;
        let rival = Serving::with(shared(&broker), holding(&held), |worker| {
            worker.lease(lease)
        });
        tokio::time::sleep(2 * lease).await;
        assert!(broker.faults.extend.lock().is_empty());
        assert_eq!(
            held.begun(),
            1,
            "the rival took over a living holder's message"
        );
        held.release.add_permits(1);
        until(|| serving.stats().handled == 1).await;
        serving.stop().await.unwrap();
        rival.stop().await.unwrap();
    }

    #[tokio::test]
    async fn what_a_member_takes_over_from_itself_does_not_run_twice() {
        let broker = Faulty::default();
        let held = Held::new();
        *broker.faults.extend.lock() = vec![Fault::Refused(away()); 12];
        let lease = Duration::from_millis(150);
        let serving = Serving::with(shared(&broker), holding(&held), |worker| {
            worker.lease(lease)
        });
        append(&broker, Message::new("hold", "")).await;
        // Twelve signs of life are four leases.
        until(|| broker.faults.extend.lock().is_empty()).await;
        assert_eq!(held.begun(), 1);
        held.release.add_permits(1);
        until(|| serving.stats().handled == 1).await;
        serving.stop().await.unwrap();
        assert_eq!(pending(&broker).await, 0);
    }

    #[tokio::test]
    async fn a_corrupt_topic_stops_the_worker_with_the_error() {
        let broker = Faulty::default();
        let corrupt = Error::new(
            ErrorKind::Corrupt,
            "segment-corrupt",
            "segment 3 is damaged",
        );
        *broker.faults.next.lock() = vec![Fault::Refused(corrupt)];
        let serving = Serving::start(shared(&broker), Router::new());
        assert_eq!(serving.ended().await.unwrap_err().code(), "segment-corrupt");
    }
}

mod takeover {
    use super::*;

    #[tokio::test]
    async fn a_worker_lost_in_the_middle_is_replaced_and_answered_for_once() {
        let broker = Faulty::default();
        let held = Held::new();
        let first = Serving::start(shared(&broker), holding(&held));
        let client = client(&broker).await;
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.request("work", "hold").await }
        });
        until(|| held.begun() == 1).await;
        first.kill().await;
        let second = Serving::start(shared(&broker), holding(&held));
        until(|| held.begun() == 2).await;
        held.release.add_permits(2);
        let reply = soon(call).await.unwrap().unwrap();
        assert_eq!(reply.json::<u32>().unwrap(), 2);
        second.stop().await.unwrap();
        let stats = client.stats();
        assert_eq!((stats.answered, stats.late), (1, 0));
        assert_eq!(pending(&broker).await, 0);
    }

    #[tokio::test]
    async fn of_two_workers_that_finish_the_same_message_one_answers() {
        let broker = Faulty::default();
        // The first worker is cut off: none of its signs of life arrive, and it has no room to take its message again.
        let cut_off = Faulty {
            broker: broker.broker.clone(),
            ..Faulty::default()
        };
        *cut_off.faults.extend.lock() = vec![Fault::Refused(away()); 1000];
        let lease = Duration::from_millis(150);
        let (slow, fast) = (Held::new(), Held::new());
        let first = Serving::with(shared(&cut_off), holding(&slow), |worker| {
            worker.lease(lease).concurrency(1)
        });
        let client = client(&broker).await;
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.request("work", "hold").await }
        });
        until(|| slow.begun() == 1).await;
        let second = Serving::with(shared(&broker), holding(&fast), |worker| {
            worker.lease(lease)
        });
        until(|| fast.begun() == 1).await;
        // The stale one ends first and wins; the other is fenced.
        slow.release.add_permits(1);
        let reply = soon(call).await.unwrap().unwrap();
        assert_eq!(reply.json::<u32>().unwrap(), 1);
        fast.release.add_permits(1);
        until(|| second.stats().fenced == 1).await;
        first.stop().await.unwrap();
        second.stop().await.unwrap();
        assert_eq!((client.stats().answered, client.stats().late), (1, 0));
    }
}

mod shutdown {
    use super::*;

    #[tokio::test]
    async fn what_runs_is_finished_and_settled_and_nothing_more_is_taken() {
        let broker = Faulty::default();
        let held = Held::new();
        let mut serving = Serving::start(shared(&broker), holding(&held));
        let client = client(&broker).await;
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.request("work", "hold").await }
        });
        until(|| held.begun() == 1).await;
        serving.ask_to_stop();
        tokio::task::yield_now().await;
        append(&broker, Message::new("hold", "")).await;
        held.release.add_permits(1);
        soon(call).await.unwrap().unwrap();
        serving.ended().await.unwrap();
        assert_eq!(held.begun(), 1);
        let stats = broker.stats(&topic("work")).await.unwrap();
        assert_eq!((stats.groups[0].pending, stats.groups[0].lag), (0, Some(1)));
        assert!(stats.groups[0].members.is_empty());
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_goes_to_others_at_once() {
        let broker = Faulty::default();
        let held = Held::new();
        let serving = Serving::with(shared(&broker), holding(&held), |worker| {
            worker
                .drain(Duration::from_millis(20))
                .lease(Duration::from_secs(3600))
        });
        append(&broker, Message::new("hold", "")).await;
        until(|| held.begun() == 1).await;
        serving.stop().await.unwrap();
        let other = Serving::start(shared(&broker), holding(&held));
        until(|| held.begun() == 2).await;
        held.release.add_permits(1);
        until(|| other.stats().handled == 1).await;
        other.stop().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_takes_no_results_cannot_hold_a_shutdown_up() {
        let broker = Faulty::default();
        *broker.faults.settle.lock() = vec![Fault::Refused(away()); 1000];
        let serving = Serving::start(shared(&broker), Router::new().on("echo", echo));
        append(&broker, Message::new("echo", "1")).await;
        until(|| serving.stats().handled == 1).await;
        // In simulated time, longer than the bound of the other waits.
        let ended = tokio::time::timeout(Duration::from_secs(60), serving.stop()).await;
        ended.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_worker_serves_several_topics() {
    let broker = Faulty::default();
    let router = Router::new().on("echo", echo);
    let serving = Serving::with(shared(&broker), router, |worker| worker.topic("play"));
    let client = client(&broker).await;
    for topic in ["work", "play"] {
        let reply = soon(client.request(topic, "echo").json(&1).into_future())
            .await
            .unwrap();
        assert_eq!(reply.json::<u8>().unwrap(), 1);
    }
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn who_answers_nothing_leaves_the_answer_to_another_group() {
    let broker = Faulty::default();
    let watching = Router::new().on("echo", || async { NoReply });
    let watcher = Serving::with(shared(&broker), watching, |worker| worker.group("watchers"));
    let serving = Serving::start(shared(&broker), Router::new().on("echo", echo));
    let client = client(&broker).await;
    let reply = soon(
        client
            .request("work", "echo")
            .json(&json!("x"))
            .into_future(),
    )
    .await
    .unwrap();
    assert_eq!(reply.json::<Value>().unwrap(), json!("x"));
    until(|| watcher.stats().handled == 1).await;
    watcher.stop().await.unwrap();
    serving.stop().await.unwrap();
    assert_eq!(client.stats().late, 0);
}

#[tokio::test]
async fn a_pipeline_is_answered_to_the_original_caller() {
    use streamerson::{Deadline, Forward, Publish};

    async fn a(Json(n): Json<u64>) -> (Publish, Forward) {
        let seen = Publish::to("audit", "seen").json(&n);
        (seen, Forward::to("b", "b.double").json(&(2 * n)))
    }
    async fn b(Json(n): Json<u64>) -> Forward {
        Forward::to("c", "c.show").json(&(n + 1))
    }
    async fn c(Json(n): Json<u64>, deadline: Deadline) -> Json<(u64, bool)> {
        Json((n, deadline.unix_ms().is_some()))
    }
    let broker = Faulty::default();
    let router = Router::new().on("a", a).on("b.double", b).on("c.show", c);
    let serving = Serving::with(shared(&broker), router, |worker| {
        worker.topic("b").topic("c")
    });
    let client = client(&broker).await;
    let reply = soon(client.request("work", "a").json(&20).into_future())
        .await
        .unwrap();
    assert_eq!(reply.json::<(u64, bool)>().unwrap(), (41, true));
    let seen = entries(&broker, &topic("audit"), 1).await.remove(0);
    assert_eq!(
        (&*seen.kind, &seen.data[..], &*seen.reply),
        ("seen", &b"20"[..], "")
    );
    serving.stop().await.unwrap();
    assert_eq!((client.stats().answered, client.stats().late), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn processed_messages_are_trimmed_by_the_retention() {
    let broker = Faulty::default();
    let keep_two = Retention {
        max_len: Some(2),
        ..Retention::default()
    };
    let router = Router::new().on("echo", echo);
    let serving = Serving::with(shared(&broker), router, |worker| worker.retention(keep_two));
    for _ in 0..5 {
        append(&broker, Message::new("echo", "1")).await;
    }
    // In simulated time, more than a period of the trimming.
    tokio::time::timeout(Duration::from_secs(120), async {
        while serving.stats().trimmed < 3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(broker.stats(&topic("work")).await.unwrap().length, 2);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn wrong_settings_are_refused_at_the_start() {
    let worker = || {
        Worker::new(shared(&Faulty::default()))
            .topic("work")
            .group("workers")
    };
    let cases = [
        (
            Worker::new(shared(&Faulty::default())).topic("work"),
            "group-missing",
        ),
        (
            Worker::new(shared(&Faulty::default())).group("workers"),
            "topic-missing",
        ),
        (worker().topic("no topic"), "invalid-name"),
        (worker().group("no group"), "invalid-name"),
        (worker().topic("work:dlq"), "topic-reserved"),
        (worker().topic("inbox.x"), "topic-reserved"),
        (worker().concurrency(0), "invalid-concurrency"),
        (worker().lease(Duration::ZERO), "invalid-lease"),
        (worker().lease(Duration::MAX), "invalid-lease"),
    ];
    for (worker, code) in cases {
        let outcome = soon(worker.serve(Router::new()).into_future()).await;
        assert_eq!(outcome.unwrap_err().code(), code);
    }
}
