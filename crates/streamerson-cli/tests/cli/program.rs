//! `reply -- CMD`: programs that answer, fail, hang, and die.

use std::path::Path;

use serde_json::json;
use streamerson::Client;
use streamerson_core::{Message, Meta, Topic};
use tokio::time::Instant;

use crate::support::{Dev, PATIENCE, Place, Running, run};

/// Starts `reply TOPIC work` with a shell script as the program.
fn worker(dev: &Dev, options: &[&str], script: &str) -> Running {
    let reply = ["reply", "jobs", "work", "--broker", &dev.broker];
    let program = ["--", "sh", "-c", script];
    Running::start(reply.iter().chain(options).chain(&program))
}

/// Asks for `payload` to be worked on.
async fn request(dev: &Dev, payload: &str) -> crate::support::Ended {
    dev.run(&[
        "request",
        "jobs",
        "work",
        "--data",
        payload,
        "--timeout",
        "20s",
    ])
    .await
}

#[tokio::test]
async fn a_program_gets_the_message_and_answers_with_the_payload() {
    let dev = Dev::start(&[]).await;
    let _worker = worker(&dev, &[], "cat");
    let (status, seen) = dev.post("/jobs/work?q=1", "{\n\"n\": 1.0}").await;
    assert_eq!(status, 200);
    assert_eq!(seen["type"], json!("work"));
    assert_eq!(seen["payload"].to_string(), r#"{"n":1.0}"#);
    assert_eq!(seen["meta"]["http"]["query"], json!("q=1"));
    assert_eq!(seen["id"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn answers_belong_to_their_questions() {
    let dev = Dev::start(&[]).await;
    let _worker = worker(&dev, &["--concurrency", "8"], "cat");
    let requests = (0..40).map(|n| {
        let dev = &dev;
        async move { (n, dev.post("/jobs/work", &n.to_string()).await) }
    });
    for (n, (status, seen)) in futures::future::join_all(requests).await {
        assert_eq!((status, &seen["payload"]), (200, &json!(n)));
    }
}

#[tokio::test]
async fn a_line_that_is_not_json_fails_its_request_only() {
    let dev = Dev::start(&[]).await;
    // With its quotes: an id may well have these three letters.
    let script =
        r#"while read -r line; do case "$line" in *\"bad\"*) echo oops;; *) echo 1;; esac; done"#;
    let _worker = worker(&dev, &[], script);
    let said = request(&dev, r#""bad""#).await.failed(1, "invalid-reply");
    assert!(said.contains("status 502"), "{said}");
    assert_eq!(request(&dev, r#""good""#).await.ok(), "1\n");
}

#[tokio::test]
async fn a_line_that_is_not_json_does_not_shift_the_answers_after_it() {
    let dev = Dev::start(&[]).await;
    let script =
        r#"while read -r line; do case "$line" in *\"bad\"*) echo oops;; esac; echo "$line"; done"#;
    let _worker = worker(&dev, &["--concurrency", "8"], script);
    let asked = (0..12).map(|n| match n {
        4 => "\"bad\"".to_owned(),
        n => n.to_string(),
    });
    let requests = asked.map(|payload| {
        let dev = &dev;
        async move { (dev.post("/jobs/work", &payload).await, payload) }
    });
    let mut failed = 0;
    for ((status, seen), payload) in futures::future::join_all(requests).await {
        match status {
            200 => assert_eq!(seen["payload"].to_string(), payload),
            _ => {
                assert_eq!((status, &seen["code"]), (502, &json!("invalid-reply")));
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 1);
}

#[tokio::test]
async fn answers_that_name_their_message_may_come_in_any_order() {
    let dev = Dev::start(&[]).await;
    // Answers each pair of messages in reverse, with the whole message as the payload.
    let script = r#"id() { echo "$1" | cut -d'"' -f4; }
        while read -r a && read -r b; do for m in "$b" "$a"; do
        echo "{\"id\":\"$(id "$m")\",\"payload\":$m}"; done; done"#;
    let _worker = worker(&dev, &[], script);
    let (one, two) = tokio::join!(dev.post("/jobs/work", "1"), dev.post("/jobs/work", "2"));
    assert_eq!((one.0, &one.1["payload"]), (200, &json!(1)));
    assert_eq!((two.0, &two.1["payload"]), (200, &json!(2)));
}

#[tokio::test]
async fn an_endless_line_fails_its_request_only() {
    let dev = Dev::start(&[]).await;
    let script = r#"while read -r line; do case "$line" in
        *long*) head -c 20000000 /dev/zero | tr '\0' 1; echo;; *) echo 1;; esac; done"#;
    let _worker = worker(&dev, &[], script);
    request(&dev, r#""long""#).await.failed(1, "invalid-reply");
    assert_eq!(request(&dev, r#""good""#).await.ok(), "1\n");
}

#[tokio::test]
async fn a_program_that_died_once_is_started_again_and_answers() {
    let dev = Dev::start(&[]).await;
    let flag = dev.directory.path().join("flag");
    let script = format!(
        r#"if ! [ -e {flag} ]; then read -r line; touch {flag}; exit 3; fi; while read -r line; do echo 1; done"#,
        flag = flag.display()
    );
    let _worker = worker(&dev, &[], &script);
    assert_eq!(request(&dev, "{}").await.ok(), "1\n");
    assert!(flag.exists());
}

#[tokio::test]
async fn a_message_that_kills_the_program_fails_alone() {
    let dev = Dev::start(&[]).await;
    let script =
        r#"while read -r line; do case "$line" in *poison*) exit 3;; *) echo 1;; esac; done"#;
    let _worker = worker(&dev, &[], script);
    assert_eq!(request(&dev, r#""good""#).await.ok(), "1\n");
    let bad = request(&dev, r#""poison""#);
    let good = futures::future::join_all((0..5).map(|_| request(&dev, r#""good""#)));
    let (bad, good) = tokio::join!(bad, good);
    let said = bad.failed(1, "program-died");
    assert!(said.contains("exit status: 3"), "{said}");
    for good in good {
        assert_eq!(good.ok(), "1\n");
    }
}

#[tokio::test]
async fn requests_that_kill_a_program_which_never_answered_fail_alone() {
    let dev = Dev::start(&[]).await;
    let script =
        r#"while read -r line; do case "$line" in *poison*) exit 3;; *) echo 1;; esac; done"#;
    let _worker = worker(&dev, &[], script);
    // More deaths together than a program may have that no message explains.
    for bad in futures::future::join_all((0..4).map(|_| request(&dev, r#""poison""#))).await {
        let said = bad.failed(1, "program-died");
        assert!(said.contains("status 502"), "{said}");
    }
    assert_eq!(request(&dev, r#""good""#).await.ok(), "1\n");
}

/// The program of the page, as it is written there.
fn example() -> &'static str {
    let page = include_str!("../../README.md");
    let (_, example) = page.split_once("```python\n").unwrap();
    example.split_once("```").unwrap().0
}

#[tokio::test]
async fn the_example_of_the_page_answers_whatever_is_sent() {
    let dev = Dev::start(&[]).await;
    let file = dev.directory.path().join("worker.py");
    std::fs::write(&file, example()).unwrap();
    let file = file.to_str().unwrap();
    let reply = ["reply", "jobs", "work", "--broker", &dev.broker];
    let _worker = Running::start(reply.iter().chain(&["--", "python3", file]));
    for body in ["not json", "\u{1}", "", "[1]", r#""x""#, "7", "null", "{}"] {
        let (status, seen) = dev.post("/jobs/work", body).await;
        assert_eq!(
            (status, &seen["code"]),
            (422, &json!("no-order")),
            "{body:?}"
        );
    }
    let (status, seen) = dev.post("/jobs/work", r#"{"item":"tea"}"#).await;
    assert_eq!((status, seen), (200, json!({"ordered": "tea"})));
}

#[tokio::test]
async fn a_message_nobody_waits_for_that_kills_the_program_ends_in_the_dead_letters() {
    let dev = Dev::start(&[]).await;
    let script =
        r#"while read -r line; do case "$line" in *poison*) exit 3;; *) echo 1;; esac; done"#;
    let _worker = worker(&dev, &[], script);
    dev.run(&["send", "jobs", "work", "--data", r#""poison""#])
        .await
        .ok();
    let tail = [
        "tail", "jobs:dlq", "--from", "earliest", "-n", "1", "-o", "json",
    ];
    let letter = dev.run(&tail).await.json();
    assert_eq!(letter["payload"], json!("poison"));
    assert_eq!(letter["meta"]["dlq"]["code"], json!("program-died"));
    assert_eq!(letter["meta"]["dlq"]["attempts"], json!(5));
    let text = dev.run(&tail[..6]).await.ok();
    assert!(text.contains("program-died: the program ended"), "{text}");
    assert_eq!(request(&dev, r#""good""#).await.ok(), "1\n");
}

/// Waits until the process whose id is in the file at `pid` has ended.
async fn ends(pid: &Path) {
    let pid = std::fs::read_to_string(pid).unwrap();
    let process = format!("/proc/{}/stat", pid.trim());
    let running = |stat: String| !stat.contains(") Z ");
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(&process).is_ok_and(running) {
        assert!(Instant::now() < deadline, "{process} still runs");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_what_it_started() {
    let dev = Dev::start(&[]).await;
    let pid = dev.directory.path().join("pid");
    // The sleeper holds the program's output open, and would outlive the shell.
    let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    let mut worker = worker(&dev, &["--answer-within", "200ms"], &script);
    request(&dev, "{}").await.failed(1, "program-died");
    worker.process.terminate();
    assert_eq!(worker.ended().await.0, 0);
    ends(&pid).await;
}

#[tokio::test]
async fn at_its_deadline_a_request_is_told_whether_the_program_has_it() {
    let place = Place::dev().await;
    let client = Client::open(place.broker.clone()).await.unwrap();
    let options = ["--concurrency", "1", "--broker", &place.url];
    let program = ["--", "sh", "-c", "while read -r line; do :; done"];
    let reply = ["reply", "jobs", "work"].iter();
    let mut worker = Running::start(reply.chain(&options).chain(&program));
    worker.line("answering").await;
    let answered = async || {
        let soon = client.broker_unix_ms() + 2_000;
        let meta = Meta {
            exp: Some(soon),
            ..Meta::default()
        };
        // Its own answer at the deadline must not come before that of the worker.
        let patience = Instant::now() + PATIENCE;
        let message = Message::new("work", "1").with_meta(&meta);
        let jobs = Topic::new("jobs").unwrap();
        let answer = client.dispatch(jobs, message, patience).await.unwrap();
        let meta = answer.parse_meta().unwrap();
        (meta.status.unwrap(), meta.err.unwrap().code.to_string())
    };
    let unknown = (504, "no-reply-in-time".to_owned());
    assert_eq!(answered().await, unknown);
    // The program still owes the first one its answer, and is not given another.
    let nothing_happened = (504, "deadline-passed".to_owned());
    assert_eq!(answered().await, nothing_happened);
}

#[tokio::test]
async fn a_message_that_is_left_out_while_others_are_answered_is_the_programs_end_in_time() {
    let dev = Dev::start(&[]).await;
    let script = r#"while read -r line; do case "$line" in *\"never\"*) ;;
        *) id=${line#*\"id\":\"}; echo "{\"id\":\"${id%%\"*}\",\"payload\":1}";; esac; done"#;
    let _worker = worker(&dev, &["--answer-within", "500ms"], script);
    assert_eq!(dev.post("/jobs/work", "1").await, (200, json!(1)));
    let others = async {
        loop {
            assert_eq!(dev.post("/jobs/work", "1").await, (200, json!(1)));
        }
    };
    tokio::select! {
        left_out = request(&dev, r#""never""#) => {
            let said = left_out.failed(1, "program-died");
            assert!(said.contains("did not answer within 500ms"), "{said}");
        }
        () = others => (),
    }
}

#[tokio::test]
async fn a_program_that_keeps_dying_before_it_reads_ends_the_worker_and_keeps_the_messages() {
    let script = "exit 7";
    let dev = Dev::start(&[]).await;
    for n in ["1", "2", "3", "4"] {
        dev.run(&["send", "jobs", "work", "--data", n]).await.ok();
    }
    let (code, said) = worker(&dev, &[], script).ended().await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("program-keeps-dying") && said.contains("exit status: 7"),
        "{said}"
    );
    let dead = dev.run(&["topic", "show", "jobs:dlq"]).await;
    assert_eq!(dead.code, 3, "no dead letters: {}", dead.stderr);
    let script = r#"while read -r line; do echo "got $line" >&2; echo null; done"#;
    let mut other = worker(&dev, &[], script);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let line = other.line("got ").await;
        seen.extend(line.chars().rev().nth(1));
    }
    seen.sort_unstable();
    assert_eq!(seen, ['1', '2', '3', '4']);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_at_once() {
    let ended = run(["reply", "jobs", "work", "--", "no-such-program"]).await;
    let said = ended.failed(1, "program-not-started");
    assert!(said.contains("no-such-program"), "{said}");
}

#[tokio::test]
async fn several_processes_work_at_the_same_time() {
    let dev = Dev::start(&[]).await;
    let _worker = worker(
        &dev,
        &["--processes", "2"],
        "while read -r line; do sleep 0.5; echo $$; done",
    );
    let (one, two) = tokio::join!(request(&dev, "1"), request(&dev, "2"));
    assert_ne!(one.ok(), two.ok());
}

#[tokio::test]
async fn sigterm_lets_the_program_finish_its_message() {
    let dev = Dev::start(&[]).await;
    let gate = dev.directory.path().join("gate");
    let script = format!(
        "mkfifo {gate}; while read -r line; do echo started >&2; read -r _ < {gate}; echo 1; done; echo ended >&2",
        gate = gate.display()
    );
    let mut worker = worker(&dev, &[], &script);
    let request = request(&dev, "{}");
    let finish = async {
        worker.line("started").await;
        worker.process.terminate();
        worker.line("stopping").await;
        tokio::task::spawn_blocking(move || std::fs::write(gate, "go\n"))
            .await
            .unwrap()
            .unwrap();
        worker.line("ended").await;
        worker.ended().await.0
    };
    let (answer, code) = tokio::join!(request, finish);
    assert_eq!((answer.ok().as_str(), code), ("1\n", 0));
}

#[tokio::test]
async fn a_second_signal_kills_the_program_with_what_it_started() {
    let dev = Dev::start(&[]).await;
    let file = |name: &str| dev.directory.path().join(name);
    let (shell, sleeper) = (file("shell"), file("sleeper"));
    let script = format!(
        "read -r line; echo $$ > {}; sleep 1000 & echo $! > {}; echo got >&2; wait",
        shell.display(),
        sleeper.display()
    );
    let mut worker = worker(&dev, &[], &script);
    dev.run(&["send", "jobs", "work"]).await.ok();
    worker.line("got").await;
    worker.process.terminate();
    worker.line("stopping").await;
    worker.process.terminate();
    assert_eq!(worker.ended().await.0, 130);
    ends(&shell).await;
    ends(&sleeper).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_answers_that_nobody_waits_for() {
    let dev = Dev::start(&[]).await;
    let options = ["--concurrency", "1", "--answer-within", "60m"];
    let script = "while read -r line; do echo got >&2; done; echo ended >&2";
    let mut worker = worker(&dev, &options, script);
    worker.line("answering").await;
    let request = ["request", "jobs", "work", "--timeout", "2s"];
    let (given_up, _) = tokio::join!(dev.run(&request), worker.line("got"));
    given_up.failed(124, "no-reply-in-time");
    worker.process.terminate();
    worker.line("ended").await;
    assert_eq!(worker.ended().await.0, 0);
}

#[tokio::test]
async fn the_message_of_a_killed_worker_goes_to_another() {
    let dev = Dev::start(&[]).await;
    let mut first = worker(&dev, &[], "read -r line; echo started >&2; read -r line");
    let request = request(&dev, "{}");
    let takeover = async {
        first.line("started").await;
        first.process.kill();
        worker(&dev, &[], "while read -r line; do echo 2; done")
    };
    let (answer, _second) = tokio::join!(request, takeover);
    assert_eq!(answer.ok(), "2\n");
}
