//! Pictures kept as files for `response_format: url`, bounded in age and in bytes.
//!
//! What is in the folder is the business of [`PictureFolder`], which blocks; here that work goes to threads of its own
//! ([`Disk`]), so that a disk that hangs keeps nobody waiting but those who need it, and them not for ever.

mod disk;
mod folder;
mod id;
mod index;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use afterimage_runner::Owner;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::image_file::ImageFormat;
use disk::Disk;
use folder::PictureFolder;

pub(crate) use disk::DiskFault;
pub(crate) use folder::{StoreLimits, StoreUsage, StoredImage};
pub(crate) use id::ImageId;

/// Readings at a time, however many ask: they are many, and leave room in the queue for what is to be stored.
const READERS: usize = 8;

/// A folder of pictures, as the async side sees it.
#[derive(Debug)]
pub(crate) struct ImageStore {
    folder: Arc<PictureFolder>,
    disk: Disk,
    readers: Semaphore,
    /// Requests whose pictures could not be stored.
    failures: AtomicU64,
}

/// Why pictures were not stored or cannot be read. A client sees it, so it names no path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// More than the store may ever hold.
    #[error("the pictures have {bytes} bytes; --output-max-bytes is {max_bytes}")]
    TooLarge { bytes: u64, max_bytes: u64 },
    /// The system refused: most likely a full disk.
    #[error("cannot write to --output-dir: {0}")]
    Write(#[source] io::Error),
    /// The system refused.
    #[error("a stored picture cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The disk takes too long.
    #[error("the disk of --output-dir does not answer: {0}")]
    Disk(#[from] DiskFault),
}

impl ImageStore {
    /// Opens a folder, which is made if necessary, and finds out what is in it and whether it can be written to.
    /// Blocks. Work on the disk that takes longer than `patience` is given up.
    pub(crate) fn open(folder: PathBuf, limits: StoreLimits, patience: Duration) -> io::Result<Self> {
        let folder = Arc::new(PictureFolder::open(folder, limits)?);
        Ok(Self { folder, disk: Disk::new(patience)?, readers: Semaphore::new(READERS), failures: AtomicU64::new(0) })
    }

    /// Stores all of `files` or none. The oldest pictures make room, of whoever has the most with these.
    pub(crate) async fn save(
        &self,
        owner: Owner,
        format: ImageFormat,
        files: Arc<[Vec<u8>]>,
    ) -> Result<Vec<ImageId>, StoreError> {
        let folder = Arc::clone(&self.folder);
        let saved = self.disk.run(move || folder.save(owner, format, &files, SystemTime::now())).await;
        let saved = saved.map_err(StoreError::from).flatten();
        if saved.is_err() {
            self.failures.fetch_add(1, Relaxed);
        }
        saved
    }

    /// How often [`Self::save`] has failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// The picture, unless it is gone or has expired.
    pub(crate) async fn load(&self, id: ImageId) -> Result<Option<StoredImage>, StoreError> {
        let _turn = self.turn().await;
        let folder = Arc::clone(&self.folder);
        self.disk.run(move || folder.load(id, SystemTime::now())).await?.map_err(StoreError::Read)
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.readers.acquire().await.expect("nobody closes this semaphore")
    }

    /// The next `bytes` of a picture.
    pub(crate) async fn read(&self, file: Arc<File>, bytes: usize) -> Result<Vec<u8>, StoreError> {
        let _turn = self.turn().await;
        let read = move || {
            let mut piece = vec![0; bytes];
            (&*file).read_exact(&mut piece).map(|()| piece)
        };
        self.disk.run(read).await?.map_err(StoreError::Read)
    }

    /// Looks the folder through and removes what is too old or too much.
    pub(crate) async fn sweep(&self) -> Result<(), StoreError> {
        let folder = Arc::clone(&self.folder);
        self.disk.run(move || folder.sweep(SystemTime::now())).await?.map_err(StoreError::Read)
    }

    /// How often [`Self::sweep`] should run.
    pub(crate) fn sweep_interval(&self) -> Duration {
        self.folder.sweep_interval()
    }

    /// How much there is. Never waits for the disk.
    pub(crate) fn usage(&self) -> StoreUsage {
        self.folder.usage()
    }

    /// Whether anything can be stored at all at this moment. Never waits for the disk.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        Ok(self.disk.check()?)
    }

    /// Whether the disk keeps work longer than it should. Never waits for it.
    pub(crate) fn is_stuck(&self) -> bool {
        self.disk.is_stuck()
    }

    /// Keeps all threads of the disk busy, as one does that hangs, until the guard is dropped.
    #[cfg(test)]
    pub(crate) async fn hang(&self) -> impl Send + use<> {
        self.disk.hang().await
    }
}

#[cfg(test)]
mod tests;
