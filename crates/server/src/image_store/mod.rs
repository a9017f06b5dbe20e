//! Pictures kept as files for `response_format: url`, bounded in age and in bytes.
//!
//! A file appears under its name only when it is complete, and its time of writing is its age: a server
//! that starts again serves what an earlier one has left, and keeps its age. The oldest pictures make
//! room for new ones. A sweep looks the folder through again, so files that others removed or added
//! are noticed. Everything here blocks: not for the async runtime.

mod id;
mod index;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::image_file::ImageFormat;
use index::Index;

pub(crate) use id::ImageId;

/// The ending of files that are not complete.
const TEMPORARY: &str = ".tmp";
/// Longest pause between two sweeps.
const MAX_SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Bounds of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreLimits {
    /// Pictures are gone after this time.
    pub(crate) max_age: Duration,
    /// All pictures together.
    pub(crate) max_bytes: u64,
}

/// A folder of pictures.
#[derive(Debug)]
pub(crate) struct ImageStore {
    folder: PathBuf,
    limits: StoreLimits,
    index: Mutex<Index>,
}

/// A picture read back.
#[derive(Debug)]
pub(crate) struct StoredImage {
    pub(crate) file: Vec<u8>,
    /// How long it will still be there.
    pub(crate) remaining: Duration,
}

/// Why pictures were not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// More than the store may ever hold.
    #[error("the pictures have {bytes} bytes; --output-max-bytes is {max_bytes}")]
    TooLarge { bytes: u64, max_bytes: u64 },
    /// The system refused: most likely a full disk.
    #[error("cannot write to --output-dir {}: {source}", folder.display())]
    Write {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreUsage {
    pub(crate) images: usize,
    pub(crate) bytes: u64,
}

impl ImageStore {
    /// Opens a folder, which is made if necessary, and finds out what is in it and whether it can be
    /// written to.
    pub(crate) fn open(folder: PathBuf, limits: StoreLimits) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let probe = folder.join(format!(".{}{TEMPORARY}", ImageId::new(ImageFormat::Png)));
        File::create_new(&probe)?;
        fs::remove_file(&probe)?;
        let index = Mutex::new(Index::scan(&folder)?);
        let store = Self { folder, limits, index };
        store.sweep(SystemTime::now())?;
        Ok(store)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores all of `files` or none. The oldest pictures make room.
    pub(crate) fn save(
        &self,
        format: ImageFormat,
        files: &[Vec<u8>],
        now: SystemTime,
    ) -> Result<Vec<ImageId>, StoreError> {
        let bytes = files.iter().map(|file| file.len() as u64).sum();
        let max_bytes = self.limits.max_bytes;
        if bytes > max_bytes {
            return Err(StoreError::TooLarge { bytes, max_bytes });
        }
        let mut index = self.index();
        while index.total_bytes() > max_bytes - bytes
            && let Some(oldest) = index.pop_oldest()
        {
            self.remove(oldest);
        }
        let mut ids = Vec::with_capacity(files.len());
        for file in files {
            let id = ImageId::new(format);
            if let Err(source) = self.write(id, file, now) {
                ids.into_iter().for_each(|id| self.remove(id));
                return Err(StoreError::Write { folder: self.folder.clone(), source });
            }
            ids.push(id);
        }
        for (id, file) in ids.iter().zip(files) {
            index.add(*id, now, file.len() as u64);
        }
        Ok(ids)
    }

    /// Writes a file under another name first, so that nobody ever reads half of it.
    fn write(&self, id: ImageId, bytes: &[u8], now: SystemTime) -> io::Result<()> {
        let temporary = self.folder.join(format!(".{id}{TEMPORARY}"));
        let written = File::create_new(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.set_modified(now)
        });
        let result = written.and_then(|()| fs::rename(&temporary, self.path(id)));
        if result.is_err() {
            // What remains is swept away later.
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    /// The picture, unless it is gone or has expired.
    pub(crate) fn load(&self, id: ImageId, now: SystemTime) -> io::Result<Option<StoredImage>> {
        let path = self.path(id);
        let read = || -> io::Result<_> {
            let written = fs::metadata(&path)?.modified()?;
            Ok((written, fs::read(&path)?))
        };
        let (written, file) = match read() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // A time of writing in the future means that the clock was changed: such a file counts as new.
        let age = now.duration_since(written).unwrap_or_default();
        let remaining = self.limits.max_age.checked_sub(age).filter(|remaining| !remaining.is_zero());
        Ok(remaining.map(|remaining| StoredImage { file, remaining }))
    }

    /// Looks the folder through and removes what is too old or too much, also files that an earlier
    /// server did not complete.
    pub(crate) fn sweep(&self, now: SystemTime) -> io::Result<()> {
        let mut index = self.index();
        *index = Index::scan(&self.folder)?;
        while index.oldest().is_some_and(|written| self.is_over(written, now))
            || index.total_bytes() > self.limits.max_bytes
        {
            let Some(oldest) = index.pop_oldest() else { break };
            self.remove(oldest);
        }
        drop(index);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_over = || Some(self.is_over(entry.metadata().ok()?.modified().ok()?, now));
            if is_temporary(&entry.path()) && is_over().unwrap_or(false) {
                // Its writer may have been quicker.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// How often [`Self::sweep`] should run.
    pub(crate) fn sweep_interval(&self) -> Duration {
        (self.limits.max_age / 2).clamp(Duration::from_secs(1), MAX_SWEEP_INTERVAL)
    }

    pub(crate) fn usage(&self) -> StoreUsage {
        let index = self.index();
        StoreUsage { images: index.len(), bytes: index.total_bytes() }
    }

    fn is_over(&self, written: SystemTime, now: SystemTime) -> bool {
        now.duration_since(written).is_ok_and(|age| age >= self.limits.max_age)
    }

    fn path(&self, id: ImageId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn remove(&self, id: ImageId) {
        if let Err(error) = fs::remove_file(self.path(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%id, %error, "an old picture could not be removed");
        }
    }
}

/// Whether a file is one of ours that was not completed.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let id = name.and_then(|name| name.strip_prefix('.')?.strip_suffix(TEMPORARY));
    id.is_some_and(|id| id.parse::<ImageId>().is_ok())
}

#[cfg(test)]
mod tests;
