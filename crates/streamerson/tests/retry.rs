//! Retries: what a handler's own policy and its failures say about another try.

#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;
use streamerson::core::{Append, Broker};
use streamerson::{
    Attempt, Client, Handler, Json, Message, Problem, RequestError, RetryPolicy, Router,
};
use support::{Faulty, Gate, Serving, dead_letter, entries, hasty, soon, topic, until};

async fn append(broker: &Faulty, kind: &'static str) {
    let append = Append::new(topic("work"), Message::new(kind, "1"));
    assert!(broker.append(vec![append]).await[0].is_ok());
}

async fn client(broker: &Faulty) -> Client {
    Client::open(Arc::new(broker.clone())).await.unwrap()
}

fn serve(broker: &Faulty, router: Router) -> Serving {
    Serving::with(Arc::new(broker.clone()), router, |worker| {
        worker.retry(hasty())
    })
}

fn times(max_attempts: u32) -> RetryPolicy {
    RetryPolicy {
        max_attempts,
        ..hasty()
    }
}

async fn busy() -> Problem {
    Problem::unavailable("busy", "later")
}

async fn third_time(Attempt(attempt): Attempt) -> Result<Json<u32>, Problem> {
    match attempt {
        3.. => Ok(Json(attempt)),
        _ => Err(busy().await),
    }
}

