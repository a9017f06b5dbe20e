//! What lies in the folder, oldest first.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::folder::StoreUsage;
use super::id::ImageId;

/// The pictures of a folder by age.
#[derive(Debug, Default)]
pub(super) struct Index {
    bytes_by_age: BTreeMap<(SystemTime, ImageId), u64>,
    total_bytes: u64,
}

impl Index {
    /// Looks the folder through. What does not look like a picture of ours is left alone.
    pub(super) fn scan(folder: &Path) -> io::Result<Self> {
        let mut index = Self::default();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A file may be gone by now.
            let Ok(file) = entry.metadata() else { continue };
            if file.is_file() {
                index.add(id, file.modified()?, file.len());
            }
        }
        Ok(index)
    }

    pub(super) fn add(&mut self, id: ImageId, written: SystemTime, bytes: u64) {
        self.bytes_by_age.insert((written, id), bytes);
        self.total_bytes += bytes;
    }

    pub(super) fn usage(&self) -> StoreUsage {
        StoreUsage { images: self.bytes_by_age.len(), bytes: self.total_bytes }
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// When the oldest picture was written.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.bytes_by_age.first_key_value().map(|((written, _), _)| *written)
    }

    /// Takes the oldest picture out.
    pub(super) fn pop_oldest(&mut self) -> Option<ImageId> {
        let ((_, id), bytes) = self.bytes_by_age.pop_first()?;
        self.total_bytes -= bytes;
        Some(id)
    }
}
