//! How members come and go: drained, dead, and of the same name.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamerson::core::{Append, Broker, ErrorKind, Lease, Leases, Name};
use streamerson::worker::WorkerHandle;
use streamerson::{Message, Router};
use support::{Fault, Faulty, Gate, Serving, away, topic, until};
use tokio::time::Instant;

const LEASE: Duration = Duration::from_millis(200);

fn shared(broker: &Faulty) -> Arc<dyn Broker> {
    Arc::new(broker.clone())
}

async fn append(broker: &Faulty, n: usize, kind: &'static str) {
    let message = || Append::new(topic("work"), Message::new(kind, "1"));
    for result in broker.append((0..n).map(|_| message()).collect()).await {
        result.unwrap();
    }
}

/// Ten deploys under load: each new worker starts, then the old one is asked to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_replaced_lose_nothing_and_do_nothing_twice() {
    let broker = Faulty::default();
    let runs: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let count = runs.clone();
    let router = Router::new().on("work", move |message: Message| {
        let count = count.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            *count.lock().entry(message.id.to_string()).or_default() += 1;
        }
    });
    let start = || {
        Serving::with(shared(&broker), router.clone(), |worker| {
            worker
                .concurrency(8)
                .prefetch(8)
                .lease(Duration::from_secs(60))
        })
    };
    let mut handled = 0;
    let mut serving = start();
    for _ in 0..10 {
        append(&broker, 100, "work").await;
        let before = serving.stats().handled;
        until(|| serving.stats().handled >= before + 20).await;
        let next = start();
        let counters = serving.counters();
        serving.stop().await.unwrap();
        handled += counters.read().handled;
        serving = next;
    }
    until(|| handled + serving.stats().handled == 1000).await;
    serving.stop().await.unwrap();
    let runs = runs.lock().clone();
    assert_eq!(runs.len(), 1000);
    assert!(
        runs.values().all(|runs| *runs == 1),
        "the lease is longer than the test"
    );
    let stats = broker.stats(&topic("work")).await.unwrap();
    assert_eq!((stats.groups[0].pending, stats.groups[0].lag), (0, Some(0)));
}

mod seats {
    use super::*;

    fn ada(broker: &Faulty, gate: &Gate) -> Serving {
        Serving::with(shared(broker), gate.router(), |worker| {
            worker.member("ada").lease(LEASE)
        })
    }

