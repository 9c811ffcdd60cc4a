//! The next segment, made ready in the background, so that no commit waits for it; and other slow work on files.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::directory::private;
use super::files::Files;

/// An empty file of zeros, to become a segment.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Open.
    pub(crate) file: File,
    /// Its bytes.
    pub(crate) size: u64,
}

/// Does the slow work on files, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Preparer {
    tasks: Option<Sender<Task>>,
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Task {
    Prepare(u64),
    Sync(PathBuf, Arc<File>),
    Delete(PathBuf),
}

#[derive(Debug, Default)]
struct Slot {
    next: Mutex<Next>,
    done: Condvar,
}

#[derive(Debug, Default)]
enum Next {
    #[default]
    None,
    Working,
    Ready(Prepared),
    Failed(io::Error),
}

impl Preparer {
    /// Starts the thread. Segments are prepared in the file `path`; `written`: see [`Files::allocate`].
    pub(crate) fn start(
        path: PathBuf,
        files: Arc<dyn Files>,
        written: bool,
    ) -> io::Result<Preparer> {
        let (tasks, inbox) = mpsc::channel();
        let slot = Arc::new(Slot::default());
        let worker = Worker {
            path,
            files,
            written,
            slot: slot.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("streamerson-files".into())
            .spawn(move || worker.run(inbox))?;
        Ok(Preparer {
            tasks: Some(tasks),
            slot,
            thread: Some(thread),
        })
    }

    /// Begins a segment of `size` bytes, unless one is being made or ready.
    pub(crate) fn request(&self, size: u64) {
        let mut next = self.slot.next.lock();
        if matches!(*next, Next::None | Next::Failed(_)) {
            *next = Next::Working;
            self.send(Task::Prepare(size));
        }
    }

    /// Whether the next segment is ready.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.slot.next.lock(), Next::Ready(_))
    }

    /// Whether the last attempt failed.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(*self.slot.next.lock(), Next::Failed(_))
    }

    /// The next segment, of at least `size` bytes: waits while it is made.
    pub(crate) fn take(&self, size: u64) -> io::Result<Prepared> {
        loop {
            self.request(size);
            let mut next = self.slot.next.lock();
            while matches!(*next, Next::Working) {
                self.slot.done.wait(&mut next);
            }
            match std::mem::take(&mut *next) {
                Next::Ready(prepared) if prepared.size >= size => return Ok(prepared),
                // Too small: replaced by the next request.
                Next::Ready(_) | Next::None | Next::Working => {}
                Next::Failed(error) => {
                    let same = error
                        .raw_os_error()
                        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
                    *next = Next::Failed(error);
                    return Err(same);
                }
            }
        }
    }

    /// Brings a segment that is no longer written to the disk.
    pub(crate) fn sync(&self, path: PathBuf, file: Arc<File>) {
        self.send(Task::Sync(path, file));
    }

    /// Deletes the file of a segment.
    pub(crate) fn delete(&self, path: PathBuf) {
        self.send(Task::Delete(path));
    }

    fn send(&self, task: Task) {
        // The thread only ends after the sender is dropped.
        let _ = self.tasks.as_ref().map(|tasks| tasks.send(task));
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    path: PathBuf,
    files: Arc<dyn Files>,
    written: bool,
    slot: Arc<Slot>,
}

impl Worker {
    fn run(self, inbox: Receiver<Task>) {
        for task in inbox {
            match task {
                Task::Prepare(size) => {
                    let next = match self.prepare(size) {
                        Ok(file) => Next::Ready(Prepared { file, size }),
                        Err(error) => {
                            let _ = fs::remove_file(&self.path);
                            Next::Failed(error)
                        }
                    };
                    *self.slot.next.lock() = next;
                    self.slot.done.notify_all();
                }
                Task::Sync(path, file) => {
                    if let Err(error) = self.files.sync(&file) {
                        let path = path.display();
                        tracing::warn!(%path, %error, "a closed segment could not be synced");
                    }
                }
                Task::Delete(path) => {
                    if let Err(error) = fs::remove_file(&path) {
                        let path = path.display();
                        tracing::warn!(%path, %error, "a segment that is no longer needed could not be deleted");
                    }
                }
            }
        }
    }

    fn prepare(&self, size: u64) -> io::Result<File> {
        let file = private().truncate(true).open(&self.path)?;
        self.files.allocate(&file, size, self.written)?;
        Ok(file)
    }
}
