//! Child processes that never outlive the test that started them.

use std::io;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// How often a running process is asked whether it has ended: there is no portable event to wait for.
const LOOK: Duration = Duration::from_millis(2);

/// Waits for the test process to end, by the end of its standard input, and then ends the child and its files: `Drop`
/// does not run for statics, nor when the test process itself is killed.
const WATCHDOG: &str =
    r#"trap "" HUP INT TERM; read -r _; kill -9 "$1" 2>/dev/null; [ -z "$2" ] || rm -rf "$2""#;

/// A child process, killed when this is dropped, and also when the test process dies without dropping it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::process::Command;
/// use std::time::Duration;
/// use streamerson_testkit::process::Process;
///
/// let mut process = Process::spawn(Command::new("sleep").arg("1000"))?;
/// process.terminate();
/// assert!(process.exited(Duration::from_secs(10)).await.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Child,
}

impl Process {
    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> io::Result<Process> {
        Process::spawn_with_files(command, None)
    }

    /// Starts `command`, which keeps its files in `folder`: they go too if the test process dies.
    pub fn spawn_with_files(command: &mut Command, folder: Option<&Path>) -> io::Result<Process> {
        let mut child = command.spawn()?;
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(child.id().to_string())
            .arg(folder.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Process { child, watchdog }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, once, if it is piped.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, once, if it is piped.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard error, once, if it is piped.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Asks it to end: SIGTERM.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Stops it in its tracks, sockets open: SIGSTOP.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Process::pause`].
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once, as a crash does (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only when it has ended and was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it has ended, and answers how; `None` if it still runs after `patience`.
    pub async fn exited(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.status();
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            sleep(LOOK).await;
        }
    }

    fn signal(&mut self, signal: Signal) {
        // A process waited for has given its id back: it may belong to another by now.
        if self.status().is_none()
            && let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // Killed rather than released, so that it does not act on a process id that is free again.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn gone(pid: u32) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            // Without a parent that waits, a dead process stays as a zombie until init looks.
            if stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")) {
                return true;
            }
            sleep(LOOK).await;
        }
        false
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone_even_when_paused() {
        let mut process = Process::spawn(Command::new("sleep").arg("1000")).unwrap();
        let pid = process.pid();
        process.pause();
        drop(process);
        assert!(gone(pid).await);
    }

    #[tokio::test]
    async fn terminate_ends_it_by_signal() {
        use std::os::unix::process::ExitStatusExt;
        let mut process = Process::spawn(Command::new("sleep").arg("1000")).unwrap();
        process.terminate();
        let status = process.exited(PATIENCE).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    }

    #[tokio::test]
    async fn a_running_process_has_not_exited() {
        let mut process = Process::spawn(Command::new("sleep").arg("1000")).unwrap();
        assert_eq!(process.exited(Duration::ZERO).await, None);
    }

    /// The watchdog itself, run by a stand-in for the test process that dies without any clean-up.
    #[tokio::test]
    async fn the_watchdog_ends_child_and_files_of_a_killed_test_process() {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let script = format!(
            r#"sleep 1000 & sleeper=$!; echo $sleeper; exec 3>/dev/null
               mkfifo "$1.pipe"; sh -c '{WATCHDOG}' watchdog $sleeper "$1" <"$1.pipe" >/dev/null &
               exec 4>"$1.pipe"; echo ready; read -r _"#
        );
        let mut parent = Command::new("sh")
            .args(["-c", &script, "parent"])
            .arg(&files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let sleeper: u32 = lines.next().unwrap().unwrap().parse().unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");

        parent.kill().unwrap();
        parent.wait().unwrap();

        assert!(gone(sleeper).await);
        let deadline = Instant::now() + PATIENCE;
        while files.exists() && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        assert!(!files.exists());
    }

    #[test]
    fn standard_output_can_be_read() {
        let mut process =
            Process::spawn(Command::new("echo").arg("hello").stdout(Stdio::piped())).unwrap();
        let mut text = String::new();
        process
            .take_stdout()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello\n");
        assert!(process.take_stdout().is_none());
    }
}
