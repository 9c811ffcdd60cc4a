//! The end of the log: where commits are written, and how it moves on to the next segment.
//!
//! The next segment is prepared in the background, so its space is taken before it is needed. As long as it is not
//! there (the disk is full), the rest of the active segment is a reserve: appends are refused, settlements go on.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamerson_core::{Durability, Error, ErrorKind, Result};

use super::directory::{Directory, unusable};
use super::encode::{Encoder, REMOVAL};
use super::files::{Files, zero};
use super::frame;
use super::prepare::{Prepared, Preparer};
use super::record::{Record, Sealed};
use super::segment::{HEAD, LARGEST, Segment, head};

/// The size of the first segment: later ones are twice as large as the one before, up to the limit.
const FIRST_SEGMENT: u64 = 1 << 20;

/// A full disk is tried again after this time.
const RETRY_SPACE: Duration = Duration::from_millis(200);

/// Encoding buffers larger than this are given back.
const BUFFER: usize = 4 << 20;

/// How the log is written.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `Os` or `Disk`.
    pub(crate) durability: Durability,
    /// The size of a full-grown segment.
    pub(crate) segment_bytes: u64,
    /// The system calls.
    pub(crate) files: Arc<dyn Files>,
}

/// Who asks for space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// New messages: refused first.
    Append,
    /// Settlements and trims: they may use the reserve, because they are the way out of a full disk.
    Settle,
}

/// A write that was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing happened; a later one may succeed.
    Undone(Error),
    /// It is not known what the disk holds: nothing more may be written until the log was read again.
    Broken(Error),
}

/// The log, open for writing.
#[derive(Debug)]
pub(crate) struct Log {
    /// Ends before the directory is released: the next process finds nobody at work.
    preparer: Preparer,
    directory: Directory,
    settings: Settings,
    active: Arc<Segment>,
    /// That of `active`: whoever writes does not look for it.
    file: Arc<File>,
    end: u64,
    /// Bytes of the last checkpoint that was written, as far as that is known: the next takes about as much.
    checkpoint: u64,
    sealed: Vec<Sealed>,
    refused: Option<Instant>,
}

impl Log {
    /// Begins a log in an empty directory, with `checkpoint` at its head.
    pub(crate) fn create(
        directory: Directory,
        settings: Settings,
        checkpoint: &mut Encoder,
    ) -> Result<Log> {
        let refused = |error: io::Error| match is_full(&error) {
            true => disk_full(directory.path()),
            false => unusable(directory.path(), &error),
        };
        let preparer = start(&directory, &settings).map_err(refused)?;
        let size = FIRST_SEGMENT.min(settings.segment_bytes);
        let size = size.max(HEAD + checkpoint.frame().len() as u64);
        let prepared = preparer.take(size).map_err(refused)?;
        let (segment, file, end) =
            begin(&directory, &settings, 1, prepared, checkpoint).map_err(refused)?;
        Ok(Log {
            directory,
            settings,
            preparer,
            active: Arc::new(segment),
            file,
            end,
            checkpoint: checkpoint.frame().len() as u64,
            sealed: Vec::new(),
            refused: None,
        })
    }

    /// Continues in `active`, whose last frame ends at `end`.
    pub(crate) fn resume(
        directory: Directory,
        settings: Settings,
        active: Arc<Segment>,
        end: u64,
        sealed: Vec<Sealed>,
    ) -> Result<Log> {
        let failed = |error: io::Error| unusable(directory.path(), &error);
        let preparer = start(&directory, &settings).map_err(failed)?;
        let file = active.file().map_err(failed)?;
        Ok(Log {
            directory,
            settings,
            preparer,
            active,
            file,
            end,
            checkpoint: 0,
            sealed,
            refused: None,
        })
    }

    /// The segment that is written to.
    pub(crate) fn active(&self) -> &Arc<Segment> {
        &self.active
    }

    /// Whether a frame is on the disk when it was written.
    pub(crate) fn syncs(&self) -> bool {
        self.settings.durability >= Durability::Disk
    }

    /// Where the log is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whether `bytes` more fit into the active segment.
    pub(crate) fn fits(&self, bytes: u64, priority: Priority) -> bool {
        let left = self.left();
        match priority {
            Priority::Settle => bytes <= left,
            Priority::Append => {
                bytes <= left && (bytes + self.reserve() <= left || self.preparer.is_ready())
            }
        }
    }

    fn left(&self) -> u64 {
        self.active.size().saturating_sub(self.end)
    }

    fn reserve(&self) -> u64 {
        (self.active.size() / 4).min(4 << 20)
    }

    /// Whether a segment of `size` has room for `bytes` behind a checkpoint of so many, and for half as many as that in all:
    /// else a large checkpoint would be written again with every batch.
    pub(crate) fn has_room(size: u64, checkpoint: u64, bytes: u64) -> bool {
        size >= HEAD + checkpoint + bytes.max(checkpoint / 2)
    }

