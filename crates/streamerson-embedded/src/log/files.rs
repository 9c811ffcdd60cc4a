//! The system calls that change files: a seam, so that tests can make each of them fail.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

const STEP: usize = 1 << 20;

/// Changes files. Reading needs no seam: tests damage the files themselves.
pub(crate) trait Files: Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, where a power loss may take them: they are never synced.
    fn note(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Waits until the file's content is on the disk.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Takes back what was written from `end` on, and leaves the file `size` bytes long.
    fn cut(&self, file: &File, end: u64, size: u64) -> io::Result<()>;

    /// Gives an empty file `size` bytes of zeros, for which the space is taken now. With `written`, the zeros are on
    /// the disk, so that a later sync has no metadata to write.
    fn allocate(&self, file: &File, size: u64, written: bool) -> io::Result<()>;
}

/// The operating system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System;

impl Files for System {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn cut(&self, file: &File, end: u64, size: u64) -> io::Result<()> {
        file.set_len(end)?;
        file.set_len(size)
    }

    fn allocate(&self, file: &File, size: u64, written: bool) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) => {}
            // Not every file system can reserve space; there a full disk is only noticed by the write itself.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(size)?,
            Err(error) => return Err(error.into()),
        }
        if written {
            // In steps, so that the syncs of commits meanwhile do not have to wait for all of it.
            for from in (0..size).step_by(STEP) {
                zero(self, file, from, size.min(from + STEP as u64))?;
                file.sync_data()?;
            }
            file.sync_all()?;
        }
        Ok(())
    }
}

/// Writes zeros from `from` to `to`.
pub(crate) fn zero(files: &dyn Files, file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let part = (to - at).min(ZEROS.len() as u64);
        files.write(file, &ZEROS[..part as usize], at)?;
        at += part;
    }
    Ok(())
}
