//! The command line: what there is to call.

use clap::{Parser, Subcommand};

use crate::chaos::worker::ChaosWorker;
use crate::command::chaos::Chaos;
use crate::command::chaos_child::ChaosChild;
use crate::command::completions::Completions;
use crate::command::dev::Dev;
use crate::command::dlq::DlqCommand;
use crate::command::gateway::GatewayCommand;
use crate::command::group::GroupCommand;
use crate::command::reply::Reply;
use crate::command::request::Request;
use crate::command::send::Send;
use crate::command::tail::Tail;
use crate::command::topic::TopicCommand;
use crate::failure::Result;
use crate::log::LogArgs;

const AFTER_HELP: &str = "\
Examples:
  streamerson dev --demo
  streamerson request hello greet --data '{\"name\":\"Ada\"}'
  streamerson reply shop order.create --json '{\"ordered\":\"{{payload.item}}\"}'
  streamerson reply shop order.create -- python3 worker.py
  streamerson tail shop --from earliest -o json
  streamerson group ls
  streamerson dlq retry shop --code handler-failed --dry-run

Data goes to standard output, messages to standard error.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 conflict, 5 not authorized,
  6 broker or worker unreachable, 124 no answer in time";

/// APIs over durable streams: a gateway, a broker and tools, in one program
#[derive(Debug, Parser)]
#[command(name = "streamerson", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    log: LogArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(Dev),
    Gateway(GatewayCommand),
    Send(Send),
    Request(Request),
    Reply(Reply),
    Tail(Tail),
    Topic(TopicCommand),
    Group(GroupCommand),
    Dlq(DlqCommand),
    Chaos(Chaos),
    #[command(hide = true)]
    ChaosChild(ChaosChild),
    #[command(hide = true)]
    ChaosWorker(ChaosWorker),
    Completions(Completions),
}

impl Cli {
    /// Does what was asked for.
    pub(crate) async fn run(self) -> Result<()> {
        self.log.start()?;
        match self.command {
            Command::Dev(dev) => dev.run().await,
            Command::Gateway(gateway) => gateway.run().await,
            Command::Send(send) => send.run().await,
            Command::Request(request) => request.run().await,
            Command::Reply(reply) => reply.run().await,
            Command::Tail(tail) => tail.run().await,
            Command::Topic(topic) => topic.run().await,
            Command::Group(group) => group.run().await,
            Command::Dlq(dlq) => dlq.run().await,
            Command::Chaos(chaos) => chaos.run().await,
            Command::ChaosChild(child) => child.run(),
            Command::ChaosWorker(worker) => worker.run().await,
            Command::Completions(completions) => completions.run(),
        }
    }
}