    /// Another segment, with room for `bytes`: waits for it. Fails fast when the disk was full a moment ago.
    pub(crate) fn next(&mut self, bytes: u64) -> Result<Prepared> {
        let just_refused = self.refused.is_some_and(|at| at.elapsed() < RETRY_SPACE);
        if just_refused && self.preparer.has_failed() {
            return Err(disk_full(self.path()));
        }
        let least = self.first_size().max(HEAD + bytes);
        let mut taken = self.preparer.take(self.next_size().max(least));
        if taken.is_err() {
            // There may be space for a smaller one.
            taken = self.preparer.take(least);
        }
        let path = self.path().display();
        match (&taken, self.refused) {
            (Err(error), None) => {
                tracing::warn!(%path, %error, "no space for another segment: appends are refused until there is");
            }
            (Ok(_), Some(_)) => tracing::info!(%path, "there is space again: appends are accepted"),
            _ => {}
        }
        self.refused = taken.is_err().then(Instant::now);
        taken.map_err(|error| refusal(self.path(), &error))
    }

    fn first_size(&self) -> u64 {
        FIRST_SEGMENT.min(self.settings.segment_bytes)
    }

    fn next_size(&self) -> u64 {
        let doubled = self.active.size().saturating_mul(2);
        let size = doubled.clamp(self.first_size(), self.settings.segment_bytes);
        size.max((HEAD + 2 * self.checkpoint).min(LARGEST))
    }

    /// The segments before the one that [`Log::roll`] begins, but those in which nothing is needed any more.
    pub(crate) fn sealed_by_roll(&self, dead: &[u64]) -> Vec<Sealed> {
        let mut sealed = self.sealed.clone();
        sealed.push(Sealed {
            number: self.active.number(),
            end: self.end,
        });
        sealed.retain(|sealed| !dead.contains(&sealed.number));
        sealed
    }

    /// Moves on to the next segment, with `checkpoint` at its head, and deletes those that are `dead`: the checkpoint does not
    /// list them, so that their removal takes no room behind it. In class `disk` all of the one before is on the disk: each frame was
    /// synced when it was written, or when the directory was opened.
    pub(crate) fn roll(
        &mut self,
        prepared: Prepared,
        checkpoint: &mut Encoder,
        dead: &[u64],
    ) -> Result<(), Failure> {
        let number = self.active.number() + 1;
        let begun = begin(
            &self.directory,
            &self.settings,
            number,
            prepared,
            checkpoint,
        );
        let (segment, file, end) =
            begun.map_err(|error| match self.directory.segment(number).exists() {
                // Once the checkpoint counts, what is written behind its back does not.
                true => self.broken(&error),
                false => Failure::Undone(refusal(self.path(), &error)),
            })?;
        self.sealed = self.sealed_by_roll(dead);
        self.checkpoint = checkpoint.frame().len() as u64;
        let path = self.active.path().to_owned();
        let before = std::mem::replace(&mut self.file, file);
        self.active = Arc::new(segment);
        self.end = end;
        if self.settings.durability < Durability::Disk {
            self.preparer.sync(path, before);
        }
        self.delete(dead);
        Ok(())
    }

    /// Writes a frame at the durability class. Answers its offset in the active segment. One that does not fit is not begun.
    pub(crate) fn write(&mut self, encoder: &mut Encoder) -> Result<u64, Failure> {
        let frame = encoder.frame();
        let (offset, length) = (self.end, frame.len() as u64);
        if length > self.left() {
            return Err(Failure::Undone(self.no_room(length)));
        }
        frame::seal(frame, self.active.salt(), offset);
        let files = &*self.settings.files;
        if let Err(error) = files.write(&self.file, frame, offset) {
            return Err(self.take_back(offset + length, &error));
        }
        if self.syncs()
            && let Err(error) = files.sync(&self.file)
        {
            // A second sync would succeed without having written anything: only a restart writes the frame again.
            return Err(self.broken(&error));
        }
        self.end = offset + length;
        encoder.shrink(BUFFER);
        if self.end > self.active.size() / 2 && !self.preparer.has_failed() {
            self.preparer.request(self.next_size());
        }
        Ok(offset)
    }

    /// Removes what a failed write may have left, so that it does not appear after a restart.
    fn take_back(&self, to: u64, error: &io::Error) -> Failure {
        let (files, file) = (&*self.settings.files, &*self.file);
        let undone = zero(files, file, self.end, to)
            .or_else(|_| files.cut(file, self.end, self.active.size()))
            .and_then(|()| match self.settings.durability {
                Durability::Disk => files.sync(file),
                _ => Ok(()),
            });
        match undone {
            Ok(()) => Failure::Undone(refusal(self.path(), error)),
            Err(_) => self.broken(error),
        }
    }

    /// How many segments can be removed now. The others go when the next segment begins.
    pub(crate) fn removable(&self) -> usize {
        (self.left().saturating_sub(frame::HEADER as u64) / REMOVAL) as usize
    }

