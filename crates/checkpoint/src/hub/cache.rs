//! One repository in the cache that all of the hub's clients share.
//!
//! `models--org--name/blobs` holds contents under their names on the hub, `snapshots/COMMIT` links to them under
//! their paths in the repository, and `refs` says which commit a revision stood for when it was fetched.

use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::address::is_hash_name;
use crate::plain_file;

/// The folder of a repository, in which one revision is looked up.
pub(super) struct CachedRepository {
    files: CacheRepo,
    folder: PathBuf,
    revision: String,
}

impl CachedRepository {
    pub(super) fn new(cache_dir: &Path, id: &str, revision: &str) -> Self {
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        let folder = cache_dir.join(repo.folder_name());
        Self { files: Cache::new(cache_dir.to_path_buf()).repo(repo), folder, revision: revision.to_owned() }
    }

    /// The commit that the revision stood for when it was fetched. What is no name of a commit is not believed: others
    /// write here, too.
    pub(super) fn commit(&self) -> Option<String> {
        let commit = plain_file::text(&self.folder.join("refs").join(&self.revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_hash_name(commit))
    }

    /// From now on the revision stands for the commit.
    pub(super) fn set_commit(&self, commit: &str) -> io::Result<()> {
        self.files.create_ref(commit)
    }

    /// The files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.files.pointer_path(commit)
    }

    /// The content of a name.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
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
    fn a_commit_that_is_a_path_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let repository = CachedRepository::new(folder.path(), "org/name", "main");
        let reference = folder.path().join("models--org--name/refs/main");
        create_parent(&reference).unwrap();
        for (text, expected) in [("0123\n", Some("0123")), ("../..", None), ("/etc", None), ("", None)] {
            fs::write(&reference, text).unwrap();
            assert_eq!(repository.commit().as_deref(), expected);
        }
    }

    #[test]
    fn links_are_relative() {
        let folder = tempfile::tempdir().unwrap();
        let repository = CachedRepository::new(folder.path(), "org/name", "main");
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
