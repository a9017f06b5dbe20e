//! One repository of the hub at one revision, and its snapshot in the cache.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

use super::download::Downloads;
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
    pub(super) cache: Cache,
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
        Ok(Self { id, options, cache: Cache::new(options.cache_dir.clone()) })
    }

    /// The folder of a complete snapshot, fetched if need be.
    pub(super) fn snapshot(&self) -> Result<PathBuf, RunnerError> {
        let folder = self.folder(&self.cached_commit());
        let lacking = if folder.is_dir() {
            first_lacking(&folder, self.options.without_transformer)
        } else {
            Some("the repository".to_string())
        };
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

    /// The commit the revision stood for when it was fetched; without such a note, the revision itself.
    fn cached_commit(&self) -> String {
        let revision = &self.options.revision;
        let repository = self.options.cache_dir.join(self.repo(revision).folder_name());
        let commit = std::fs::read_to_string(repository.join("refs").join(revision));
        commit.map_or_else(|_| revision.clone(), |commit| commit.trim().to_string())
    }

    /// The folder of a commit's snapshot.
    fn folder(&self, commit: &str) -> PathBuf {
        self.cache.repo(self.repo(commit)).pointer_path(commit)
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.to_string(), RepoType::Model, revision.to_string())
    }

    fn fetch(&self) -> Result<PathBuf, RunnerError> {
        let endpoint = &self.options.endpoint;
        let at_revision = self.repo(&self.options.revision);
        let url = format!("{endpoint}/api/{}", at_revision.api_url());
        let failed = |error| refusal::explain(error, &url, self, None);
        let builder = ApiBuilder::from_cache(self.cache.clone())
            .with_endpoint(endpoint.clone())
            .with_token(self.options.token.clone())
            .with_user_agent("afterimage", env!("CARGO_PKG_VERSION"));
        let api = builder.build().map_err(failed)?;
        let info = api.repo(at_revision.clone()).info().map_err(failed)?;
        if !is_plain_name(&info.sha) {
            return Err(RunnerError::Model(format!(
                "{endpoint} named the commit `{}` for {}, which is none",
                info.sha, self.id
            )));
        }
        let remote = Remote {
            repository: self,
            listing: info.siblings.into_iter().map(|file| file.rfilename).collect(),
            folder: self.folder(&info.sha),
            downloads: Downloads::new(self, api, self.repo(&info.sha)),
        };
        let needed = needed_files(&remote, self.options.without_transformer).map_err(|error| self.about(error))?;
        for path in &needed {
            remote.fetch(path)?;
        }
        // Only now does the revision stand for this commit in the cache.
        self.cache
            .repo(at_revision)
            .create_ref(&info.sha)
            .map_err(|source| RunnerError::Write { path: self.options.cache_dir.clone(), source })?;
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
fn first_lacking(folder: &Path, without_transformer: bool) -> Option<String> {
    let snapshot = Snapshot(folder);
    match needed_files(&snapshot, without_transformer) {
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
    downloads: Downloads<'a>,
}

impl Remote<'_> {
    fn fetch(&self, path: &str) -> Result<PathBuf, RunnerError> {
        let cached = self.folder.join(path);
        if cached.is_file() {
            return Ok(cached);
        }
        if !self.has(path) {
            return Err(RunnerError::Model(format!(
                "{} has no {path}, so it is no complete model in diffusers layout",
                self.repository.id
            )));
        }
        self.downloads.fetch(path, &cached)?;
        Ok(cached)
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
