//! Effects that happen once, whatever is sent, delivered and handled twice.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use streamerson::core::{Append, Broker, Error};
use streamerson::{
    Attempt, Client, Dedupe, Fence, Forward, Handler, IdempotencyKey, Json, Message, NoReply,
    Problem, Publish, Reply, RequestError, Router,
};
use support::{Fault, Faulty, Serving, entries, hasty, soon, topic, until};
use tokio::sync::Barrier;

const DAY: Duration = Duration::from_secs(86_400);

async fn client(broker: &Faulty) -> Client {
    Client::open(Arc::new(broker.clone())).await.unwrap()
}

async fn length(broker: &Faulty, name: &str) -> u64 {
    let stats = broker.stats(&topic(name)).await;
    stats.map_or(0, |stats| stats.length)
}

fn serve(broker: &Faulty, router: Router) -> Serving {
    Serving::with(Arc::new(broker.clone()), router, |worker| {
        worker.retry(hasty())
    })
}

/// Charges: each run of the handler answers with its own number, and publishes what it did.
#[derive(Clone, Default)]
struct Charges {
    runs: Arc<AtomicU32>,
}

impl Charges {
    fn charge(&self) -> (Publish, Json<u32>) {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        (Publish::to("charged", "charged").json(&run), Json(run))
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    /// `charge` and `refund`, both once per key.
    fn router(&self) -> Router {
        let by_key = Dedupe::by_key(DAY);
        let handler = || {
            let charges = self.clone();
            move || {
                let done = charges.charge();
                async { done }
            }
        };
        Router::new()
            .on("charge", handler().dedupe(by_key))
            .on("refund", handler().dedupe(by_key))
    }
}

async fn ask(client: &Client, kind: &'static str, key: &str) -> Result<Reply, RequestError> {
    let request = client.request("work", kind).idempotency_key(key);
    soon(request.into_future()).await
}

async fn answer(client: &Client, kind: &'static str, key: &str) -> u32 {
    ask(client, kind, key).await.unwrap().json().unwrap()
}

mod sending {
    use super::*;

    #[tokio::test]
    async fn a_message_sent_again_with_its_key_is_stored_once() {
        let broker = Faulty::default();
        let (one, other) = (client(&broker).await, client(&broker).await);
        let send = |client: &Client, kind, key| {
            let client = client.clone();
            async move { client.send("work", kind).idempotency_key(key).await }
        };
        let first = send(&one, "a", "k").await.unwrap();
        assert_eq!(send(&one, "a", "k").await.unwrap(), first);
        assert_eq!(send(&other, "a", "k").await.unwrap(), first);
        assert_ne!(send(&one, "a", "l").await.unwrap(), first);
        assert_ne!(send(&one, "b", "k").await.unwrap(), first);
        assert_eq!(length(&broker, "work").await, 3);
        let stored = entries(&broker, &topic("work"), 1).await.remove(0);
        let meta = stored.parse_meta().unwrap();
        assert_eq!(meta.hdr.get("idempotency-key"), Some("k"));
    }

    #[tokio::test]
    async fn what_may_have_been_stored_is_safe_to_send_again() {
        let broker = Faulty::default();
        let client = client(&broker).await;
        let lost = Fault::Lost(support::unanswered());
        broker.faults.append.lock().push(lost);
        let send = || client.send("work", "a").idempotency_key("k");
        assert_eq!(send().await.unwrap_err().code(), "broker-unanswered");
        send().await.unwrap();
        assert_eq!(length(&broker, "work").await, 1);
    }

    #[tokio::test]
    async fn a_key_that_no_broker_takes_is_refused() {
        let broker = Faulty::default();
        let client = client(&broker).await;
        for key in [String::new(), "k".repeat(600)] {
            let sent = client.send("work", "a").idempotency_key(key.clone()).await;
            assert_eq!(sent.unwrap_err().code(), "invalid-idempotency-key");
            let asked = client.request("work", "a").idempotency_key(key).await;
            assert_eq!(asked.unwrap_err().code(), "invalid-idempotency-key");
        }
        assert_eq!(length(&broker, "work").await, 0);
    }
}

mod completing {
    use super::*;

