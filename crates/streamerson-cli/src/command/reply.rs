//! `streamerson reply`: answers messages of one type, with a template or by a program.

use std::convert::Infallible;
use std::ffi::OsString;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use clap::Args;
use http::StatusCode;
use streamerson::{IntoReply, NoReply, Problem, Request, Worker};
use streamerson_core::{Name, Start, Topic};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::endpoint::BrokerArgs;
use crate::failure::{Failure, Result};
use crate::output::message;
use crate::program::{Answer, Program, Running, Spec, line};
use crate::template::Template;
use crate::{duration, signal};

/// How often a request is put to a program that dies of it. What nobody waits for is delivered again instead.
const TRIES: u32 = 3;

/// Answer messages of one type, with a template or by a program
///
/// Runs until Ctrl-C. Several of these share the work when they have the same group; by default the group is
/// named after the type. A group sees every message of its topic: those of other types are passed over here, and stay
/// with the groups that answer them. So the members of one group must answer the same type.
///
/// A topic that is divided is worked on in order of its keys, in all partitions.
///
/// With --json, each string of the template is rendered for itself, with: id, type, meta, payload, path and query (of an
/// HTTP request). Example: '{"howdy":"there, {{ payload.name | default("stranger") }}"}'. A string that is one
/// expression keeps its type: "{{ payload.count + 1 }}" is a number.
///
/// With -- CMD, the program is started once and gets one JSON object per line on its standard input:
/// {"id":…,"type":…,"meta":{…},"payload":…}. It answers each, in order, with one line on its standard output: the
/// payload of the reply, as JSON. An empty payload comes as null, one that is not JSON as null with "payload_base64" beside
/// it. Programs that buffer their output must flush it after each line. Its standard error is passed through.
///
/// It is safer to answer with {"id":…,"payload":…}, with the id of the message: such answers may come in any order, and
/// cannot reach the wrong caller. {"id":…,"problem":{"status":422,"code":…,"detail":…}} answers that it failed. Once a process has named a message, each of its lines must. A line that is not JSON fails
/// the oldest request (502 invalid-reply), and the program is killed and started again: print nothing else there.
///
/// When the program dies it is started again. The message it was working on is tried again, and counts as failed in the
/// end; the others are handed to the new process. A program that dies before it has read a message is charged to none:
/// after ten such deaths in a row this command ends with exit code 1, and the messages stay on the topic.
///
/// Example: streamerson reply shop order.create -- python3 worker.py
#[derive(Debug, Args)]
pub(crate) struct Reply {
    /// Topic to work on
    topic: Topic,

    /// Message type to answer
    #[arg(value_name = "TYPE")]
    kind: String,

    /// Answer with this JSON, whose strings are templates
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "program")]
    json: Option<String>,

    /// Program that answers, and its arguments
    #[arg(last = true, value_name = "CMD")]
    program: Vec<OsString>,

    /// Consumer group [default: reply-TYPE]
    #[arg(long, value_name = "NAME")]
    group: Option<Name>,

    /// Where the group begins if it is new
    #[arg(
        long,
        value_name = "earliest|latest|POSITION",
        default_value = "earliest"
    )]
    from: Start,

    /// How many messages are worked on at the same time; a program is given so many before it answers the first
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,

    /// How many processes of the program to run
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "json", value_parser = clap::value_parser!(u16).range(1..))]
    processes: u16,

    /// How long the program may take to answer a message before it is killed and started again
    ///
    /// The time of a message begins when the program is given it, or when those before it have been answered, whichever is
    /// later. Answers to messages that came after it do not prolong it.
    #[arg(long, value_name = "DURATION", default_value = "30s", conflicts_with = "json", value_parser = duration::parse)]
    answer_within: Duration,

    #[command(flatten)]
    broker: BrokerArgs,
}

/// Answers requests of one type.
#[derive(Clone)]
struct Responder {
    kind: Arc<str>,
    by: By,
}

#[derive(Clone)]
enum By {
    Template(Arc<Template>),
    Program(Program),
}

impl Reply {
    pub(crate) async fn run(self) -> Result<()> {
        // Before the program is started: a signal in between would leave it behind.
        let signals = signal::signals()?;
        let group = self.group()?;
        let (by, mut running) = self.responder()?;
        tokio::select! {
            ended = self.serve(&group, by, &mut running, signals.finish) => ended,
            () = signals.end.cancelled() => {
                running.kill().await;
                signal::exit()
            }
        }
    }

