//! What lies in the folder, by its owners and oldest first.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use afterimage_runner::Owner;

use super::folder::StoreUsage;
use super::id::ImageId;

/// The pictures of a folder. Whose they are is only known of those that this server has written.
#[derive(Debug, Default)]
pub(super) struct Index {
    owners: BTreeMap<Owner, Pictures>,
}

/// The pictures of one owner by age.
#[derive(Debug, Default)]
struct Pictures {
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
                index.add(Owner::default(), id, file.modified()?, file.len());
            }
        }
        Ok(index)
    }

    /// The same pictures, with the owners that `known` has of them.
    pub(super) fn with_owners_of(self, known: &Self) -> Self {
        let owners = known.owners.iter();
        let owners = owners.flat_map(|(owner, pictures)| pictures.bytes_by_age.keys().map(|(_, id)| (*id, *owner)));
        let owner_of: HashMap<ImageId, Owner> = owners.collect();
        let mut index = Self::default();
        for ((written, id), bytes) in self.owners.into_values().flat_map(|pictures| pictures.bytes_by_age) {
            index.add(owner_of.get(&id).copied().unwrap_or_default(), id, written, bytes);
        }
        index
    }

    pub(super) fn add(&mut self, owner: Owner, id: ImageId, written: SystemTime, bytes: u64) {
        let pictures = self.owners.entry(owner).or_default();
        pictures.bytes_by_age.insert((written, id), bytes);
        pictures.total_bytes += bytes;
    }

    pub(super) fn usage(&self) -> StoreUsage {
        let images = self.owners.values().map(|pictures| pictures.bytes_by_age.len()).sum();
        StoreUsage { images, bytes: self.total_bytes() }
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.owners.values().map(|pictures| pictures.total_bytes).sum()
    }

    /// When the oldest picture was written.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.owners.values().filter_map(Pictures::oldest).min().map(|(written, _)| written)
    }

    /// Takes the oldest picture out.
    pub(super) fn pop_oldest(&mut self) -> Option<ImageId> {
        let owners = self.owners.iter();
        let oldest = owners.filter_map(|(owner, pictures)| Some((pictures.oldest()?, *owner))).min();
        self.pop_oldest_of(oldest?.1)
    }

    /// Takes the oldest picture out of the owner that has the most bytes, once `owner` has `more`: pictures of one client
    /// do not make room for another's, unless that has less.
    pub(super) fn pop_for(&mut self, owner: Owner, more: u64) -> Option<ImageId> {
        let bytes = |other: &Owner, pictures: &Pictures| pictures.total_bytes + if *other == owner { more } else { 0 };
        let most = self.owners.iter().max_by_key(|(other, pictures)| bytes(other, pictures));
        self.pop_oldest_of(*most?.0)
    }

    fn pop_oldest_of(&mut self, owner: Owner) -> Option<ImageId> {
        let pictures = self.owners.get_mut(&owner)?;
        let ((_, id), bytes) = pictures.bytes_by_age.pop_first()?;
        pictures.total_bytes -= bytes;
        if pictures.bytes_by_age.is_empty() {
            self.owners.remove(&owner);
        }
        Some(id)
    }
}

impl Pictures {
    fn oldest(&self) -> Option<(SystemTime, ImageId)> {
        self.bytes_by_age.first_key_value().map(|(key, _)| *key)
    }
}
