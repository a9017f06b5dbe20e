//! One file from the hub into the cache.
//!
//! What arrives is appended to `blobs/ETAG.part`, and the next attempt, of this start or of another, asks for what
//! is missing. Of several processes one fetches a content; the others wait for it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::is_hash_name;
use super::cache::{create_parent, link};
use super::client::{Answer, Client, FetchError, encoded};
use super::refusal;
use super::repository::Repository;
use crate::{CheckpointError, plain_file};

/// What an attempt must get further than all before it.
const FRUITFUL_BYTES: u64 = 16 << 10;
/// Attempts in a row that bring less before it is given up.
const FRUITLESS_ATTEMPTS: u32 = 4;
/// Before the second of them; doubled before each further one.
const PAUSE: Duration = Duration::from_millis(500);
/// Most bytes of a file of weights: the hub's own limit is a fifth of it.
const MAX_WEIGHT_BYTES: u64 = 1 << 38;
/// Bytes that are read, and reported, at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// The files of a repository at one commit.
pub(super) struct Downloads<'a> {
    pub(super) repository: &'a Repository<'a>,
    pub(super) client: Client<'a>,
    pub(super) commit: String,
}

/// What the hub says about a file.
struct Metadata {
    /// Names its content.
    etag: String,
    /// Its length, where the answer has it.
    bytes: Option<u64>,
}

/// An attempt that failed.
struct Failure {
    error: FetchError,
    /// How much of the file was there at its end.
    reached: u64,
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self { error, reached: 0 }
    }
}

