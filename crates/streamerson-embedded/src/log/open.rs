//! The open files of segments: no more than a few, because descriptors are few and segments may be many.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

/// So many stay open, beside those that are being read at the moment.
const MOST: usize = 64;

/// Those that were used last.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    /// With the number of the segment; the last was used last.
    recent: Mutex<Vec<(u64, Arc<File>)>>,
}

impl OpenFiles {
    /// The file of segment `number`, at `path`: opened as needed.
    pub(crate) fn get(&self, number: u64, path: &Path) -> io::Result<Arc<File>> {
        if let Some(file) = self.forget(number) {
            self.keep(number, file.clone());
            return Ok(file);
        }
        let file = Arc::new(File::options().read(true).write(true).open(path)?);
        self.keep(number, file.clone());
        Ok(file)
    }

    /// Keeps a file open, and closes the one that was not used for longest.
    pub(crate) fn keep(&self, number: u64, file: Arc<File>) {
        let mut recent = self.recent.lock();
        recent.retain(|(other, _)| *other != number);
        let oldest = (recent.len() >= MOST).then(|| recent.remove(0));
        recent.push((number, file));
        drop(recent);
        drop(oldest);
    }

    /// Does not keep a file open any more.
    pub(crate) fn forget(&self, number: u64) -> Option<Arc<File>> {
        let mut recent = self.recent.lock();
        let at = recent.iter().position(|(other, _)| *other == number)?;
        Some(recent.remove(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_were_used_last_stay_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = |number: u64| dir.path().join(number.to_string());
        let files = OpenFiles::default();
        for number in 0..2 * MOST as u64 {
            std::fs::write(path(number), "x").unwrap();
            files.get(number, &path(number)).unwrap();
            files.get(0, &path(0)).unwrap();
        }
        let recent = files.recent.lock();
        let numbers: Vec<u64> = recent.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), MOST);
        assert_eq!(numbers[MOST - 1], 0);
        assert_eq!(numbers[MOST - 2], 2 * MOST as u64 - 1);
    }
}
