//! One repository in the cache that all of the hub's clients share.
//!
//! `models--org--name/blobs` holds contents under their names on the hub, `snapshots/COMMIT` links to them under
//! their paths in the repository, and `refs` says which commit a revision stood for when it was fetched.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The folder of a repository.
pub(super) struct CachedRepository(PathBuf);

impl CachedRepository {
    pub(super) fn new(cache_dir: &Path, id: &str) -> Self {
        Self(cache_dir.join(format!("models--{}", id.replace('/', "--"))))
    }

    /// The commit that a revision stood for when it was fetched.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        let commit = fs::read_to_string(self.reference(revision)).ok()?;
        Some(commit.trim().to_owned())
    }

    /// From now on the revision stands for the commit.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> io::Result<()> {
        let path = self.reference(revision);
        create_parent(&path)?;
        fs::write(path, commit)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.0.join("refs").join(revision)
    }

    /// The files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.0.join("snapshots").join(commit)
    }

    /// The content of a name.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.0.join("blobs").join(etag)
    }
}

/// Creates the folder of a file.
pub(super) fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Lets `link` lead to `content`, by a relative path, so that the cache can be moved.
pub(super) fn link(link: &Path, content: &Path) -> io::Result<()> {
    create_parent(link)?;
    let folder = link.parent().unwrap_or(Path::new(""));
    let shared = folder.components().zip(content.components()).take_while(|(left, right)| left == right).count();
    let up = folder.components().skip(shared).map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(content.components().skip(shared)).collect();
    std::os::unix::fs::symlink(relative, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative() {
        let folder = tempfile::tempdir().unwrap();
        let repository = CachedRepository::new(folder.path(), "org/name");
        let blob = repository.blob("etag");
        create_parent(&blob).unwrap();
        fs::write(&blob, "content").unwrap();
        let path = repository.snapshot("0123").join("vae/config.json");
        link(&path, &blob).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("../../../blobs/etag"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
        assert_eq!(blob, folder.path().join("models--org--name/blobs/etag"));
    }
}
