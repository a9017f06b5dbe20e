//! One file from the hub into the cache.
//!
//! What has arrived stays in a file beside the finished contents, also when the connection breaks or the
//! process ends: the next attempt asks for the rest. The file is locked while it grows, so that of two
//! processes one waits for the other.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::cache::{CachedRepository, write_into_folder};
use super::client::{Client, FileFacts, HubError};
use super::progress::FetchProgress;
use super::refusal;
use super::repository::Repository;
use crate::RunnerError;

/// Attempts in a row that bring nothing before it is given up.
const FRUITLESS_ATTEMPTS: u32 = 4;
const BUFFER_BYTES: usize = 256 << 10;

/// A file to fetch.
pub(super) struct Download<'a> {
    pub(super) repository: &'a Repository<'a>,
    pub(super) cache: &'a CachedRepository,
    pub(super) client: &'a Client,
    pub(super) commit: &'a str,
    pub(super) path: &'a str,
}

/// Why an attempt did not bring all that was missing.
enum Broken {
    Hub(HubError),
    /// The connection broke while the content came.
    Connection(std::io::Error),
    /// The content cannot be kept.
    Disk(std::io::Error),
}

impl Download<'_> {
    /// Fetches the file, or what is missing of it, and gives its path in the snapshot.
    pub(super) fn run(&self) -> Result<PathBuf, RunnerError> {
        let facts = self.client.facts(self.repository.id, self.commit, self.path);
        let facts = facts.map_err(|error| self.explain(error))?;
        if !crate::weights::is_plain_name(&facts.etag) {
            return Err(self.explain(HubError::Odd(format!("its ETag `{}` cannot name a file", facts.etag))));
        }
        let blob = self.cache.blob(&facts.etag);
        if blob.metadata().map_or(true, |blob| blob.len() != facts.bytes) {
            self.fill(&facts, &blob)?;
        }
        self.cache.link(&facts.etag, self.commit, self.path)
    }

    /// Makes the content whole.
    fn fill(&self, facts: &FileFacts, blob: &Path) -> Result<(), RunnerError> {
        let incomplete = self.cache.incomplete(&facts.etag);
        let failed = |source| RunnerError::Write { path: incomplete.clone(), source };
        let open = |path: &Path| OpenOptions::new().append(true).create(true).open(path);
        let mut file = write_into_folder(&incomplete, open)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!(file = self.path, "another process is fetching it; waiting");
                file.lock().map_err(failed)?;
                if blob.exists() {
                    return Ok(());
                }
                // The other process gave up, and may have left the file under another name or none.
                file = write_into_folder(&incomplete, open)?;
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        self.append_all(&mut file, facts.bytes)?;
        file.sync_all().and_then(|()| fs::rename(&incomplete, blob)).map_err(failed)
    }

    /// Appends what is missing, in as many attempts as it takes while each brings something.
    fn append_all(&self, file: &mut File, bytes: u64) -> Result<(), RunnerError> {
        let failed = |source| RunnerError::Write { path: self.repository.options.cache_dir.clone(), source };
        let mut fruitless = 0;
        loop {
            let there = file.metadata().map_err(failed)?.len();
            if there == bytes {
                self.progress().fetched(self.path, there, bytes);
                return Ok(());
            }
            let outcome = self.append(file, there, bytes);
            let arrived = file.metadata().map_err(failed)?.len();
            fruitless = if arrived > there { 0 } else { fruitless + 1 };
            match outcome {
                Err(Broken::Disk(error)) => return Err(failed(error)),
                Err(Broken::Hub(error)) if fruitless >= FRUITLESS_ATTEMPTS || !is_passing(&error) => {
                    return Err(self.explain(error));
                }
                Err(Broken::Connection(error)) if fruitless >= FRUITLESS_ATTEMPTS => {
                    return Err(self.broken_off(arrived, bytes, &error.to_string()));
                }
                Ok(()) if fruitless >= FRUITLESS_ATTEMPTS => {
                    return Err(self.broken_off(arrived, bytes, "the hub sends no more"));
                }
                _ => {}
            }
            if fruitless > 0 {
                tracing::warn!(file = self.path, "the hub sends nothing, trying again");
                std::thread::sleep(self.repository.options.retry_pause * 2u32.pow(fruitless - 1));
            }
        }
    }

    /// One attempt: appends to the `there` bytes what a connection brings, at most up to `bytes`.
    fn append(&self, file: &mut File, there: u64, bytes: u64) -> Result<(), Broken> {
        // More than there should be is not the beginning of this content.
        let there = if there > bytes { 0 } else { there };
        let content = self.client.content(self.repository.id, self.commit, self.path, there).map_err(Broken::Hub)?;
        if content.offset != there && content.offset != 0 {
            let problem = format!("asked for bytes from {there} on, it sends those from {} on", content.offset);
            return Err(Broken::Hub(HubError::Odd(problem)));
        }
        file.set_len(content.offset).map_err(Broken::Disk)?;
        let mut done = content.offset;
        let mut reader = content.reader.take(bytes - done);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            self.progress().fetched(self.path, done, bytes);
            match reader.read(&mut buffer).map_err(Broken::Connection)? {
                0 => return Ok(()),
                read => {
                    file.write_all(&buffer[..read]).map_err(Broken::Disk)?;
                    done += read as u64;
                }
            }
        }
    }

    fn progress(&self) -> &dyn FetchProgress {
        &*self.repository.options.progress
    }

    fn explain(&self, error: HubError) -> RunnerError {
        refusal::explain(error, self.repository, Some(self.path))
    }

    fn broken_off(&self, arrived: u64, bytes: u64, why: &str) -> RunnerError {
        RunnerError::Model(format!(
            "{} of {}: {arrived} of {bytes} bytes arrived, then nothing in {FRUITLESS_ATTEMPTS} attempts ({why}); what \
             is there is kept, try again later",
            self.path, self.repository.id
        ))
    }
}

/// Whether another attempt may do better.
fn is_passing(error: &HubError) -> bool {
    match error {
        HubError::Refused { status, .. } => *status == 429 || *status >= 500,
        HubError::Unreachable(_) => true,
        HubError::Odd(_) => false,
    }
}
