//! A segment: one file of frames behind a head that says what it is.
//!
//! The file has its full size from the beginning; what is not written yet is zeros. Its first frame is a checkpoint.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::io::Errno;
use streamerson_core::{Error, ErrorKind, Result};

use super::frame::{HEADER, Header};
use super::open::OpenFiles;

/// Bytes before the first frame.
pub(crate) const HEAD: u64 = 64;

/// No segment is larger: offsets in it are 32 bits.
pub(crate) const LARGEST: u64 = u32::MAX as u64;

/// The version of the format of segments, frames and records.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"strmrlog";
const CHECKED: usize = 32;

/// One file of the log. It is opened when it is needed.
#[derive(Debug)]
pub(crate) struct Segment {
    number: u64,
    path: PathBuf,
    open: Arc<OpenFiles>,
    /// Stays open.
    kept: OnceLock<Arc<File>>,
    salt: u64,
    size: u64,
}

impl Segment {
    /// A segment in a new `file`, whose head is already written.
    pub(crate) fn new(
        number: u64,
        path: PathBuf,
        file: Arc<File>,
        salt: u64,
        size: u64,
        open: &Arc<OpenFiles>,
    ) -> Segment {
        open.keep(number, file);
        Segment {
            number,
            path,
            open: open.clone(),
            kept: OnceLock::new(),
            salt,
            size,
        }
    }

    /// Opens a file and reads its head.
    pub(crate) fn open(number: u64, path: PathBuf, files: &Arc<OpenFiles>) -> Result<Segment> {
        let open = || {
            let file = File::options().read(true).write(true).open(&path)?;
            let size = file.metadata()?.len();
            let mut head = [0; HEAD as usize];
            let whole = size >= HEAD && file.read_exact_at(&mut head, 0).is_ok();
            Ok((file, size, whole.then_some(head)))
        };
        let (file, size, head) = open().map_err(|error| unreadable(&path, &error))?;
        let salt = match head {
            Some(head) => read_head(&head, number, &path)?,
            None => return Err(damaged(&path, 0, "the head of the segment is cut off")),
        };
        Ok(Segment::new(
            number,
            path,
            Arc::new(file),
            salt,
            size,
            files,
        ))
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, open for reading and writing.
    pub(crate) fn file(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.kept.get() {
            return Ok(file.clone());
        }
        let opened = self.open.get(self.number, &self.path);
        // Its name may have gone this moment.
        opened.or_else(|error| self.kept.get().cloned().ok_or(error))
    }

    /// Keeps the file open: who is reading it can go on when its name is gone.
    pub(crate) fn keep_open(&self) -> io::Result<()> {
        let file = self.file()?;
        self.kept.get_or_init(|| file);
        Ok(())
    }

    /// What binds frames to it.
    pub(crate) fn salt(&self) -> u64 {
        self.salt
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // One that was deleted takes space as long as it is open.
        self.open.forget(self.number);
    }
}

/// The head of a segment.
pub(crate) fn head(number: u64, salt: u64) -> [u8; HEAD as usize] {
    let mut head = [0; HEAD as usize];
    head[0..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[16..24].copy_from_slice(&number.to_le_bytes());
    head[24..32].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&head[..CHECKED]);
    head[CHECKED..CHECKED + 4].copy_from_slice(&crc.to_le_bytes());
    head
}

fn read_head(head: &[u8; HEAD as usize], number: u64, path: &Path) -> Result<u64> {
    let word = |from: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| head[from + i]));
    let long = |from: usize| u64::from(word(from)) | u64::from(word(from + 4)) << 32;
    if &head[0..8] != MAGIC || word(CHECKED) != crc32c::crc32c(&head[..CHECKED]) {
        return Err(damaged(path, 0, "the head of the segment is not intact"));
    }
    if word(8) != FORMAT {
        return Err(Error::invalid(
            "unknown-log-format",
            format!(
                "{} has log format {}, this version reads format {FORMAT}: use the version that wrote it",
                path.display(),
                word(8)
            ),
        ));
    }
    if long(16) != number {
        let why = format!("it says that it is segment {}: was it renamed?", long(16));
        return Err(damaged(path, 16, &why));
    }
    Ok(long(24))
}

/// Reads frames of one segment, a block of neighbours at a time.
#[derive(Debug)]
pub(crate) struct Blocks {
    segment: Arc<Segment>,
    ahead: usize,
    start: u64,
    block: Bytes,
}

impl Blocks {
    /// Reads at least `ahead` bytes at a time.
    pub(crate) fn new(segment: Arc<Segment>, ahead: usize) -> Blocks {
        Blocks {
            segment,
            ahead,
            start: 0,
            block: Bytes::new(),
        }
    }

    /// What is read.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The body of the frame at `offset`, and where the next one begins. `None`: there is no whole frame.
    pub(crate) fn frame(&mut self, offset: u64) -> io::Result<Option<(Bytes, u64)>> {
        let head = self.bytes(offset, HEADER)?;
        let Some(header) = Header::read(&head, self.segment.salt, offset) else {
            return Ok(None);
        };
        let next = offset + header.total();
        if next > self.segment.size {
            return Ok(None);
        }
        let body = self.bytes(offset + HEADER as u64, header.length as usize)?;
        Ok(header.verify(&body).then_some((body, next)))
    }

    /// `length` bytes at `offset`, or fewer at the end of the file.
    pub(crate) fn bytes(&mut self, offset: u64, length: usize) -> io::Result<Bytes> {
        let held = self.start..self.start + self.block.len() as u64;
        if offset < held.start || offset + length as u64 > held.end {
            self.read(offset, length.max(self.ahead))?;
        }
        let from = (offset - self.start) as usize;
        let to = (from + length).min(self.block.len());
        Ok(self.block.slice(from.min(to)..to))
    }

    fn read(&mut self, offset: u64, length: usize) -> io::Result<()> {
        let left = self.segment.size.saturating_sub(offset);
        let mut block = vec![0; (length as u64).min(left) as usize];
        let file = self.segment.file()?;
        let mut filled = 0;
        while filled < block.len() {
            match file.read_at(&mut block[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        block.truncate(filled);
        self.start = offset;
        self.block = block.into();
        Ok(())
    }
}

/// Stored data cannot be trusted. Nothing is deleted: what to do is for people to decide.
pub(crate) fn damaged(path: &Path, offset: u64, why: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "log-damaged",
        format!(
            "{} is damaged at byte {offset}: {why}. Nothing was changed. Keep a copy of the directory, look at the disk, \
             and restore the file from a backup",
            path.display()
        ),
    )
}

/// A file cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Error {
    let errno = Errno::from_io_error(error);
    if matches!(errno, Some(Errno::MFILE | Errno::NFILE)) {
        let path = path.display();
        return Error::unavailable(
            "storage-failed",
            format!("{path} cannot be read now: {error}. Raise the limit of open files"),
        );
    }
    Error::new(
        ErrorKind::Corrupt,
        "log-unreadable",
        format!(
            "{} cannot be read: {error}. Check the permissions of the directory, and the disk",
            path.display()
        ),
    )
}
