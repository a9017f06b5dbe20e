//! One repository of the hub at one revision, and its snapshot in the cache.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::cache::CachedRepository;
use super::client::Client;
use super::download::Download;
use super::needed::{Files, Snapshot, needed_files};
use super::options::HubOptions;
use super::refusal;
use crate::RunnerError;
use crate::model_folder::MODEL_INDEX;
use crate::weights::is_plain_name;

/// A repository at the revision of the options.
pub(super) struct Repository<'a> {
    pub(super) id: &'a str,
    pub(super) options: &'a HubOptions,
    cache: CachedRepository,
}

impl<'a> Repository<'a> {
    pub(super) fn new(id: &'a str, options: &'a HubOptions) -> Result<Self, RunnerError> {
        // The revision names a file in the cache.
        if !options.revision.split('/').all(is_plain_name) {
            return Err(RunnerError::Model(format!(
                "`{}` cannot be a revision; give a branch, a tag or a commit",
                options.revision
            )));
        }
        Ok(Self { id, options, cache: CachedRepository::new(&options.cache_dir, id) })
    }

    /// The folder of a complete snapshot, fetched if need be.
    pub(super) fn snapshot(&self) -> Result<PathBuf, RunnerError> {
        let folder = self.cache.snapshot(&self.cache.commit(&self.options.revision));
        let lacking = if folder.is_dir() { first_lacking(&folder) } else { Some("the repository".to_string()) };
        let Some(lacking) = lacking else { return Ok(folder) };
        if self.options.offline {
            return Err(RunnerError::Model(format!(
                "HF_HUB_OFFLINE is set, and the cache {} lacks {lacking} of {} ({}); start once \
                 without HF_HUB_OFFLINE to fetch it, or give a local folder",
                self.options.cache_dir.display(),
                self.id,
                self.options.revision,
            )));
        }
        self.fetch()
    }

    fn fetch(&self) -> Result<PathBuf, RunnerError> {
        let client = Client::new(self.options);
        let revision = &self.options.revision;
        let info = client.revision(self.id, revision).map_err(|error| refusal::explain(error, self, None))?;
        if !is_plain_name(&info.sha) {
            return Err(RunnerError::Model(format!(
                "{} named the commit `{}` for {}, which is none",
                self.options.endpoint, info.sha, self.id
            )));
        }
        let remote = Remote {
            repository: self,
            listing: info.siblings.into_iter().map(|file| file.rfilename).collect(),
            folder: self.cache.snapshot(&info.sha),
            commit: &info.sha,
            client,
        };
        let needed = needed_files(&remote).map_err(|error| self.about(error))?;
        for path in &needed {
            remote.fetch(path)?;
        }
        // Only now does the revision stand for this commit in the cache.
        self.cache.set_commit(revision, &info.sha)?;
        Ok(remote.folder)
    }

    /// Says which repository an error is about.
    fn about(&self, error: RunnerError) -> RunnerError {
        match error {
            RunnerError::Model(text) if !text.contains(self.id) => RunnerError::Model(format!("{}: {text}", self.id)),
            other => other,
        }
    }
}

/// The first needed file that a snapshot lacks.
fn first_lacking(folder: &Path) -> Option<String> {
    let snapshot = Snapshot(folder);
    match needed_files(&snapshot) {
        Ok(needed) => needed.into_iter().find(|path| !snapshot.has(path)),
        Err(_) if !snapshot.has(MODEL_INDEX) => Some(MODEL_INDEX.to_string()),
        Err(error) => Some(format!("files ({error})")),
    }
}

/// A repository on the hub at one commit. Files that are asked for are fetched into the cache.
struct Remote<'a> {
    repository: &'a Repository<'a>,
    listing: HashSet<String>,
    folder: PathBuf,
    commit: &'a str,
    client: Client,
}

impl Remote<'_> {
    fn fetch(&self, path: &str) -> Result<PathBuf, RunnerError> {
        let cached = self.folder.join(path);
        if cached.is_file() {
            return Ok(cached);
        }
        let Self { repository, client, commit, .. } = self;
        if !self.has(path) {
            return Err(RunnerError::Model(format!(
                "{} has no {path}, so it is no complete model in diffusers layout",
                repository.id
            )));
        }
        Download { repository, cache: &repository.cache, client, commit, path }.run()
    }
}

impl Files for Remote<'_> {
    fn has(&self, path: &str) -> bool {
        self.listing.contains(path)
    }

    fn text(&self, path: &str) -> Result<String, RunnerError> {
        let path = self.fetch(path)?;
        std::fs::read_to_string(&path).map_err(|source| RunnerError::Read { path, source })
    }
}
