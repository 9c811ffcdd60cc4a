//! Bounds: what a worker takes, how fast it begins, and what hangs.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use streamerson::core::{Append, Broker, ErrorKind, Meta, Topic, partition};
use streamerson::{Attempt, Client, Message, Router, State};
use support::{Faulty, Gate, Serving, dead_letter, soon, topic, until};

fn shared(broker: &Faulty) -> Arc<dyn Broker> {
    Arc::new(broker.clone())
}

async fn append(broker: &Faulty, to: &str, messages: impl IntoIterator<Item = Message>) {
    let batch = messages
        .into_iter()
        .map(|message| Append::new(topic(to), message))
        .collect();
    for result in broker.append(batch).await {
        result.unwrap();
    }
}

async fn pending(broker: &Faulty, of: &str) -> u64 {
    broker.stats(&topic(of)).await.unwrap().groups[0].pending
}

/// `n` messages of `size` bytes for the handler `hold`.
fn large(n: usize, size: usize) -> impl Iterator<Item = Message> {
    std::iter::repeat_with(move || Message::new("hold", vec![b'x'; size])).take(n)
}

mod prefetch {
    use super::*;

    #[tokio::test]
    async fn bytes_bound_what_waits() {
        let broker = Faulty::default();
        let gate = Gate::new();
        append(&broker, "work", large(51, 1000)).await;
        let serving = Serving::with(shared(&broker), gate.router(), |worker| {
            worker.concurrency(1).prefetch(100).prefetch_bytes(5500)
        });
        until(|| gate.begun() == 1).await;
        soon(async {
            while pending(&broker, "work").await != 6 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // One more ends, one more is taken.
        for ended in 1..=20 {
            gate.release(1);
            until(|| gate.begun() == ended + 1).await;
            assert!(pending(&broker, "work").await <= 7);
        }
        gate.release(100);
        until(|| serving.stats().handled == 51).await;
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_message_larger_than_the_bound_passes_alone() {
        let broker = Faulty::default();
        let gate = Gate::new();
        append(&broker, "work", large(1, 16 << 20)).await;
        let serving = Serving::with(shared(&broker), gate.router(), |worker| {
            worker.concurrency(1).prefetch(100).prefetch_bytes(1 << 20)
        });
        until(|| gate.begun() == 1).await;
        append(&broker, "work", large(2, 16 << 20)).await;
        for begun in 1..=3 {
            until(|| gate.begun() == begun).await;
            // The one before may not be settled yet; what is held beyond this one would never go.
            soon(async {
                while pending(&broker, "work").await != 1 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            gate.release(1);
        }
        until(|| serving.stats().handled == 3).await;
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_worker_that_is_full_does_not_read() {
        let broker = Faulty::default();
        let gate = Gate::new();
        append(&broker, "work", large(1000, 1)).await;
        let serving = Serving::with(shared(&broker), gate.router(), |worker| {
            worker.concurrency(4).prefetch(8)
        });
        until(|| gate.begun() == 4).await;
        for begun in 4..200 {
            assert!(pending(&broker, "work").await <= 12);
            gate.release(1);
            until(|| gate.begun() > begun).await;
        }
        gate.release(1000);
        until(|| serving.stats().handled == 1000).await;
        serving.stop().await.unwrap();
    }
}

mod prefetch_of_ordered_topics {
    use super::*;

    const PARTITIONS: u32 = 8;

    fn part(number: u32) -> Topic {
        partition::topic(&topic("orders"), number).unwrap()
    }

    /// `n` messages of about `size` bytes for each partition, of one key each: all but the first wait.
    async fn fill(broker: &Faulty, n: usize, size: usize) {
        for number in 0..PARTITIONS {
            let key = number.to_string();
            let meta = Meta {
                key: Some(key),
                ..Meta::default()
            };
            let messages = large(n, size).map(|message| message.with_meta(&meta));
            append(broker, part(number).as_str(), messages).await;
        }
    }

    /// How many messages the worker holds.
    async fn held(broker: &Faulty) -> u64 {
        let mut held = 0;
        for number in 0..PARTITIONS {
            // Nobody may have joined it yet.
            let groups = broker.stats(&part(number)).await.unwrap().groups;
            held += groups.iter().map(|group| group.pending).sum::<u64>();
        }
        held
    }

    async fn held_at_least(broker: &Faulty, n: u64) {
        soon(async {
            while held(broker).await < n {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// A worker with more handlers than keys, so that it goes on reading.
    fn serve(broker: &Faulty, gate: &Gate, bytes: usize) -> Serving {
        Serving::with(shared(broker), gate.router(), |worker| {
            let worker = worker.ordered_topic("orders", PARTITIONS);
            worker.prefetch_bytes(bytes)
        })
    }

    #[tokio::test]
    async fn bytes_bound_what_waits_in_all_partitions_together() {
        let broker = Faulty::default();
        let gate = Gate::new();
        fill(&broker, 50, 1000).await;
        let serving = serve(&broker, &gate, 80_000);
        held_at_least(&broker, 10 * 8).await;
        for ended in 0..200 {
            // Those that run, those that wait, and those that ended and may not be settled yet.
            assert!(held(&broker).await <= 8 + 80 + 8);
            gate.release(1);
            until(|| gate.begun() > 8 + ended).await;
        }
        gate.release(400);
        until(|| serving.stats().handled == 400).await;
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_message_larger_than_the_bound_passes_alone_in_each_partition() {
        let broker = Faulty::default();
        let gate = Gate::new();
        fill(&broker, 5, 10_000).await;
        let serving = serve(&broker, &gate, 5000);
        held_at_least(&broker, 2 * 8).await;
        for ended in 0..32 {
            assert!(held(&broker).await <= 3 * 8);
            gate.release(1);
            until(|| gate.begun() > 8 + ended).await;
        }
        gate.release(8);
        until(|| serving.stats().handled == 40).await;
        serving.stop().await.unwrap();
    }
}

mod fairness {
    use super::*;

    #[tokio::test]
    async fn a_topic_whose_handlers_hang_does_not_keep_the_others_waiting() {
        let broker = Faulty::default();
        let gate = Gate::new();
        append(&broker, "work", large(500, 1)).await;
        let serving = Serving::with(shared(&broker), gate.router(), |worker| {
            worker.topic("play").concurrency(2).prefetch(10)
        });
        until(|| gate.begun() == 2).await;
        let client = Client::open(shared(&broker)).await.unwrap();
        for n in 0..100 {
            let reply = soon(client.request("play", "echo").json(&n).into_future()).await;
            assert_eq!(reply.unwrap().json::<i32>().unwrap(), n);
        }
        assert_eq!(gate.begun(), 2);
        gate.release(1000);
        serving.stop().await.unwrap();
    }
}

mod rate {
    use super::*;

    #[tokio::test]
    async fn handlers_begin_at_the_rate_and_what_may_not_begin_stays_for_others() {
        let broker = Faulty::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let count = begun.clone();
        let router = Router::new().on("hold", move || {
            count.fetch_add(1, Ordering::SeqCst);
            async {}
        });
        append(&broker, "work", large(60, 10)).await;
        let start = Instant::now();
        let serving = Serving::with(shared(&broker), router, |worker| {
            worker.rate(NonZeroU32::new(100).unwrap()).topic("play")
        });
        until(|| begun.load(Ordering::SeqCst) > 0).await;
        while begun.load(Ordering::SeqCst) < 60 {
            assert!(pending(&broker, "work").await <= 10, "a burst is ten");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Of 60 at 100 per second, 10 begin at once and 50 take half a second.
        assert!(start.elapsed() >= Duration::from_millis(490));
        until(|| serving.stats().handled == 60).await;
        serving.stop().await.unwrap();
    }
}

mod leases {
    use super::*;

    #[tokio::test]
    async fn a_handler_longer_than_its_lease_runs_once_and_so_does_what_waits_behind_it() {
        let broker = Faulty::default();
        let gate = Gate::new();
        let lease = Duration::from_millis(300);
        append(&broker, "work", large(3, 1)).await;
        let serving = Serving::with(shared(&broker), gate.router(), |worker| {
            worker.lease(lease).concurrency(1).prefetch(2)
        });
        until(|| gate.begun() == 1).await;
        let rival = Serving::with(shared(&broker), gate.router(), |worker| worker.lease(lease));
        tokio::time::sleep(4 * lease).await;
        assert_eq!((gate.begun(), rival.stats().handled), (1, 0));
        gate.release(3);
        until(|| serving.stats().handled == 3).await;
        assert_eq!(gate.attempts(), [1, 1, 1]);
        serving.stop().await.unwrap();
        rival.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn leases_are_kept_while_handlers_block_every_thread() {
        let broker = Faulty::default();
        let lease = Duration::from_millis(400);
        // The worker has a runtime of its own, whose only thread its handlers block.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (entered, entering) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new((entered, parking_lot::Mutex::new(released)));
        let block = move || {
            let gate = gate.clone();
            async move {
                gate.0.send(()).unwrap();
                gate.1.lock().recv().unwrap();
            }
        };
        append(&broker, "work", large(2, 1)).await;
        let serving = {
            let _within = runtime.enter();
            let router = Router::new().on("hold", block);
            Serving::with(shared(&broker), router, |worker| {
                worker.lease(lease).prefetch(1)
            })
        };
        entering.recv_timeout(Duration::from_secs(10)).unwrap();
        let gate = Gate::new();
        let rival = Serving::with(shared(&broker), gate.router(), |worker| worker.lease(lease));
        tokio::time::sleep(5 * lease / 2).await;
        assert_eq!(gate.begun(), 0, "the rival took what is worked on");
        assert_eq!(pending(&broker, "work").await, 2);
        release.send(()).unwrap();
        release.send(()).unwrap();
        until(|| serving.stats().handled == 2).await;
        serving.stop().await.unwrap();
        rival.stop().await.unwrap();
        runtime.shutdown_background();
    }
}

mod limit {
    use super::*;

    #[tokio::test]
    async fn a_handler_beyond_its_limit_is_stopped_and_who_asked_is_told() {
        let broker = Faulty::default();
        let gate = Gate::new();
        let serving = Serving::with(shared(&broker), gate.router(), |worker| {
            worker.handler_timeout(Duration::from_millis(50))
        });
        let client = Client::open(shared(&broker)).await.unwrap();
        let error = soon(client.request("work", "hold").into_future()).await;
        assert_eq!(error.unwrap_err().code(), "handler-timeout");
        assert_eq!((gate.begun(), serving.stats().overdue), (1, 0));
        serving.stop().await.unwrap();
        assert_eq!(pending(&broker, "work").await, 0);
    }

    #[tokio::test]
    async fn what_always_takes_too_long_ends_in_the_dead_letters() {
        let broker = Faulty::default();
        let gate = Gate::new();
        append(&broker, "work", large(1, 1)).await;
        let serving = Serving::with(shared(&broker), gate.router(), |worker| {
            worker
                .handler_timeout(Duration::from_millis(10))
                .retry(support::hasty())
        });
        let why = dead_letter(&broker).await.1.dlq.unwrap();
        assert_eq!((why.code.as_str(), why.attempts), ("handler-timeout", 5));
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn no_limit_of_no_time() {
        let broker = Faulty::default();
        let serving = Serving::with(shared(&broker), Router::new(), |worker| {
            worker.handler_timeout(Duration::ZERO)
        });
        let error = serving.ended().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Invalid, "invalid-handler-timeout")
        );
    }

    /// A handler that ignores cancellation: it blocks its thread until it is let.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_a_blocking_handler_keeps_too_long_goes_to_others_and_its_late_result_does_not_count()
     {
        let broker = Faulty::default();
        let (entered, entering) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new((entered, parking_lot::Mutex::new(released)));
        let block = move |Attempt(attempt): Attempt| {
            let gate = gate.clone();
            async move {
                gate.0.send(()).unwrap();
                gate.1.lock().recv().unwrap();
                format!("late, {attempt}")
            }
        };
        let lease = Duration::from_millis(200);
        let serving = Serving::with(shared(&broker), Router::new().on("hold", block), |worker| {
            worker
                .lease(lease)
                .handler_timeout(Duration::from_millis(200))
        });
        let client = Client::open(shared(&broker)).await.unwrap();
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.request("work", "hold").await }
        });
        tokio::task::spawn_blocking(move || entering.recv_timeout(Duration::from_secs(10)))
            .await
            .unwrap()
            .unwrap();
        let other = Router::new().on("hold", |Attempt(attempt): Attempt| async move {
            format!("in time, {attempt}")
        });
        let other = Serving::with(shared(&broker), other, |worker| worker.lease(lease));
        let reply = soon(call).await.unwrap().unwrap();
        assert_eq!(reply.text().unwrap(), "in time, 2");
        assert_eq!(serving.stats().overdue, 1);
        release.send(()).unwrap();
        until(|| serving.stats().fenced == 1).await;
        assert_eq!((client.stats().answered, client.stats().late), (1, 0));
        serving.stop().await.unwrap();
        other.stop().await.unwrap();
        assert_eq!(pending(&broker, "work").await, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_handler_that_blocks_cannot_hold_a_shutdown_up_and_who_is_done_is_settled() {
        async fn block(State(gate): State<Arc<parking_lot::Mutex<std::sync::mpsc::Receiver<()>>>>) {
            // Not in place: in the reading task nobody else would begin.
            tokio::task::yield_now().await;
            let _ = gate.lock().recv();
        }
        let broker = Faulty::default();
        let (release, released) = std::sync::mpsc::channel();
        let router = Router::new()
            .on("block", block)
            .with_state(Arc::new(parking_lot::Mutex::new(released)));
        append(&broker, "work", [Message::new("block", "")]).await;
        let serving = Serving::with(shared(&broker), router, |worker| {
            worker
                .drain(Duration::from_millis(50))
                .lease(Duration::from_secs(3600))
        });
        soon(async {
            while broker
                .stats(&topic("work"))
                .await
                .unwrap()
                .groups
                .is_empty()
                || pending(&broker, "work").await == 0
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
        serving.stop().await.unwrap();
        // It left in order: another member need not wait for the lease.
        let gate = Gate::new();
        let other = Serving::start(shared(&broker), gate.router().on("block", || async {}));
        until(|| other.stats().handled == 1).await;
        other.stop().await.unwrap();
        drop(release);
    }
}