    #[tokio::test]
    async fn of_two_members_with_one_name_the_second_is_told() {
        let broker = Faulty::default();
        let (gate, other) = (Gate::new(), Gate::new());
        let first = ada(&broker, &gate);
        append(&broker, 1, "hold").await;
        until(|| gate.begun() == 1).await;
        let error = ada(&broker, &other).ended().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Conflict, "member-taken")
        );
        let named = error.detail().contains("member ada of group workers");
        assert!(named, "{error}");
        // In another group, or by another name, there is no conflict.
        for configure in [
            |worker: streamerson::Worker| worker.member("ada").group("others"),
            |worker: streamerson::Worker| worker.member("bob"),
        ] {
            let router = Router::new().fallback(|| async {});
            let serving = Serving::with(shared(&broker), router, configure);
            append(&broker, 1, "echo").await;
            until(|| serving.stats().handled + first.stats().handled > 0).await;
            serving.stop().await.unwrap();
        }
        gate.release(10);
        first.stop().await.unwrap();
        assert_eq!((gate.attempts(), other.begun()), (vec![1], 0));
    }

    #[tokio::test]
    async fn groups_and_members_whose_names_run_together_have_seats_of_their_own() {
        let broker = Faulty::default();
        let serve = |group: &'static str, member: &'static str| {
            let gate = Gate::new();
            let serving = Serving::with(shared(&broker), gate.router(), |worker| {
                worker.group(group).member(member)
            });
            (serving, gate)
        };
        let (one, of_one) = serve("shop", "eu.1");
        let (other, of_other) = serve("shop.eu", "1");
        append(&broker, 1, "hold").await;
        for gate in [of_one, of_other] {
            until(|| gate.begun() == 1).await;
            gate.release(1);
        }
        one.stop().await.unwrap();
        other.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_seat_is_free_at_once_when_it_was_left_in_order() {
        let broker = Faulty::default();
        for _ in 0..3 {
            let gate = Gate::new();
            let serving = Serving::with(shared(&broker), gate.router(), |worker| {
                worker.member("ada").lease(Duration::from_secs(3600))
            });
            append(&broker, 1, "hold").await;
            until(|| gate.begun() == 1).await;
            gate.release(1);
            serving.stop().await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_starts_again_after_a_crash_waits_for_the_seat_and_has_it() {
        let broker = Faulty::default();
        let gate = Gate::new();
        let first = ada(&broker, &gate);
        append(&broker, 1, "hold").await;
        until(|| gate.begun() == 1).await;
        first.kill().await;
        let second = ada(&broker, &gate);
        until(|| gate.begun() == 2).await;
        gate.release(2);
        until(|| second.stats().handled == 1).await;
        second.stop().await.unwrap();
    }

    async fn seat(broker: &Faulty) -> Option<Lease> {
        let leases = broker.leases(&topic("work")).await.unwrap();
        leases.into_iter().find(|lease| lease.name == ada_s_seat())
    }

    fn ada_s_seat() -> Name {
        Name::new("seat.7.workers.ada").unwrap()
    }

    /// A worker that slept through its lease wakes up, finds another one in its seat, and leaves.
    #[tokio::test]
    async fn who_lost_the_seat_takes_nothing_from_who_has_it_now() {
        let broker = Faulty::default();
        let start = |gate: &Gate| {
            Serving::with(shared(&broker), gate.router(), |worker| {
                worker
                    .member("ada")
                    .concurrency(1)
                    .lease(Duration::from_secs(2))
            })
        };
        let (gate, other) = (Gate::new(), Gate::new());
        let first = start(&gate);
        append(&broker, 1, "hold").await;
        until(|| gate.begun() == 1).await;
        let before = seat(&broker).await.unwrap().holder;
        let (work, name) = (topic("work"), ada_s_seat());
        broker.release(&work, &name, &before).await.unwrap();
        let second = start(&other);
        append(&broker, 1, "hold").await;
        until(|| other.begun() == 1).await;
        assert_ne!(seat(&broker).await.unwrap().holder, before);
        gate.release(1);
        let told = first.ended().await.unwrap_err();
        assert_eq!(told.code(), "member-taken");
        let of_bob = Gate::new();
        let bob = Serving::start(shared(&broker), of_bob.router());
        append(&broker, 1, "hold").await;
        until(|| of_bob.begun() == 1).await;
        assert_eq!(of_bob.attempts(), [1], "what the second has stays there");
        other.release(1);
        of_bob.release(1);
        second.stop().await.unwrap();
        bob.stop().await.unwrap();
    }

    #[tokio::test]
    async fn the_seat_is_kept_while_the_group_cannot_be_joined() {
        let broker = Faulty::default();
        *broker.faults.join.lock() = vec![Fault::Refused(away()); 1000];
        let gate = Gate::new();
        let serving = ada(&broker, &gate);
        until(|| broker.faults.join.lock().len() < 1000).await;
        let second = ada(&broker, &gate).ended().await.unwrap_err();
        assert_eq!(second.code(), "member-taken");
        broker.faults.join.lock().clear();
        append(&broker, 1, "hold").await;
        until(|| gate.begun() == 1).await;
        gate.release(1);
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn who_lost_the_seat_stops_and_comes_back_when_it_is_free() {
        let broker = Faulty::default();
        let gate = Gate::new();
        let serving = ada(&broker, &gate);
        append(&broker, 1, "hold").await;
        until(|| gate.begun() == 1).await;
        gate.release(1);
        let (work, seat) = (topic("work"), ada_s_seat());
        let thief = Name::new("thief").unwrap();
        let lease = broker.leases(&work).await.unwrap().remove(0);
        assert_eq!(lease.name, seat);
        // As if this one had been asleep for a lease.
        broker.release(&work, &seat, &lease.holder).await.unwrap();
        broker
            .acquire(&work, &seat, &thief, 2 * LEASE)
            .await
            .unwrap();
        tokio::time::sleep(LEASE).await;
        append(&broker, 1, "hold").await;
        assert_eq!(gate.begun(), 1);
        until(|| gate.begun() == 2).await;
        gate.release(1);
        let lease = broker.leases(&work).await.unwrap().remove(0);
        assert_ne!(lease.holder, thief);
        serving.stop().await.unwrap();
    }
}

/// All of it is bounded by the time for handlers and five seconds, by the worker's own clock.
mod an_end {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(20);
    /// Timers may be late by a millisecond.
    const BOUND: Duration = Duration::from_millis(25_002);

    /// A worker that also works on the ordered topic `orders`, where a handler holds a message; in all, `held` do.
    async fn holding(broker: &Faulty, gate: &Gate, held: usize) -> (Serving, WorkerHandle) {
        let mut handle = None;
        let serving = Serving::with(shared(broker), gate.router(), |worker| {
            handle = Some(worker.handle());
            // The broker has a clock of its own: nothing is to run out there.
            let worker = worker.lease(Duration::from_secs(3600));
            worker.ordered_topic("orders", 1).drain(DRAIN)
        });
        let message = Append::new(topic("orders.0"), Message::new("hold", "1"));
        broker.append(vec![message]).await.remove(0).unwrap();
        until(|| gate.begun() == held).await;
        (serving, handle.unwrap())
    }

    /// How long `end` takes, by a clock that goes on at once when there is nothing to do.
    async fn time<F: Future>(end: F) -> (F::Output, Duration) {
        tokio::time::pause();
        let begun = Instant::now();
        let ended = end.await;
        let took = begun.elapsed();
        tokio::time::resume();
        (ended, took)
    }

    #[tokio::test]
    async fn is_in_time_although_a_handler_never_ends() {
        let broker = Faulty::default();
        let gate = Gate::new();
        append(&broker, 1, "hold").await;
        let (serving, handle) = holding(&broker, &gate, 2).await;
        let (removed, took) = time(handle.remove_topic("orders")).await;
        assert!(removed.unwrap() && took <= BOUND, "{took:?}");
        let (stopped, took) = time(serving.stopped()).await;
        assert!(stopped.is_ok() && took <= BOUND, "{took:?}");
    }

    #[tokio::test]
    async fn is_in_time_although_the_broker_takes_no_results() {
        let broker = Faulty::default();
        let gate = Gate::new();
        // More than may wait to be repeated.
        append(&broker, 5000, "echo").await;
        *broker.faults.settle.lock() = vec![Fault::Refused(away()); 100_000];
        let (serving, handle) = holding(&broker, &gate, 1).await;
        for of in ["orders", "work"] {
            let (removed, took) = time(handle.remove_topic(of)).await;
            assert!(removed.unwrap() && took <= BOUND, "{of}: {took:?}");
        }
        let handled = serving.stats().handled;
        assert!(handled > 1024, "only {handled} were to be settled");
        let (stopped, took) = time(serving.stopped()).await;
        assert!(stopped.is_ok() && took <= BOUND, "{took:?}");
    }
}
