//! CPU time, as Linux accounts it in `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// User and system time of one process, with that of children it has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    group: u32,
    own: u64,
    children: u64,
}

/// The CPU time that a process group has used: its leader, all threads, and processes it forked,
/// running (nginx workers) or gone.
pub(crate) fn of_group(group: u32) -> Result<Duration> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc").context("no /proc on this machine")? {
        let stat = entry?.path().join("stat");
        // Most entries are no process, and a process may end between the two looks.
        let Ok(text) = fs::read_to_string(&stat) else {
            continue;
        };
        if let Some(usage) = parse_stat(&text).filter(|usage| usage.group == group) {
            ticks += usage.own + usage.children;
        }
    }
    Ok(duration(ticks))
}

/// The CPU time of children of this program that have ended: wrk.
pub(crate) fn of_ended_children() -> Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let usage = parse_stat(&text).context("cannot read /proc/self/stat")?;
    Ok(duration(usage.children))
}

/// The CPU time that all processes of the machine have used, or that its host has withheld.
pub(crate) fn of_machine() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    parse_machine(&text)
        .map(duration)
        .context("cannot read /proc/stat")
}

fn duration(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_micros(ticks * 1_000_000 / per_second)
}

/// Reads `/proc/PID/stat`, proc_pid_stat(5). The second field is the name of the program, which
/// may hold spaces and brackets, so counting starts after the last bracket, with the third.
fn parse_stat(text: &str) -> Option<Usage> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Usage {
        group: field(5)?.try_into().ok()?,
        own: field(14)? + field(15)?,
        children: field(16)? + field(17)?,
    })
}

/// All but the idle times in the first line of `/proc/stat`, in ticks: what programs have used, here
/// and in other guests of the same host. Interrupts are part of it because most kernels account
/// them to the program they interrupt; where they do not, they make the machine look busier.
fn parse_machine(text: &str) -> Option<u64> {
    let all = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<&str> = all.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 1)?.parse::<u64>().ok();
    let (user, nice, system) = (field(1)?, field(2)?, field(3)?);
    let (interrupts, soft_interrupts, steal) = (field(6)?, field(7)?, field(8)?);
    Some(user + nice + system + interrupts + soft_interrupts + steal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_program_name() {
        let text = "42 (a) b (c)) S 1 77 77 0 -1 4194560 100 200 0 0 31 12 5 7 20 0 2 0 900 1 2";
        assert_eq!(
            parse_stat(text),
            Some(Usage {
                group: 77,
                own: 43,
                children: 12
            })
        );
    }

    #[test]
    fn stat_that_is_cut_short_is_no_usage() {
        assert_eq!(parse_stat("42 (redis) S 1 77 77 0"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn time_of_the_machine_is_all_that_is_not_idle() {
        assert_eq!(
            parse_machine("cpu  100 20 3 9999 5 6 7 4000 0 0\ncpu0 1 1 1 1"),
            Some(4136)
        );
        assert_eq!(parse_machine("cpu  100"), None);
        assert_eq!(parse_machine("intr 1 2 3"), None);
    }

    #[test]
    fn a_busy_child_is_seen_in_its_group_and_after_its_end() {
        use std::os::unix::process::CommandExt as _;
        use std::process::Command;

        let before = of_ended_children().unwrap();
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; read end";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .process_group(0)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        while of_group(child.id()).unwrap() < Duration::from_millis(20) {
            assert!(
                child.try_wait().unwrap().is_none(),
                "ended without having been seen"
            );
            std::thread::yield_now();
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(of_ended_children().unwrap() > before);
    }
}