#[tokio::test]
async fn each_handler_keeps_its_own_policy_and_others_the_workers() {
    let broker = Faulty::default();
    let router = Router::new()
        .on("twice", busy.retry(times(2)))
        .on("seven", busy.retry(times(7)))
        .on("five", busy)
        .fallback(busy.retry(times(1)));
    let serving = serve(&broker, router);
    let mut expected = vec![("twice", 2), ("seven", 7), ("five", 5), ("other", 1)];
    for (kind, _) in &expected {
        append(&broker, kind).await;
    }
    let letters = entries(&broker, &topic("work:dlq"), 4).await;
    let mut attempts: Vec<(String, u32)> = letters
        .iter()
        .map(|letter| {
            let why = letter.parse_meta().unwrap().dlq.unwrap();
            assert_eq!(why.code, "busy");
            (letter.kind.to_string(), why.attempts)
        })
        .collect();
    attempts.sort();
    expected.sort();
    let expected: Vec<_> = expected.iter().map(|(k, n)| (k.to_string(), *n)).collect();
    assert_eq!(attempts, expected);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn an_error_says_by_its_type_whether_another_try_may_help() {
    enum Failure {
        Locked,
        Broken,
    }
    impl From<Failure> for Problem {
        fn from(failure: Failure) -> Problem {
            match failure {
                Failure::Locked => Problem::conflict("locked", "in use").transient(),
                Failure::Broken => Problem::unavailable("broken", "for good").permanent(),
            }
        }
    }
    async fn locked() -> Result<(), Problem> {
        Err(Failure::Locked.into())
    }
    async fn broken() -> Result<(), Problem> {
        Err(Failure::Broken.into())
    }
    for (kind, attempts) in [("locked", 5), ("broken", 1)] {
        let broker = Faulty::default();
        let serving = serve(
            &broker,
            Router::new().on("locked", locked).on("broken", broken),
        );
        append(&broker, kind).await;
        let why = dead_letter(&broker).await.1.dlq.unwrap();
        assert_eq!((why.code.as_str(), why.attempts), (kind, attempts));
        serving.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_handler_that_panics_is_tried_as_often_as_its_policy_says_and_the_worker_lives() {
    async fn panics() {
        panic!("as it was told");
    }
    let broker = Faulty::default();
    let router = Router::new()
        .on("panics", panics.retry(times(3)))
        .on("third", third_time);
    let serving = serve(&broker, router);
    append(&broker, "panics").await;
    let why = dead_letter(&broker).await.1.dlq.unwrap();
    assert_eq!((why.code.as_str(), why.attempts), ("handler-panicked", 3));
    append(&broker, "third").await;
    until(|| serving.stats().handled == 6).await;
    assert_eq!(serving.stats().dead, 1);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_handler_may_say_when_to_try_again() {
    const DELAY: Duration = Duration::from_millis(150);
    let broker = Faulty::default();
    let begun: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let handler = {
        let begun = begun.clone();
        move || {
            begun.lock().push(Instant::now());
            async { Problem::unavailable("busy", "later").retry_after(DELAY) }
        }
    };
    let serving = serve(&broker, Router::new().on("t", handler.retry(times(2))));
    append(&broker, "t").await;
    assert_eq!(dead_letter(&broker).await.1.dlq.unwrap().attempts, 2);
    let begun = begun.lock().clone();
    // The broker counts whole milliseconds.
    assert!(begun[1] - begun[0] >= DELAY - Duration::from_millis(2));
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn a_delay_outlives_its_worker() {
    let broker = Faulty::default();
    let slow = RetryPolicy {
        base: Duration::from_millis(200),
        jitter: 0.0,
        ..RetryPolicy::default()
    };
    let router = || Router::new().on("t", third_time.retry(slow));
    append(&broker, "t").await;
    let first = serve(&broker, router());
    until(|| first.stats().retried == 1).await;
    first.stop().await.unwrap();
    let second = serve(&broker, router());
    until(|| second.stats().handled == 2).await;
    assert_eq!((second.stats().retried, second.stats().dead), (1, 0));
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_is_given_up_when_it_is_too_old() {
    let broker = Faulty::default();
    let short = RetryPolicy {
        max_attempts: u32::MAX,
        max_age: Some(Duration::from_millis(50)),
        ..hasty()
    };
    let serving = serve(&broker, Router::new().on("t", busy.retry(short)));
    append(&broker, "t").await;
    let why = dead_letter(&broker).await.1.dlq.unwrap();
    assert!(why.attempts > 1 && why.at - why.first >= 50, "{why:?}");
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn who_waits_is_told_at_once_unless_the_handler_agreed_to_try_again() {
    let broker = Faulty::default();
    let router = Router::new()
        .on("told", third_time)
        .on("tried", third_time.retry_requests(times(5)));
    let serving = serve(&broker, router);
    let client = client(&broker).await;
    let told = soon(client.request("work", "told").into_future()).await;
    assert_eq!(told.unwrap_err().code(), "busy");
    let tried = soon(client.request("work", "tried").into_future()).await;
    assert_eq!(tried.unwrap().json::<u32>().unwrap(), 3);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn who_waits_hears_of_the_last_failure_before_the_deadline_and_after_the_last_attempt() {
    async fn tomorrow() -> Problem {
        busy().await.retry_after(Duration::from_secs(86_400))
    }
    let broker = Faulty::default();
    let router = Router::new()
        .on("often", busy.retry_requests(times(4)))
        .on("tomorrow", tomorrow.retry_requests(times(4)));
    let serving = serve(&broker, router);
    let client = client(&broker).await;
    for (kind, handled) in [("often", 4), ("tomorrow", 5)] {
        let outcome = soon(client.request("work", kind).into_future()).await;
        let RequestError::Problem(problem) = outcome.unwrap_err() else {
            panic!("the worker answers");
        };
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        until(|| serving.stats().handled == handled).await;
    }
    assert_eq!(serving.stats().dead, 0);
    serving.stop().await.unwrap();
}

#[tokio::test]
async fn what_stops_its_workers_ends_after_the_attempts_of_its_own_policy() {
    let broker = Faulty::default();
    let gate = Gate::new();
    let router = || {
        let gate = gate.clone();
        let hold = move |Attempt(attempt): Attempt| {
            let gate = gate.clone();
            async move { gate.pass(attempt).await }
        };
        Router::new().on("hold", hold.retry(times(3)))
    };
    append(&broker, "hold").await;
    for attempt in 1..=3 {
        let serving = serve(&broker, router());
        until(|| gate.begun() == attempt).await;
        serving.kill().await;
    }
    let serving = serve(&broker, router());
    let why = dead_letter(&broker).await.1.dlq.unwrap();
    assert_eq!((why.code.as_str(), why.attempts), ("too-many-attempts", 4));
    assert_eq!(gate.begun(), 3);
    serving.stop().await.unwrap();
}
