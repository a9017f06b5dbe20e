//! The jobs this server remembers: waiting, running, and ended ones whose answer may still be fetched.
//!
//! There are at most [`JobLimits::max_jobs`]. A job that has ended is forgotten when it is deleted, after
//! [`JobLimits::retention`], when a new job needs its place and its outcome has been fetched, which means delivered, or when the
//! pictures kept take more than [`JobLimits::memory_bytes`]: fetched ones first, then the oldest, but
//! never the one that ended last. Clients share both bounds ([`sharing`]).

mod fetched_job;
mod kept_job;
mod object;
mod retention;
mod sharing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterimage_runner::{Owner as Client, Progress};
use axum::body::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

use super::error::ApiError;
use crate::clock::unix_seconds;
use kept_job::{KeptJob, Phase, Signals};

pub(super) use fetched_job::FetchedJob;
pub(super) use kept_job::{Ending, RunningJob};
pub(super) use object::{JobKind, JobList, JobObject, JobWithPictures, SweepWithRows};

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobLimits {
    /// Jobs, in whatever state.
    pub(crate) max_jobs: usize,
    /// How long a job that has ended is kept.
    pub(crate) retention: Duration,
    /// Previews and results together.
    pub(crate) memory_bytes: usize,
}

/// The key that a job belongs to; `None` where there are no keys.
type Owner = Option<usize>;

/// All jobs.
#[derive(Debug)]
pub(crate) struct JobStore {
    limits: JobLimits,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Whose jobs are about to be accepted.
    reserved: Vec<Client>,
    /// Oldest first.
    jobs: Vec<KeptJob>,
}

/// A place for one job; given back when dropped.
pub(in crate::api) struct Place<'a> {
    store: &'a JobStore,
    client: Client,
}

impl JobStore {
    pub(crate) fn new(limits: JobLimits) -> Self {
        Self { limits, kept: Mutex::default() }
    }

    fn retention(&self) -> Duration {
        self.limits.retention
    }

