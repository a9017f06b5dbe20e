//! The pictures in a folder.
//!
//! A file appears under its name only when it is complete and on the disk, and its time of writing is its age: a server
//! that starts again serves what an earlier one has left, and keeps its age. The oldest pictures make
//! room for new ones, those of the client that has the most. A sweep looks the folder through again, so files that others
//! removed or added are noticed. Others on this machine get nothing to read, and what is not a plain file is none of ours.
//!
//! Everything here blocks but [`PictureFolder::usage`]: the index is locked while files get their names or go, and what
//! it came to is kept beside it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use afterimage_runner::Owner;

use super::StoreError;
use super::id::ImageId;
use super::index::Index;
use crate::image_file::ImageFormat;

/// The ending of files that are not complete.
pub(super) const TEMPORARY: &str = ".tmp";
/// A folder that is made here: for its owner, and for a group that may look.
const FOLDER_MODE: u32 = 0o750;
/// The same for files.
const FILE_MODE: u32 = 0o640;
/// Locked by the server that uses the folder.
const LOCK: &str = ".lock";
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
pub(super) struct PictureFolder {
    folder: PathBuf,
    limits: StoreLimits,
    /// Locked while the disk is at work.
    index: Mutex<Index>,
    /// What the index came to, locked for a moment only.
    usage: Mutex<StoreUsage>,
    /// Of [`LOCK`], for as long as it is open.
    _lock: Option<File>,
}

/// A picture that can be read. It stays so if its name is removed.
#[derive(Debug)]
pub(crate) struct StoredImage {
    pub(crate) file: File,
    pub(crate) bytes: u64,
    /// How long it will still be there.
    pub(crate) remaining: Duration,
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StoreUsage {
    pub(crate) images: usize,
    pub(crate) bytes: u64,
}

impl PictureFolder {
    /// Opens a folder, which is made if necessary, and finds out what is in it and whether it can be
    /// written to.
    pub(super) fn open(folder: PathBuf, limits: StoreLimits) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder)?;
        let lock = lock_folder(&folder)?;
        let folder = Self { _lock: Some(lock), ..Self::unchecked(folder, limits)? };
        let probe = folder.temporary(ImageId::new(ImageFormat::Png));
        File::create_new(&probe)?;
        fs::remove_file(&probe)?;
        folder.sweep(SystemTime::now())?;
        Ok(folder)
    }

    /// A folder as it is, before the first sweep.
    pub(super) fn unchecked(folder: PathBuf, limits: StoreLimits) -> io::Result<Self> {
        let index = Index::scan(&folder)?;
        let usage = Mutex::new(index.usage());
        Ok(Self { folder, limits, index: Mutex::new(index), usage, _lock: None })
    }

    /// Held while the disk is at work.
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    /// Stores all of `files` or none. The oldest pictures make room, of whoever has the most with these.
    pub(super) fn save(
        &self,
        owner: Owner,
        format: ImageFormat,
        files: &[Vec<u8>],
        now: SystemTime,
    ) -> Result<Vec<ImageId>, StoreError> {
        let bytes = files.iter().map(|file| file.len() as u64).sum();
        let max_bytes = self.limits.max_bytes;
        if bytes > max_bytes {
            return Err(StoreError::TooLarge { bytes, max_bytes });
        }
        let ids: Vec<_> = files.iter().map(|_| ImageId::new(format)).collect();
        let written = self.write(&ids, files, now).and_then(|()| self.publish(owner, &ids, files, now));
        written.map(|()| ids.clone()).map_err(|error| {
            for id in &ids {
                // What remains is swept away later.
                let _ = fs::remove_file(self.temporary(*id));
                self.remove(*id);
            }
            tracing::error!(folder = %self.folder.display(), %error, "pictures cannot be stored");
            StoreError::Write(error)
        })
    }

    /// Writes files under other names first, so that nobody ever reads half of one, not even after a power failure.
    /// This takes the most time, and nobody waits for it.
    fn write(&self, ids: &[ImageId], files: &[Vec<u8>], now: SystemTime) -> io::Result<()> {
        ids.iter().zip(files).try_for_each(|(id, bytes)| {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(self.temporary(*id))?;
            file.write_all(bytes)?;
            file.set_modified(now)?;
            file.sync_all()
        })
    }

    /// Makes room for files that are written, and gives them their names.
    fn publish(&self, owner: Owner, ids: &[ImageId], files: &[Vec<u8>], now: SystemTime) -> io::Result<()> {
        let bytes: u64 = files.iter().map(|file| file.len() as u64).sum();
        let mut index = self.index();
        while index.total_bytes() > self.limits.max_bytes - bytes
            && let Some(oldest) = index.pop_for(owner, bytes)
        {
            self.remove(oldest);
        }
        let renamed = ids.iter().try_for_each(|id| fs::rename(self.temporary(*id), self.path(*id)));
        if renamed.is_ok() {
            ids.iter().zip(files).for_each(|(id, file)| index.add(owner, *id, now, file.len() as u64));
        }
        self.note(&index);
        drop(index);
        // The names are on the disk once the folder is.
        renamed.and_then(|()| File::open(&self.folder)?.sync_all())
    }

    /// The picture, unless it is gone or has expired.
    pub(super) fn load(&self, id: ImageId, now: SystemTime) -> io::Result<Option<StoredImage>> {
        let path = self.path(id);
        let open = || -> io::Result<_> {
            // Not of what a link leads to.
            let metadata = fs::symlink_metadata(&path)?;
            if !metadata.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok((metadata.modified()?, metadata.len(), File::open(&path)?))
        };
        let (written, bytes, file) = match open() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // A time of writing in the future means that the clock was changed: such a file counts as new.
        let age = now.duration_since(written).unwrap_or_default();
        let remaining = self.limits.max_age.checked_sub(age).filter(|remaining| !remaining.is_zero());
        Ok(remaining.map(|remaining| StoredImage { file, bytes, remaining }))
    }

    /// Looks the folder through and removes what is too old or too much, also files that an earlier
    /// server did not complete.
    pub(super) fn sweep(&self, now: SystemTime) -> io::Result<()> {
        let mut index = self.index();
        *index = Index::scan(&self.folder)?.with_owners_of(&index);
        while index.oldest().is_some_and(|written| self.is_over(written, now))
            || index.total_bytes() > self.limits.max_bytes
        {
            let Some(oldest) = index.pop_oldest() else { break };
            self.remove(oldest);
        }
        self.note(&index);
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
    pub(super) fn sweep_interval(&self) -> Duration {
        (self.limits.max_age / 2).clamp(Duration::from_secs(1), MAX_SWEEP_INTERVAL)
    }

    /// How much there is. Never waits for the disk.
    pub(super) fn usage(&self) -> StoreUsage {
        *lock(&self.usage)
    }

    fn note(&self, index: &Index) {
        *lock(&self.usage) = index.usage();
    }

    fn is_over(&self, written: SystemTime, now: SystemTime) -> bool {
        now.duration_since(written).is_ok_and(|age| age >= self.limits.max_age)
    }

    fn path(&self, id: ImageId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Where it is before it is complete.
    fn temporary(&self, id: ImageId) -> PathBuf {
        self.folder.join(format!(".{id}{TEMPORARY}"))
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

/// Refuses a folder that another server uses: each would remove the pictures of the other. A file system without locks
/// is taken as it is.
fn lock_folder(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(folder.join(LOCK))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "another server uses it; each needs a folder of its own"))
        }
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Nothing panics while one of these is locked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
