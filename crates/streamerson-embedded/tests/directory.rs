//! The data directory: one process at a time, for this user only, and clear words when it cannot be used.

#![allow(
    clippy::print_stdout,
    reason = "processes say that they are ready, tests that they are skipped"
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use store::{append, done, join, open, options, payloads, segments, settle, take, topic};
use streamerson_core::retention::Retention;
use streamerson_core::{Broker, Durability, ErrorKind, Result};
use streamerson_embedded::{EmbeddedBroker, Options};

const DIR: &str = "STREAMERSON_TEST_DIR";

/// Not a test: another process that works on the directory until its stdin ends.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn holder() {
    if let Ok(dir) = std::env::var(DIR) {
        let _broker = open(Path::new(&dir)).unwrap();
        println!("\nopen");
        let _ = std::io::stdin().lines().count();
    }
}

#[test]
fn a_second_process_is_refused_until_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["holder", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "open"));
    let error = open(dir.path()).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Unavailable, "data-directory-locked")
    );
    assert!(
        error.detail().contains(dir.path().to_str().unwrap()),
        "{error}"
    );
    assert!(error.detail().contains("stop that one"), "{error}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn the_directory_is_released_with_the_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    append(&broker, "orders", &["one"]).await;
    let member = join(&broker, "orders", "ada").await;
    drop(broker);
    assert_eq!(
        open(dir.path()).unwrap_err().code(),
        "data-directory-locked"
    );
    drop(member);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn files_are_for_this_user_only() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("new").join("data");
    let broker = open(&dir).unwrap();
    append(&broker, "orders", &["secret"]).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

fn assert_unusable(opened: Result<EmbeddedBroker>, dir: &Path) {
    let error = opened.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Invalid, "data-directory-unusable")
    );
    assert!(error.detail().contains(dir.to_str().unwrap()), "{error}");
}

#[test]
fn a_directory_that_cannot_be_created_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let dir = file.join("data");
    assert_unusable(open(&dir), &dir);
}

#[tokio::test]
async fn a_read_only_directory_is_named() {
    let Some(mounted) = Mount::tmpfs("4m") else {
        return;
    };
    drop(open(&mounted.path).unwrap());
    mounted.remount("ro");
    assert_unusable(open(&mounted.path), &mounted.path);
}

#[test]
fn options_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = Options {
        segment_bytes: 100,
        ..Options::default()
    };
    let error = EmbeddedBroker::open(dir.path(), tiny).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Invalid, "invalid-options")
    );
    let error = EmbeddedBroker::open(dir.path(), options(Durability::Replicated(1))).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Invalid, "unknown-durability")
    );
}

#[tokio::test]
async fn a_newer_format_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let file = &segments(dir.path())[0];
    let mut bytes = fs::read(file).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    fs::write(file, &bytes).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Invalid, "unknown-log-format")
    );
    assert_eq!(fs::read(file).unwrap(), bytes);
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_appends_and_takes_them_again_once_there_is_space() {
    let Some(mounted) = Mount::tmpfs("6m") else {
        return;
    };
    let data = mounted.path.join("data");
    for durability in [Durability::Os, Durability::Disk] {
        let broker = EmbeddedBroker::open(&data, options(durability)).unwrap();
        append(&broker, "orders", &["first"]).await;
        let mut member = join(&broker, "orders", "ada").await;
        let first = take(&mut member, 1).await.remove(0);
        let filler = "x".repeat(100_000);
        let mut stored = 1;
        let error = loop {
            match try_append(&broker, &filler).await {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
            assert!(stored < 100, "6 MB must be full by now");
        };
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Unavailable, "disk-full")
        );
        assert!(error.detail().contains(data.to_str().unwrap()), "{error}");
        settle(&*member, first, done()).await.unwrap();
        assert_eq!(payloads(&broker, "orders").await.unwrap().len(), stored);
        let all = Retention {
            max_len: Some(0),
            force: true,
            ..Retention::default()
        };
        broker.trim(&topic("orders"), all).await.unwrap();
        let freed = Instant::now();
        while try_append(&broker, &filler).await.is_err() {
            assert!(
                freed.elapsed() < Duration::from_secs(1),
                "appends must resume"
            );
            tokio::task::yield_now().await;
        }
        drop((member, broker));
        let broker = EmbeddedBroker::open(&data, options(durability)).unwrap();
        assert_eq!(payloads(&broker, "orders").await.unwrap(), [filler]);
        drop(broker);
        fs::remove_dir_all(&data).unwrap();
    }
}

async fn try_append(broker: &EmbeddedBroker, text: &str) -> Result<()> {
    let message = streamerson_core::Message::new("test", text.to_owned());
    let batch = vec![streamerson_core::Append::new(topic("orders"), message)];
    broker.append(batch).await.remove(0).map(|_| ())
}

/// A file system of its own; needs root. Without, the tests that need one see to it that others check the same.
struct Mount {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mount {
    fn tmpfs(size: &str) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("skipped: this user may not mount");
            return None;
        }
        Some(Mount { path, _dir: dir })
    }

    fn remount(&self, how: &str) {
        let how = format!("remount,{how}");
        let done = Command::new("mount")
            .args(["-o", &how])
            .arg(&self.path)
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}