    #[tokio::test]
    async fn two_callers_with_one_key_get_one_effect_and_the_same_answer() {
        let broker = Faulty::default();
        let charges = Charges::default();
        let serving = serve(&broker, charges.router());
        let (one, other) = (client(&broker).await, client(&broker).await);
        assert_eq!(answer(&one, "charge", "k").await, 1);
        assert_eq!(answer(&other, "charge", "k").await, 1);
        assert_eq!(length(&broker, "charged").await, 1);
        // Another key, and the same key for another type, are other things.
        assert_eq!(answer(&one, "charge", "l").await, 3);
        assert_eq!(answer(&one, "refund", "k").await, 4);
        assert_eq!(length(&broker, "charged").await, 3);
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn also_when_both_are_handled_at_the_same_time() {
        let broker = Faulty::default();
        let charges = Charges::default();
        let together = Arc::new(Barrier::new(2));
        let handler = {
            let charges = charges.clone();
            move || {
                let (charges, together) = (charges.clone(), together.clone());
                async move {
                    together.wait().await;
                    charges.charge()
                }
            }
        };
        let router = Router::new().on("charge", handler.dedupe(Dedupe::by_key(DAY)));
        let (one, other) = (client(&broker).await, client(&broker).await);
        let servings = [serve(&broker, router.clone()), serve(&broker, router)];
        let (a, b) = tokio::join!(answer(&one, "charge", "k"), answer(&other, "charge", "k"));
        assert_eq!((a, charges.runs()), (b, 2));
        assert_eq!(length(&broker, "charged").await, 1);
        for serving in servings {
            serving.stop().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_message_stored_twice_has_one_effect() {
        let broker = Faulty::default();
        let charges = Charges::default();
        let handler = {
            let charges = charges.clone();
            move || {
                let (publish, _) = charges.charge();
                async { (publish, NoReply) }
            }
        };
        let router = Router::new().on("charge", handler);
        let serving = Serving::with(Arc::new(broker.clone()), router, |worker| {
            worker.dedupe(Dedupe::by_id(DAY))
        });
        let message = Message::new("charge", "");
        for sent in [message.clone(), message, Message::new("charge", "")] {
            broker.append(vec![Append::new(topic("work"), sent)]).await;
        }
        until(|| serving.stats().handled == 3).await;
        serving.stop().await.unwrap();
        assert_eq!(length(&broker, "charged").await, 2);
    }

    #[tokio::test]
    async fn a_failure_is_no_effect_and_the_same_key_may_be_tried_again() {
        let broker = Faulty::default();
        let charges = Charges::default();
        let handler = {
            let charges = charges.clone();
            move || {
                let (publish, run) = charges.charge();
                async move {
                    match run {
                        Json(1) => Err(Problem::unavailable("busy", "later")),
                        run => Ok((publish, run)),
                    }
                }
            }
        };
        let router = Router::new().on("charge", handler.dedupe(Dedupe::by_key(DAY)));
        let serving = serve(&broker, router);
        let client = client(&broker).await;
        let first = ask(&client, "charge", "k").await;
        assert_eq!(first.unwrap_err().code(), "busy");
        assert_eq!(answer(&client, "charge", "k").await, 2);
        assert_eq!(answer(&client, "charge", "k").await, 2);
        assert_eq!(length(&broker, "charged").await, 1);
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn what_the_broker_refuses_is_no_effect_either() {
        let broker = Faulty::default();
        let charges = Charges::default();
        let refused = Error::invalid("message-too-large", "the answer is too large");
        broker.faults.settle.lock().push(Fault::Refused(refused));
        let serving = serve(&broker, charges.router());
        let client = client(&broker).await;
        let first = ask(&client, "charge", "k").await;
        assert_eq!(first.unwrap_err().code(), "outputs-refused");
        assert_eq!(answer(&client, "charge", "k").await, 2);
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn an_unanswered_settlement_is_repeated_and_counts_once() {
        let broker = Faulty::default();
        let charges = Charges::default();
        let lost = Fault::Lost(support::unanswered());
        broker.faults.settle.lock().push(lost);
        let serving = serve(&broker, charges.router());
        let client = client(&broker).await;
        assert_eq!(answer(&client, "charge", "k").await, 1);
        assert_eq!(answer(&client, "charge", "k").await, 1);
        assert_eq!(length(&broker, "charged").await, 1);
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_pipeline_happens_once_where_it_answers() {
        async fn first() -> Forward {
            Forward::to("work", "last")
        }
        let broker = Faulty::default();
        let charges = Charges::default();
        let last = {
            let charges = charges.clone();
            move || {
                let done = charges.charge();
                async { done }
            }
        };
        let by_key = Dedupe::by_key(DAY);
        let router = Router::new()
            .on("first", first.dedupe(by_key))
            .on("last", last.dedupe(by_key));
        let serving = serve(&broker, router);
        let client = client(&broker).await;
        assert_eq!(answer(&client, "first", "k").await, 1);
        assert_eq!(answer(&client, "first", "k").await, 1);
        assert_eq!(length(&broker, "charged").await, 1);
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_key_too_long_to_be_remembered_is_refused_before_anything_happens() {
        let broker = Faulty::default();
        let charges = Charges::default();
        let serving = serve(&broker, charges.router());
        let client = client(&broker).await;
        let request = client.request("work", "charge");
        let request = request.header("idempotency-key", "k".repeat(8000));
        let outcome = soon(request.into_future()).await;
        assert_eq!(outcome.unwrap_err().code(), "invalid-idempotency-key");
        assert_eq!(charges.runs(), 0);
        serving.stop().await.unwrap();
    }
}

mod outside {
    use super::*;

    async fn key(IdempotencyKey(key): IdempotencyKey) -> String {
        key
    }

    #[tokio::test]
    async fn the_key_is_the_callers_or_else_the_id_of_the_message() {
        let broker = Faulty::default();
        let serving = serve(&broker, Router::new().on("key", key));
        let client = client(&broker).await;
        let reply = ask(&client, "key", "mine").await.unwrap();
        assert_eq!(reply.text().unwrap(), "mine");
        let reply = soon(client.request("work", "key").into_future()).await;
        let id = entries(&broker, &topic("work"), 2).await.remove(1).id;
        assert_eq!(reply.unwrap().text().unwrap(), &id[..]);
        serving.stop().await.unwrap();
    }

    #[tokio::test]
    async fn the_key_stays_and_the_fence_grows_with_every_attempt() {
        let broker = Faulty::default();
        let seen: Arc<Mutex<Vec<(String, Fence)>>> = Arc::default();
        let handler = {
            let seen = seen.clone();
            move |IdempotencyKey(key): IdempotencyKey, fence: Fence, Attempt(attempt): Attempt| {
                assert_eq!((fence.attempt(), fence.epoch()), (attempt, 0));
                seen.lock().push((key, fence));
                async move {
                    match attempt {
                        3.. => Ok(()),
                        _ => Err(Problem::unavailable("busy", "later")),
                    }
                }
            }
        };
        let serving = serve(&broker, Router::new().on("t", handler));
        client(&broker).await.send("work", "t").await.unwrap();
        until(|| serving.stats().handled == 3).await;
        serving.stop().await.unwrap();
        let seen = seen.lock();
        assert!(seen.windows(2).all(|pair| pair[0].0 == pair[1].0));
        assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1));
        assert!(seen.is_sorted_by_key(|(_, fence)| fence.to_string()));
    }

    #[tokio::test]
    async fn a_key_in_an_unreadable_meta_is_the_senders_failure() {
        async fn all(key: Result<IdempotencyKey, Problem>) -> Json<Value> {
            Json(json!(
                key.map_err(|problem| problem.code().to_owned()).err()
            ))
        }
        let broker = Faulty::default();
        let serving = serve(&broker, Router::new().on("all", all));
        let client = client(&broker).await;
        let mut message = Message::new("all", "");
        message.meta = r#"{"hdr":7}"#.into();
        let until = tokio::time::Instant::now() + Duration::from_secs(5);
        let reply = soon(client.dispatch(topic("work"), message, until)).await;
        assert_eq!(reply.unwrap().data, r#""invalid-meta""#);
        serving.stop().await.unwrap();
    }
}

mod ordered {
    use super::*;

    fn serve(broker: &Faulty, router: Router) -> Serving {
        Serving::with(Arc::new(broker.clone()), router, |worker| {
            worker.ordered_topic("orders", 8)
        })
    }

    #[tokio::test]
    async fn what_is_asked_for_twice_is_seen_by_the_same_owner_and_happens_once() {
        let broker = Faulty::default();
        let charges = Charges::default();
        let servings = [
            serve(&broker, charges.router()),
            serve(&broker, charges.router()),
        ];
        let client = client(&broker).await;
        for key in ["a", "b", "c", "d"] {
            let ask = || async {
                let request = client.request("orders", "charge").idempotency_key(key);
                let reply = soon(request.into_future()).await.unwrap();
                reply.json::<u32>().unwrap()
            };
            assert_eq!(ask().await, ask().await);
        }
        assert_eq!((length(&broker, "charged").await, charges.runs()), (4, 8));
        for serving in servings {
            serving.stop().await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_fence_grows_from_owner_to_owner() {
        async fn fence(fence: Fence) -> String {
            assert!(fence.epoch() > 0);
            fence.to_string()
        }
        let broker = Faulty::default();
        let client = client(&broker).await;
        let mut fences = Vec::new();
        for _ in 0..3 {
            let serving = serve(&broker, Router::new().on("fence", fence));
            for _ in 0..2 {
                let request = client.request("orders", "fence").key("k");
                let reply = soon(request.into_future()).await.unwrap();
                fences.push(reply.text().unwrap().to_owned());
            }
            serving.stop().await.unwrap();
        }
        assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
    }
}