    /// Answers until `shutdown`.
    async fn serve(
        &self,
        group: &Name,
        by: By,
        running: &mut Running,
        shutdown: CancellationToken,
    ) -> Result<()> {
        let broker = tokio::select! {
            connected = self.broker.connect() => connected?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let responder = Responder {
            kind: self.kind.as_str().into(),
            by,
        };
        let (topic, partitions) = (&self.topic, broker.partitions(&self.topic).await?);
        let divided = match partitions {
            0 => String::new(),
            _ => format!(", of each key in order in {partitions} partitions"),
        };
        message(&format!(
            "answering {} on {topic} as group {group}{divided} (Ctrl-C stops)",
            self.kind
        ));
        let worker = Worker::new(broker);
        let worker = match partitions {
            0 => worker.topic(topic.to_byte_string()),
            _ => worker.ordered_topic(topic.to_byte_string(), partitions),
        };
        let worker = worker
            .group(ByteString::from(group.as_str()))
            .start(self.from)
            .concurrency(self.concurrency.into())
            .serve(tower::service_fn(move |request| {
                let responder = responder.clone();
                async move { Ok::<_, Infallible>(responder.answer(request).await) }
            }))
            .with_graceful_shutdown(shutdown.cancelled_owned());
        tokio::select! {
            served = worker.into_future() => served.map_err(ended)?,
            // What the program owes goes to other members.
            failure = running.failed() => return Err(failure),
        }
        running.ended().await
    }

    fn group(&self) -> Result<Name> {
        match &self.group {
            Some(group) => Ok(group.clone()),
            None => Name::new(format!("reply-{}", self.kind)).map_err(|_| {
                Failure::usage(
                    "group-missing",
                    format!("the type {:?} cannot be part of a group's name", self.kind),
                )
                .with_help("name the group with --group NAME")
            }),
        }
    }

    fn responder(&self) -> Result<(By, Running)> {
        if let Some(template) = &self.json {
            let template = Arc::new(Template::parse(template)?);
            return Ok((By::Template(template), Running::default()));
        }
        if self.program.is_empty() {
            return Err(
                Failure::usage("backend-missing", "nothing is named that answers").with_help(
                    "add --json TEMPLATE to answer with a template, or -- CMD to answer by a program",
                ),
            );
        }
        if self.processes > self.concurrency {
            return Err(Failure::usage(
                "idle-processes",
                format!(
                    "of --processes {} some would have nothing to do with --concurrency {}",
                    self.processes, self.concurrency
                ),
            ));
        }
        let (program, running) = Program::start(Spec {
            command: self.program.clone(),
            processes: self.processes.into(),
            depth: self.concurrency.div_ceil(self.processes).into(),
            answer_within: self.answer_within,
        })?;
        Ok((By::Program(program), running))
    }
}

/// Why the worker ended, and what to do about it.
fn ended(error: streamerson_core::Error) -> Failure {
    let is_divided = error.code() == "topic-divided";
    let failure = Failure::from(error);
    match is_divided {
        true => failure.with_help("start it again: then it answers in all partitions"),
        false => failure,
    }
}

impl Responder {
    async fn answer(&self, request: Request) -> streamerson::Reply {
        if request.kind() != &*self.kind {
            return NoReply.into_reply();
        }
        match &self.by {
            By::Template(template) => match template.render(request.message()) {
                Ok(json) => streamerson::Reply::new(json),
                Err(error) => Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "template-failed",
                    format!("the template cannot be rendered for this message: {error}"),
                )
                .into_reply(),
            },
            By::Program(program) => {
                let (given, mut was_given) = oneshot::channel();
                let asking = ask(program, &request, given);
                let Some(left) = request.deadline().remaining() else {
                    return asking.await;
                };
                if let Ok(reply) = tokio::time::timeout(left, asking).await {
                    return reply;
                }
                // Closed first: from here on it is not given to the program any more.
                was_given.close();
                // Whoever had it before may have given it to a program, too.
                let begun = was_given.try_recv().is_ok() || request.attempt() > 1;
                too_late(begun).into_reply()
            }
        }
    }
}

/// The answer at the deadline. For what has `begun` it is the one that the caller's own end gives at that moment: it must
/// not depend on which of them is first.
fn too_late(begun: bool) -> Problem {
    let (code, detail) = match begun {
        true => (
            "no-reply-in-time",
            "the program did not answer before the deadline; the message may have been handled, or may still be",
        ),
        false => (
            "deadline-passed",
            "the deadline passed before the program was given the message; nothing happened",
        ),
    };
    Problem::new(StatusCode::GATEWAY_TIMEOUT, code, detail)
}

/// Has the program answer; `given` is told when it is given the message.
async fn ask(
    program: &Program,
    request: &Request,
    given: oneshot::Sender<()>,
) -> streamerson::Reply {
    let question = line::question(request.message());
    let id = &request.message().id;
    let waited_for = request.message().reply_to().is_some();
    let mut tries = if waited_for { TRIES } else { 1 };
    let mut given = Some(given);
    loop {
        tries -= 1;
        let problem = match program.ask(id, question.clone(), given.take()).await {
            Ok(Answer::Payload(json)) => return streamerson::Reply::new(json),
            Ok(Answer::Problem(problem)) => return problem.into_reply(),
            Ok(Answer::Unusable(why)) => ("invalid-reply", why),
            Err(_) if tries > 0 => continue,
            Err(died) => ("program-died", died.reason),
        };
        return Problem::new(StatusCode::BAD_GATEWAY, problem.0, problem.1).into_reply();
    }
}
