//! One running process: questions on its stdin, answers on its stdout, its stderr passed through.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::line::{Line, Lines, MAX_ANSWER};

/// How long a process may take to end once its stdin is closed.
const GRACE: Duration = Duration::from_secs(5);
/// How long we wait for the exit status of a process that closed its stdout.
const STATUS: Duration = Duration::from_secs(1);

pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Whether it closed its input.
    deaf: bool,
    lines: Lines<BufReader<ChildStdout>>,
    outgoing: BytesMut,
}

impl Process {
    /// Starts `command`, whose first word is the program.
    pub(crate) fn start(command: &[OsString]) -> io::Result<Process> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us: the program must be able to answer what it has been asked.
            .process_group(0)
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no standard output"))?;
        Ok(Process {
            child,
            stdin,
            deaf: false,
            lines: Lines::new(BufReader::new(stdout), MAX_ANSWER),
            outgoing: BytesMut::new(),
        })
    }

    /// Has `question` written, in its turn.
    pub(crate) fn put(&mut self, question: &Bytes) {
        self.outgoing.extend_from_slice(question);
    }

    /// Writes questions until there is a line; none when the process closed its output. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        loop {
            let Process {
                stdin,
                deaf,
                lines,
                outgoing,
                ..
            } = self;
            let pending = !outgoing.is_empty() && !*deaf;
            tokio::select! {
                line = lines.next() => return line.unwrap_or_default(),
                written = write(stdin, outgoing), if pending => match written {
                    Ok(count) => outgoing.advance(count),
                    // It reads no more, but may still answer what it has read.
                    Err(_) => *deaf = true,
                },
            }
        }
    }

    /// How many bytes of the questions it has not read.
    pub(crate) fn unread_bytes(&self) -> usize {
        // What nobody has read stays in the pipe for as long as our end is open.
        let unread = self.stdin.as_ref().map(ioctl_fionread);
        let in_pipe = unread.and_then(|unread| unread.ok()).unwrap_or(0);
        self.outgoing.len() + usize::try_from(in_pipe).unwrap_or(usize::MAX)
    }

    /// Ends a process whose answers nobody waits for: closes its stdin, and waits for a while.
    pub(crate) async fn finish(mut self) {
        self.stdin = None;
        let Process { child, lines, .. } = &mut self;
        let ended = async {
            loop {
                tokio::select! {
                    _ = child.wait() => return,
                    // It may still answer what it has read: a full pipe must not keep it from its end.
                    Ok(Some(_)) = lines.next() => (),
                }
            }
        };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            tracing::warn!("the program did not end when its input did, and was killed");
            self.kill().await;
        }
    }

    /// Ends a process that closed its output, and answers how it ended.
    pub(crate) async fn status(mut self) -> String {
        self.stdin = None;
        match tokio::time::timeout(STATUS, self.child.wait()).await {
            Ok(Ok(status)) => format!("the program ended: {status}"),
            _ => {
                self.kill().await;
                "the program closed its output, and was killed".to_owned()
            }
        }
    }

    /// Ends the process, and what it started, at once.
    pub(crate) async fn kill(mut self) {
        self.kill_group();
        let _ = self.child.wait().await;
    }

    fn kill_group(&self) {
        // None once its end is known: then its id may be another's.
        let group = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Process {
    /// Whoever lets go of a process that has not ended must not leave it, nor what it started, behind.
    fn drop(&mut self) {
        self.kill_group();
    }
}

async fn write(stdin: &mut Option<ChildStdin>, outgoing: &BytesMut) -> io::Result<usize> {
    match stdin {
        Some(stdin) => match stdin.write(outgoing).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        },
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}
