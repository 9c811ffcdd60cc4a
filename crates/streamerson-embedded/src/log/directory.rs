//! The data directory: its lock, and the files in it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs4::fs_std::FileExt as _;
use streamerson_core::{Error, Result};

use super::open::OpenFiles;

const LOCK: &str = "LOCK";
const NEXT: &str = "next";
const SUFFIX: &str = ".log";

/// A data directory that this process, and no other, works on.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Open for good: to sync it must not depend on whether there is a descriptor left.
    handle: File,
    /// Locked until this is dropped, or the process dies. Holds the number of the newest segment.
    lock: File,
    open: Arc<OpenFiles>,
}

impl Directory {
    /// Creates the directory as needed, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Directory> {
        let unusable = |error: io::Error| unusable(path, &error);
        create(path).map_err(unusable)?;
        let path = fs::canonicalize(path).map_err(unusable)?;
        let lock = private().open(path.join(LOCK)).map_err(unusable)?;
        if !lock.try_lock_exclusive().map_err(unusable)? {
            return Err(Error::unavailable(
                "data-directory-locked",
                format!(
                    "the data directory {} is in use by another process: stop that one, or give this one a directory of its own",
                    path.display()
                ),
            ));
        }
        let handle = File::open(&path).map_err(unusable)?;
        Ok(Directory {
            path,
            handle,
            lock,
            open: Arc::default(),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The numbers of the segments there are, ascending.
    pub(crate) fn segments(&self) -> Result<Vec<u64>> {
        let numbers = || {
            let mut numbers = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                numbers.extend(entry?.file_name().to_str().and_then(number));
            }
            numbers.sort_unstable();
            Ok(numbers)
        };
        numbers().map_err(|error| unusable(&self.path, &error))
    }

    /// The file of a segment.
    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:020}{SUFFIX}"))
    }

    /// The files of segments that are open.
    pub(crate) fn open_files(&self) -> &Arc<OpenFiles> {
        &self.open
    }

    /// The file that becomes the next segment.
    pub(crate) fn next(&self) -> PathBuf {
        self.path.join(NEXT)
    }

    /// The newest segment there was, as far as noted: it must not be missing.
    pub(crate) fn newest(&self) -> Option<u64> {
        let mut number = [0; 8];
        self.lock.read_exact_at(&mut number, 0).ok()?;
        Some(u64::from_le_bytes(number))
    }

    /// Notes the newest segment.
    pub(crate) fn note_newest(&self, number: u64) -> io::Result<()> {
        self.lock.write_all_at(&number.to_le_bytes(), 0)?;
        self.lock.sync_data()
    }

    /// Makes created, renamed and removed files durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing alone is not enough while a process that was just forked still holds a copy of the handle.
        let _ = fs4::fs_std::FileExt::unlock(&self.lock);
    }
}

/// Creates a directory as needed, and those it lies in, and makes their names durable.
fn create(path: &Path) -> io::Result<()> {
    let holders = holders(&std::path::absolute(path)?);
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path)?;
    for holder in holders {
        File::open(holder)?.sync_all()?;
    }
    Ok(())
}

/// The directories in which a name appears when `path` is created, the innermost first.
fn holders(path: &Path) -> Vec<PathBuf> {
    let missing = path.ancestors().take_while(|dir| !dir.exists());
    missing
        .filter_map(Path::parent)
        .map(Path::to_owned)
        .collect()
}

/// Opens a file for this user only, creating it as needed.
pub(crate) fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let canonical = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok()).flatten()
}

/// The directory cannot be worked in.
pub(crate) fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::invalid(
        "data-directory-unusable",
        format!(
            "the data directory {} cannot be used: {error}. Choose a directory that this user may create and write to",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_all_directories_that_are_created_are_made_durable() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        assert_eq!(holders(&at("a/b/c")), [at("a/b"), at("a"), at("")]);
        fs::create_dir(at("a")).unwrap();
        assert_eq!(holders(&at("a/b/c")), [at("a/b"), at("a")]);
        create(&at("a/b/c")).unwrap();
        assert!(at("a/b/c").is_dir());
        assert!(holders(&at("a/b/c")).is_empty());
    }
}
