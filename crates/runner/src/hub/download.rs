//! One file from the hub into the cache, by way of hf-hub.
//!
//! hf-hub appends what arrives to `blobs/ETAG.part` and asks for the rest of what is there. Its own
//! retries are off: within a call they take a part file from an earlier start for an empty one, so that
//! the whole may be appended to a half. Every attempt here is a new call, which looks at the file.

use std::cell::Cell;
use std::fs::{self, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiError, ApiRepo};
use hf_hub::{CacheRepo, Repo};

use super::progress::FetchProgress;
use super::refusal;
use super::repository::Repository;
use crate::RunnerError;

/// Attempts in a row that bring nothing before it is given up.
const FRUITLESS_ATTEMPTS: u32 = 4;
/// Before the second of them; doubled before each further one.
const PAUSE: Duration = Duration::from_millis(500);

/// The files of a repository at one commit.
pub(super) struct Downloads<'a> {
    repository: &'a Repository<'a>,
    cache: CacheRepo,
    api: Api,
    files: ApiRepo,
}

/// What to do after an attempt that failed.
enum Remedy {
    /// Another attempt may do better.
    TryAgain,
    /// Another process fetches the file.
    Wait,
    /// What is there of the file is as long as the file, or longer.
    DropPart,
    GiveUp,
}

impl<'a> Downloads<'a> {
    pub(super) fn new(repository: &'a Repository<'a>, api: Api, commit: Repo) -> Self {
        let cache = repository.cache.repo(commit.clone());
        Self { repository, cache, files: api.repo(commit), api }
    }

    /// Fetches the file `path`, or what is missing of it, to `target`, where its snapshot has it.
    pub(super) fn fetch(&self, path: &str, target: &Path) -> Result<(), RunnerError> {
        let failed = |error| refusal::explain(error, &self.files.url(path), self.repository, Some(path));
        // A link whose content was deleted would be in the way.
        if target.is_symlink() && !target.exists() {
            fs::remove_file(target).map_err(|source| RunnerError::Write { path: target.to_path_buf(), source })?;
        }
        let (mut fruitless, mut dropped_part) = (0, false);
        while !target.is_file() {
            let arrival = Arrival::default();
            let watch =
                Watch { file: path, progress: &*self.repository.options.progress, arrival: &arrival, done: None };
            let error = match self.files.download_with_progress(path, watch) {
                Ok(fetched) => return check_length(&fetched, arrival.total_bytes.get()),
                Err(error) => error,
            };
            match remedy(&error) {
                Remedy::Wait => tracing::info!(file = path, "another process is fetching it; waiting"),
                Remedy::DropPart if !dropped_part => {
                    dropped_part = true;
                    self.drop_part(path).map_err(failed)?;
                }
                Remedy::TryAgain => {
                    fruitless = if arrival.new_bytes.get() > 0 { 0 } else { fruitless + 1 };
                    if fruitless == FRUITLESS_ATTEMPTS {
                        return Err(failed(error));
                    }
                    tracing::warn!(file = path, %error, "the download broke off; trying again");
                    if fruitless > 0 {
                        std::thread::sleep(PAUSE * 2u32.pow(fruitless - 1));
                    }
                }
                Remedy::DropPart | Remedy::GiveUp => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Removes what is there of a file.
    fn drop_part(&self, path: &str) -> Result<(), ApiError> {
        let metadata = self.api.metadata(&self.files.url(path))?;
        let part = self.cache.blob_path(metadata.etag()).with_extension("part");
        tracing::warn!(file = path, part = %part.display(), "it is no beginning of the file; fetching it anew");
        Ok(fs::remove_file(part)?)
    }
}

fn remedy(error: &ApiError) -> Remedy {
    match error {
        ApiError::LockAcquisition(lock) if !cannot_be_locked(lock) => Remedy::Wait,
        ApiError::InvalidResume => Remedy::DropPart,
        ApiError::IoError(_) => Remedy::TryAgain,
        ApiError::RequestError(error) => match **error {
            // Nothing follows the end of the file.
            ureq::Error::StatusCode(416) => Remedy::DropPart,
            ureq::Error::StatusCode(status) if status != 429 && status < 500 => Remedy::GiveUp,
            _ => Remedy::TryAgain,
        },
        _ => Remedy::GiveUp,
    }
}

/// Whether it is not another process that is in the way, but the file system.
fn cannot_be_locked(lock: &Path) -> bool {
    let outcome = OpenOptions::new().write(true).open(lock).map(|file| file.try_lock());
    matches!(outcome, Ok(Err(TryLockError::Error(_))) | Err(_))
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
        fs::remove_file(file).map_err(read_error)?;
    }
    Err(RunnerError::Model(format!(
        "{}: {found} of {announced} bytes arrived; it was removed, try again",
        path.display()
    )))
}

/// What an attempt brought.
#[derive(Default)]
struct Arrival {
    total_bytes: Cell<u64>,
    new_bytes: Cell<u64>,
}

/// Hears from hf-hub how an attempt goes.
struct Watch<'a> {
    file: &'a str,
    progress: &'a dyn FetchProgress,
    arrival: &'a Arrival,
    /// Nothing is known until hf-hub says how much was there before.
    done: Option<u64>,
}

impl Progress for Watch<'_> {
    fn init(&mut self, size: usize, _: &str) {
        self.arrival.total_bytes.set(size as u64);
        self.done = None;
    }

    fn update(&mut self, size: usize) {
        let size = size as u64;
        let done = match self.done {
            None => size,
            Some(done) => {
                self.arrival.new_bytes.update(|bytes| bytes + size);
                done + size
            }
        };
        self.done = Some(done);
        self.progress.fetched(self.file, done, self.arrival.total_bytes.get());
    }

    fn finish(&mut self) {}
}
