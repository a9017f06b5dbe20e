//! A repository's folder in the cache that all of the hub's clients share: `blobs/ETAG` has the contents,
//! `snapshots/COMMIT/PATH` links to them, `refs/REVISION` names the commit. A content that is still
//! coming in is `blobs/ETAG.incomplete`, also for Python's client.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::RunnerError;

/// The folder `models--org--name`.
#[derive(Debug)]
pub(super) struct CachedRepository {
    folder: PathBuf,
}

impl CachedRepository {
    pub(super) fn new(cache_dir: &Path, id: &str) -> Self {
        Self { folder: cache_dir.join(format!("models--{}", id.replace('/', "--"))) }
    }

    /// The commit a revision stood for when it was fetched; without such a note, the revision itself.
    pub(super) fn commit(&self, revision: &str) -> String {
        let commit = fs::read_to_string(self.reference(revision));
        commit.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned())
    }

    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), RunnerError> {
        write_into_folder(&self.reference(revision), |path| fs::write(path, commit))
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Makes a content the file `path` of a commit.
    pub(super) fn link(&self, etag: &str, commit: &str, path: &str) -> Result<PathBuf, RunnerError> {
        let link = self.snapshot(commit).join(path);
        write_into_folder(&link, |link| {
            // A link whose content was deleted.
            if link.symlink_metadata().is_ok() {
                fs::remove_file(link)?;
            }
            // Out of the folders of `path`, the commit's and `snapshots`.
            let depth = Path::new(path).components().count() + 1;
            let up: PathBuf = std::iter::repeat_n(Component::ParentDir, depth).collect();
            symlink(&up.join("blobs").join(etag), &self.blob(etag), link)
        })?;
        Ok(link)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }
}

/// Writes a file whose folder may not be there yet.
pub(super) fn write_into_folder<T>(
    path: &Path,
    write: impl FnOnce(&Path) -> std::io::Result<T>,
) -> Result<T, RunnerError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| write(path))
        .map_err(|source| RunnerError::Write { path: path.to_path_buf(), source })
}

#[cfg(unix)]
fn symlink(relative: &Path, _blob: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, link)
}

/// Links need rights that users lack elsewhere; the content is moved, as other clients do.
#[cfg(not(unix))]
fn symlink(_relative: &Path, blob: &Path, link: &Path) -> std::io::Result<()> {
    fs::rename(blob, link)
}