    /// A place for one more job of the client, if necessary that of one whose outcome was fetched. `work_left` is how
    /// long everything accepted takes.
    pub(in crate::api) fn reserve(
        &self,
        client: Client,
        work_left: impl FnOnce() -> Duration,
    ) -> Result<Place<'_>, ApiError> {
        let mut kept = self.kept();
        if !kept.make_place(client, self.limits.max_jobs) {
            let retry_after = kept.wait_for_place(client, self.limits, work_left());
            return Err(ApiError::TooManyJobs { kept: kept.jobs.len(), retry_after });
        }
        kept.reserved.push(client);
        Ok(Place { store: self, client })
    }

    /// Up to `limit` of the owner's image jobs from the newest on, or those after the job `after`, and whether
    /// there are more. `None` if the owner has no such job.
    pub(in crate::api) fn list(
        &self,
        owner: Owner,
        limit: usize,
        after: Option<&str>,
    ) -> Option<(Vec<JobObject>, bool)> {
        let kept = self.kept();
        let owned: Vec<_> =
            kept.jobs.iter().filter(|job| job.owner == owner && job.kind == JobKind::ImageJob).collect();
        let end = match after {
            None => owned.len(),
            Some(id) => owned.iter().position(|job| job.id == id)?,
        };
        let start = end.saturating_sub(limit);
        let page = owned[start..end].iter().rev().map(|job| job.object(self.limits.retention));
        Some((page.collect(), start > 0))
    }

    /// The owner's job of this kind with its previews or rows, or its result.
    pub(in crate::api) fn fetch(&self, kind: JobKind, owner: Owner, id: &str) -> Option<FetchedJob> {
        let kept = self.kept();
        let job = &kept.jobs[kept.owned_position(kind, owner, id)?];
        let (parts, result, settled) = match &job.phase {
            Phase::Unfinished(parts) => (parts.values().cloned().collect(), None, None),
            Phase::Ended { ending, rows, .. } => {
                let result = match ending {
                    Ending::Succeeded(result) => Some(result.clone()),
                    Ending::Failed(_) | Ending::Cancelled => None,
                };
                (rows.values().cloned().collect(), result, Some(job.signals.settled.clone()))
            }
        };
        Some(FetchedJob { job: job.object(self.limits.retention), parts, result, settled })
    }

    /// Cancels an unfinished job of this kind and the owner or forgets one that has ended; how it stands afterwards.
    pub(in crate::api) fn delete(&self, kind: JobKind, owner: Owner, id: &str) -> Option<JobObject> {
        let mut kept = self.kept();
        let index = kept.owned_position(kind, owner, id)?;
        let job = &mut kept.jobs[index];
        if !matches!(job.phase, Phase::Unfinished(_)) {
            let object = job.object(self.limits.retention);
            kept.forget(index);
            return Some(object);
        }
        job.end(Ending::Cancelled);
        job.signals.cancelled.cancel();
        job.signals.settled.cancel();
        Some(job.object(self.limits.retention))
    }

    /// Keeps a preview of image `index`, or the row of setting `index`, instead of the one before.
    pub(in crate::api) fn show(&self, id: &str, index: usize, preview: Bytes) {
        let mut kept = self.kept();
        let Some(position) = kept.position(id) else { return };
        if let Phase::Unfinished(previews) = &mut kept.jobs[position].phase {
            previews.insert(index, preview);
        }
        kept.make_room(self.limits.memory_bytes, id);
        kept.drop_preview_over_share(self.limits.memory_bytes, id, index);
    }

    /// Whether the job was still unfinished, and now ends like this.
    pub(in crate::api) fn end(&self, id: &str, ending: Ending) -> bool {
        let mut kept = self.kept();
        let Some(position) = kept.position(id) else { return false };
        let job = &mut kept.jobs[position];
        if !matches!(job.phase, Phase::Unfinished(_)) {
            return false;
        }
        job.end(ending);
        kept.make_room(self.limits.memory_bytes, id);
        true
    }

    /// Forgets a job.
    fn forget(&self, id: &str) {
        let mut kept = self.kept();
        if let Some(index) = kept.position(id) {
            kept.forget(index);
        }
    }

    /// Jobs that have ended and whose outcome no client has.
    pub(in crate::api) fn unfetched(&self) -> usize {
        self.kept().jobs.iter().filter(|job| job.is_unfetched()).count()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn position(&self, id: &str) -> Option<usize> {
        self.jobs.iter().position(|job| job.id == id)
    }

    fn owned_position(&self, kind: JobKind, owner: Owner, id: &str) -> Option<usize> {
        self.position(id).filter(|index| self.jobs[*index].owner == owner && self.jobs[*index].kind == kind)
    }

    fn forget(&mut self, index: usize) {
        let job = self.jobs.remove(index);
        job.signals.settled.cancel();
        job.signals.forgotten.cancel();
    }
}

impl Place<'_> {
    /// Fills the place with a job that the engine has accepted.
    pub(in crate::api) fn take(
        self,
        kind: JobKind,
        owner: Owner,
        model: &str,
        seed: u64,
        progress: watch::Receiver<Progress>,
    ) -> (RunningJob, JobObject) {
        let job = KeptJob {
            kind,
            owner,
            client: self.client,
            // Random, because the id is all that a client needs to see the pictures.
            id: format!("{}_{}", kind.id_prefix(), Uuid::new_v4().simple()),
            created_at: unix_seconds(),
            model: model.to_owned(),
            seed,
            progress,
            phase: Phase::Unfinished(BTreeMap::new()),
            signals: Signals::default(),
        };
        let object = job.object(self.store.limits.retention);
        let running = RunningJob { id: job.id.clone(), signals: job.signals.clone() };
        self.store.kept().jobs.push(job);
        (running, object)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut kept = self.store.kept();
        if let Some(index) = kept.reserved.iter().position(|client| *client == self.client) {
            kept.reserved.swap_remove(index);
        }
    }
}