impl Downloads<'_> {
    /// Fetches the file `path`, or what is missing of it, to `target`, where its snapshot has it.
    pub(super) fn fetch(&self, path: &str, target: &Path) -> Result<(), CheckpointError> {
        // A link whose content was deleted would be in the way.
        if target.is_symlink() && !target.exists() {
            fs::remove_file(target).map_err(|source| CheckpointError::Write { path: target.to_path_buf(), source })?;
        }
        let (mut fruitless, mut furthest) = (0, 0);
        while let Err(Failure { error, reached }) = self.attempt(path, target) {
            // A little more each time, or the same beginning again, would go on for ever.
            let is_fruitful = reached >= furthest + FRUITFUL_BYTES;
            fruitless = if is_fruitful { 0 } else { fruitless + 1 };
            furthest = furthest.max(reached);
            if !may_succeed_later(&error) || fruitless == FRUITLESS_ATTEMPTS {
                return Err(refusal::explain(error, self.repository, Some(path)));
            }
            tracing::warn!(file = path, ?error, "the download broke off; trying again");
            if fruitless > 0 {
                std::thread::sleep(PAUSE * 2u32.pow(fruitless - 1));
            }
        }
        Ok(())
    }

    fn attempt(&self, path: &str, target: &Path) -> Result<(), Failure> {
        let repository = self.repository;
        let url =
            format!("{}/{}/resolve/{}/{}", repository.options.endpoint, repository.id, self.commit, encoded(path));
        let first_byte = match self.client.get(&url, Some("bytes=0-0")) {
            // An empty file has no first byte.
            Err(FetchError::Refused { status: 416, .. }) => self.client.get(&url, None),
            other => other,
        };
        let metadata = Metadata::of(&first_byte?)?;
        check_length(path, metadata.bytes.unwrap_or(0))?;
        let blob = repository.cache().blob(&metadata.etag);
        create_parent(&blob).map_err(FetchError::Cache)?;
        let _lock = locked(&blob, path)?;
        let is_complete =
            |blob: &Path| blob.metadata().is_ok_and(|found| metadata.bytes.is_none_or(|bytes| bytes == found.len()));
        if !is_complete(&blob) {
            let part = with_ending(&blob, ".part");
            self.complete(&part, &url, path, metadata.bytes)?;
            fs::rename(&part, &blob).map_err(FetchError::Cache)?;
        }
        if !target.exists() {
            link(target, &blob).map_err(FetchError::Cache)?;
        }
        Ok(())
    }

    /// Appends to a part what is missing of its file.
    fn complete(&self, part: &Path, url: &str, path: &str, total: Option<u64>) -> Result<(), Failure> {
        let mut file = OpenOptions::new().append(true).create(true).open(part).map_err(FetchError::Cache)?;
        let mut done = file.metadata().map_err(FetchError::Cache)?.len();
        if done > 0 && total.is_none_or(|total| done >= total) {
            tracing::warn!(file = path, part = %part.display(), "it is no beginning of the file; fetching it anew");
            done = restart(&file)?;
        }
        let range = format!("bytes={done}-");
        let answer = self.client.get(url, Some(&*range).filter(|_| total != Some(0)))?;
        // A server that knows no ranges answers with the whole.
        if done > 0 && range_start(&answer) != Some(done) {
            tracing::info!(file = path, "the server sends the whole file again");
            done = restart(&file)?;
        }
        let interrupted = |error, reached| Failure { error, reached };
        let told = |done: u64| self.repository.options.progress.fetched(path, done, total.unwrap_or(done));
        told(done);
        let mut reader = self.client.steady(answer.response.into_body());
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Err(interrupted(FetchError::Transport(error.into()), done)),
            };
            let longer = done + read as u64;
            if total.is_some_and(|total| longer > total) {
                return Err(FetchError::Odd("it sends more than the file is said to have".to_owned()).into());
            }
            check_length(path, longer)?;
            file.write_all(&chunk[..read]).map_err(|error| interrupted(FetchError::Cache(error), done))?;
            done = longer;
            told(done);
        }
        match total {
            Some(total) if done != total => {
                let broken =
                    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("{done} of {total} bytes arrived"));
                Err(interrupted(FetchError::Transport(broken.into()), done))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses what is larger than a file of this name can be, so that no hub fills a disk with a configuration.
fn check_length(path: &str, bytes: u64) -> Result<(), FetchError> {
    let is_weights = [".safetensors", ".bin"].iter().any(|ending| path.ends_with(ending));
    let most = if is_weights { MAX_WEIGHT_BYTES } else { plain_file::max_bytes(Path::new(path)) };
    if bytes <= most {
        return Ok(());
    }
    Err(FetchError::Odd(format!("the file has more than {most} bytes, the most that such a file may have")))
}

/// Forgets what is there of a file.
fn restart(part: &File) -> Result<u64, FetchError> {
    part.set_len(0).map_err(FetchError::Cache)?;
    Ok(0)
}

impl Metadata {
    fn of(answer: &Answer) -> Result<Self, FetchError> {
        let etag = answer.of_hub("x-linked-etag").or_else(|| answer.of_hub("etag")).or_else(|| answer.header("etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let Some(etag) = etag.filter(|etag| is_hash_name(etag)) else {
            return Err(FetchError::Odd("its answer has no `ETag` that can be a file name".to_owned()));
        };
        // `bytes 0-0/TOTAL`, or all of it.
        let of_range = answer.header("content-range").and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        let of_whole = || answer.header("content-length").filter(|_| answer.response.status() == 200)?.parse().ok();
        let bytes = of_range.or_else(of_whole).or_else(|| answer.of_hub("x-linked-size")?.parse().ok());
        Ok(Self { etag: etag.to_owned(), bytes })
    }
}

/// Where the range begins that an answer holds; `None` for a whole file.
fn range_start(answer: &Answer) -> Option<u64> {
    let range = answer.header("content-range").filter(|_| answer.response.status() == 206)?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Waits until no other process fetches the same content.
fn locked(blob: &Path, path: &str) -> Result<File, FetchError> {
    let lock = with_ending(blob, ".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&lock).map_err(FetchError::Cache)?;
    let outcome = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            tracing::info!(file = path, "another process is fetching it; waiting");
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    outcome.map(|()| file).map_err(|_| FetchError::Lock(lock))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Whether another attempt may do better.
fn may_succeed_later(error: &FetchError) -> bool {
    match error {
        FetchError::Transport(_) => true,
        FetchError::Refused { status, .. } => *status == 429 || *status >= 500,
        FetchError::Odd(_) | FetchError::Cache(_) | FetchError::Lock(_) => false,
    }
}
