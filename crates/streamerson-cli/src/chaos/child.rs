//! Processes of a run, which end with it: also when the run itself is killed.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{ChildStdout, Command};

/// This program, also when its file was replaced meanwhile.
const SELF: &str = "/proc/self/exe";
/// The variable by which a process of a run knows who started it.
const PARENT: &str = "STREAMERSON_CHAOS_PARENT";

/// A process in a group of its own, so that Ctrl-C reaches the run first. Killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    pid: Option<Pid>,
}

impl Child {
    /// Starts this program with `arguments`; its standard output can be taken, its standard error is `errors`.
    pub(crate) fn start(arguments: &[String], errors: Stdio) -> io::Result<Child> {
        let process = Command::new(SELF)
            .args(arguments)
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = process.id().and_then(|id| i32::try_from(id).ok());
        Ok(Child {
            process,
            pid: pid.and_then(Pid::from_raw),
        })
    }

    /// Starts another program with `arguments`.
    pub(crate) fn start_other(arguments: &[String], errors: Stdio) -> io::Result<Child> {
        let tied = ["chaos-child".to_owned(), "--".to_owned()];
        let arguments: Vec<String> = tied.iter().chain(arguments).cloned().collect();
        Child::start(&arguments, errors)
    }

    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// Waits for its end. Safe to cancel.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// How it ended, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Ends it as a crash does, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        // Fails only when it has ended already.
        let _ = self.process.kill().await;
    }

    /// Sends it `signal`, while it lives.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.has_ended().is_none()
            && let Some(pid) = self.pid
        {
            // It may end in this moment, which is no harm: its id is kept until it is waited for.
            let _ = kill_process(pid, signal);
        }
    }
}

/// In a process of a run: ends it when the run does.
pub(crate) fn end_with_parent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // If it ended before this, there will be no signal.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().to_string());
    match parent == std::env::var(PARENT).ok() {
        true => Ok(()),
        false => Err(io::Error::other(
            "the run that started this process is gone",
        )),
    }
}

/// Becomes `program`, and ends with the parent. Returns only the reason why it could not.
pub(crate) fn become_program(program: &str, arguments: &[String]) -> io::Error {
    if let Err(error) = end_with_parent() {
        return error;
    }
    std::process::Command::new(program).args(arguments).exec()
}
