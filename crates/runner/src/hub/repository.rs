//! One repository of the hub at one revision, and its snapshot in the cache.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::api_error;
use super::needed::{Files, Snapshot, needed_files};
use super::options::HubOptions;
use crate::RunnerError;
use crate::weights::is_plain_name;

/// How often a broken download is taken up again.
const RETRIES: usize = 3;

/// A repository at the revision of the options.
pub(super) struct Repository<'a> {
    pub(super) id: &'a str,
    pub(super) options: &'a HubOptions,
    cache: Cache,
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
        let cache = Cache::new(options.cache_dir.clone());
        Ok(Self { id, options, cache })
    }

    /// The folder of a complete snapshot, fetched if need be.
    pub(super) fn snapshot(&self) -> Result<PathBuf, RunnerError> {
        let lacking = match self.cached_snapshot() {
            None => "the repository".to_string(),
            Some(folder) => match first_lacking(&folder, self.options.without_transformer) {
                None => return Ok(folder),
                Some(lacking) => lacking,
            },
        };
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

    /// The folder the cache has for the revision, complete or not.
    fn cached_snapshot(&self) -> Option<PathBuf> {
        let revision = &self.options.revision;
        let repository = self.options.cache_dir.join(self.repo(revision).folder_name());
        let commit = std::fs::read_to_string(repository.join("refs").join(revision))
            .map_or_else(|_| revision.clone(), |commit| commit.trim().to_string());
        let folder = self.cached(&commit);
        folder.is_dir().then_some(folder)
    }

    fn cached(&self, commit: &str) -> PathBuf {
        self.cache.repo(self.repo(commit)).pointer_path(commit)
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.to_string(), RepoType::Model, revision.to_string())
    }

    fn fetch(&self) -> Result<PathBuf, RunnerError> {
        let mut builder = ApiBuilder::from_cache(self.cache.clone())
            .with_endpoint(self.options.endpoint.clone())
            .with_retries(RETRIES)
            .with_user_agent("afterimage", env!("CARGO_PKG_VERSION"));
        if let Some(token) = &self.options.token {
            builder = builder.with_token(Some(token.clone()));
        }
        let failed = |error| api_error::explain(error, self, None);
        let api = builder.build().map_err(failed)?;
        let revision = &self.options.revision;
        let info = api.repo(self.repo(revision)).info().map_err(failed)?;
        if !is_plain_name(&info.sha) {
            return Err(RunnerError::Model(format!(
                "{} named the commit `{}` for {}, which is none",
                self.options.endpoint, info.sha, self.id
            )));
        }
        let remote = Remote {
            repository: self,
            listing: info.siblings.into_iter().map(|file| file.rfilename).collect(),
            folder: self.cached(&info.sha),
            api: api.repo(self.repo(&info.sha)),
        };
        let needed = needed_files(&remote, self.options.without_transformer).map_err(|error| self.about(error))?;
        for path in &needed {
            remote.fetch(path)?;
        }
        // Only now does the revision stand for this commit in the cache.
        self.cache
            .repo(self.repo(revision))
            .create_ref(&info.sha)
            .map_err(|source| RunnerError::Write { path: self.options.cache_dir.clone(), source })?;
        Ok(remote.folder)
    }

    /// Says which repository an error is about.
    fn about(&self, error: RunnerError) -> RunnerError {
        match error {
            RunnerError::Model(text) if !text.starts_with(self.id) => {
                RunnerError::Model(format!("{}: {text}", self.id))
            }
            other => other,
        }
    }
}

/// The first needed file that a snapshot lacks.
fn first_lacking(folder: &Path, without_transformer: bool) -> Option<String> {
    let snapshot = Snapshot(folder);
    match needed_files(&snapshot, without_transformer) {
        Ok(needed) => needed.into_iter().find(|path| !snapshot.has(path)),
        Err(_) if !snapshot.has(crate::model_folder::MODEL_INDEX) => Some(crate::model_folder::MODEL_INDEX.to_string()),
        Err(error) => Some(format!("files ({error})")),
    }
}

/// A repository on the hub at one commit. Files that are asked for are fetched into the cache.
struct Remote<'a> {
    repository: &'a Repository<'a>,
    listing: HashSet<String>,
    folder: PathBuf,
    api: ApiRepo,
}

impl Remote<'_> {
    fn fetch(&self, path: &str) -> Result<PathBuf, RunnerError> {
        let cached = self.folder.join(path);
        if cached.is_file() {
            return Ok(cached);
        }
        let id = self.repository.id;
        if !self.has(path) {
            return Err(RunnerError::Model(format!(
                "{id} has no {path}, so it is no complete model in diffusers layout"
            )));
        }
        tracing::info!(model = id, file = path, "fetching");
        let announced = Cell::new(0);
        let progress = LoggedProgress { announced: &announced, done: 0, logged_tenths: 0 };
        let fetched = self
            .api
            .download_with_progress(path, progress)
            .map_err(|error| api_error::explain(error, self.repository, Some(path)))?;
        check_length(&fetched, announced.get())?;
        Ok(fetched)
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

/// hf-hub does not compare; a file of the wrong length would stay in the cache for good.
fn check_length(path: &Path, announced: u64) -> Result<(), RunnerError> {
    let read_error = |source| RunnerError::Read { path: path.to_path_buf(), source };
    let found = path.metadata().map_err(read_error)?.len();
    if found == announced {
        return Ok(());
    }
    let blob = path.canonicalize().map_err(read_error)?;
    for file in [path, &blob] {
        std::fs::remove_file(file).map_err(read_error)?;
    }
    Err(RunnerError::Model(format!(
        "{}: {found} of {announced} bytes arrived; it was removed, try again",
        path.display()
    )))
}

/// Logs every tenth of a download and remembers its length.
struct LoggedProgress<'a> {
    announced: &'a Cell<u64>,
    done: u64,
    logged_tenths: u64,
}

impl Progress for LoggedProgress<'_> {
    fn init(&mut self, size: usize, _: &str) {
        self.announced.set(size as u64);
        self.done = 0;
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        let total = self.announced.get();
        let tenths = (10 * self.done).checked_div(total).unwrap_or(0);
        if tenths > self.logged_tenths {
            self.logged_tenths = tenths;
            tracing::debug!(done_bytes = self.done, total_bytes = total, "fetching");
        }
    }

    fn finish(&mut self) {}
}