    /// Deletes segments in which nothing is needed any more.
    pub(crate) fn remove(&mut self, numbers: &[u64], encoder: &mut Encoder) -> Result<(), Failure> {
        encoder.begin();
        for number in numbers {
            encoder.record(&Record::SegmentRemoved { number: *number });
        }
        // Noted first: a segment that is missing without a note is damage.
        self.write(encoder)?;
        self.sealed
            .retain(|sealed| !numbers.contains(&sealed.number));
        self.delete(numbers);
        Ok(())
    }

    fn delete(&self, numbers: &[u64]) {
        for number in numbers {
            self.preparer.delete(self.directory.segment(*number));
        }
    }

    /// Notes that all before was written as intended, if there is room: from now on a missing record is damage.
    pub(crate) fn close(&mut self, encoder: &mut Encoder) {
        encoder.begin();
        encoder.record(&Record::Closed);
        if self.fits(encoder.frame().len() as u64, Priority::Settle)
            && let Err(Failure::Undone(error) | Failure::Broken(error)) = self.write(encoder)
        {
            tracing::warn!(%error, "the log could not be closed in order");
        }
    }

    fn no_room(&self, bytes: u64) -> Error {
        Error::new(
            ErrorKind::Internal,
            "segment-full",
            format!(
                "{bytes} bytes were to be written to {}, which has room for {}; nothing was stored: report this",
                self.active.path().display(),
                self.left()
            ),
        )
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let path = self.active.path().display();
        Failure::Broken(Error::new(
            ErrorKind::Corrupt,
            "storage-failed",
            format!(
                "the disk did not confirm a write to {path}: {error}. Nothing more is accepted, because it is not known \
                 what is stored. Check the disk, then restart: opening the directory verifies everything, and writes anew what \
                 was not confirmed"
            ),
        ))
    }
}

fn start(directory: &Directory, settings: &Settings) -> io::Result<Preparer> {
    // Only syncs gain from zeros that are already on the disk: they find no metadata to write.
    let written = settings.durability >= Durability::Disk;
    Preparer::start(directory.next(), settings.files.clone(), written)
}

/// Makes a prepared file the segment `number`. It gets its name when it is complete: no crash leaves half a segment.
fn begin(
    directory: &Directory,
    settings: &Settings,
    number: u64,
    prepared: Prepared,
    checkpoint: &mut Encoder,
) -> io::Result<(Segment, Arc<File>, u64)> {
    let Prepared { file, size } = prepared;
    let salt = RandomState::new().hash_one(number);
    let frame = checkpoint.frame();
    frame::seal(frame, salt, HEAD);
    settings.files.write(&file, &head(number, salt), 0)?;
    settings.files.write(&file, frame, HEAD)?;
    let path = directory.segment(number);
    if settings.durability >= Durability::Disk {
        settings.files.sync(&file)?;
    }
    fs::rename(directory.next(), &path)?;
    // Before it is noted, in every class: a note that outlives the name would report a segment as lost.
    directory.sync()?;
    if let Err(error) = directory.note_newest(number) {
        // Without the note, only the loss of the newest segment would go unnoticed.
        tracing::warn!(%error, "the newest segment could not be noted");
    }
    let end = HEAD + frame.len() as u64;
    let (file, open) = (Arc::new(file), directory.open_files());
    let segment = Segment::new(number, path, file.clone(), salt, size, open);
    Ok((segment, file, end))
}

/// Nothing was stored.
pub(crate) fn refusal(path: &Path, error: &io::Error) -> Error {
    match is_full(error) {
        true => disk_full(path),
        false => Error::unavailable(
            "storage-failed",
            format!(
                "writing to {} failed, nothing was stored: {error}. Check the disk",
                path.display()
            ),
        ),
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn disk_full(path: &Path) -> Error {
    Error::unavailable(
        "disk-full",
        format!(
            "there is no space left for {}: free space, or trim topics",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::files::System;
    use super::*;
    use streamerson_core::Position;

    #[test]
    fn a_frame_for_which_there_is_no_room_is_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            durability: Durability::Os,
            segment_bytes: 4 << 10,
            files: Arc::new(System),
        };
        let mut encoder = Encoder::default();
        encoder.begin();
        encoder.record(&Record::Closed);
        let directory = Directory::open(dir.path()).unwrap();
        let mut log = Log::create(directory, settings, &mut encoder).unwrap();
        let before = fs::read(log.active().path()).unwrap();

        encoder.begin();
        let ids = vec![Position::new(1, 1); 256];
        encoder.record(&Record::Waiting { ids });
        let failure = log.write(&mut encoder).unwrap_err();
        assert!(
            matches!(&failure, Failure::Undone(error) if error.code() == "segment-full"),
            "{failure:?}"
        );
        assert_eq!(fs::read(log.active().path()).unwrap(), before);
    }
}
