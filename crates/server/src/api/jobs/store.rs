//! The jobs this server remembers: waiting, running, and ended ones whose answer may still be fetched.
//!
//! There are at most [`JobLimits::max_jobs`]. A job that has ended is forgotten when it is deleted, after
//! [`JobLimits::retention`], when a new job needs its place and its outcome has been fetched, or when the
//! pictures kept take more than [`JobLimits::memory_bytes`]: fetched ones first, then the oldest, but
//! never the one that ended last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterimage_runner::Progress;
use serde_json::value::RawValue;
use tokio::sync::watch;
use uuid::Uuid;

use super::kept_job::{Ending, KeptJob, Phase, RunningJob, Signals};
use super::object::{JobObject, JobWithPictures};
use crate::api::error::ApiError;
use crate::api::state::unix_seconds;

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
    /// Places of jobs that are about to be accepted.
    reserved: usize,
    /// Oldest first.
    jobs: Vec<KeptJob>,
}

/// A place for one job; given back when dropped.
pub(super) struct Place<'a> {
    store: &'a JobStore,
}

impl JobStore {
    pub(crate) fn new(limits: JobLimits) -> Self {
        Self { limits, kept: Mutex::default() }
    }

    pub(super) fn retention(&self) -> Duration {
        self.limits.retention
    }

    /// A place for one more job, if need be that of one whose outcome was fetched.
    pub(super) fn reserve(&self) -> Result<Place<'_>, ApiError> {
        let mut kept = self.kept();
        if kept.jobs.len() + kept.reserved >= self.limits.max_jobs {
            let fetched = kept.jobs.iter().position(KeptJob::is_settled);
            let index = fetched.ok_or(ApiError::TooManyJobs { kept: self.limits.max_jobs })?;
            kept.forget(index);
        }
        kept.reserved += 1;
        Ok(Place { store: self })
    }

    /// Up to `limit` of the owner's jobs from the newest on, or those after the job `after`, and whether
    /// there are more. `None` if the owner has no such job.
    pub(super) fn list(&self, owner: Owner, limit: usize, after: Option<&str>) -> Option<(Vec<JobObject>, bool)> {
        let kept = self.kept();
        let owned: Vec<_> = kept.jobs.iter().filter(|job| job.owner == owner).collect();
        let end = match after {
            None => owned.len(),
            Some(id) => owned.iter().position(|job| job.id == id)?,
        };
        let start = end.saturating_sub(limit);
        let page = owned[start..end].iter().rev().map(|job| job.object(self.limits.retention));
        Some((page.collect(), start > 0))
    }

    /// The owner's job with its previews or its result, which counts as fetched by that.
    pub(super) fn with_pictures(&self, owner: Owner, id: &str) -> Option<JobWithPictures> {
        let kept = self.kept();
        let job = &kept.jobs[kept.owned_position(owner, id)?];
        let (partial_images, result) = match &job.phase {
            Phase::Unfinished(previews) => (previews.values().cloned().collect(), None),
            Phase::Ended { ending, .. } => {
                job.signals.settled.cancel();
                let result = match ending {
                    Ending::Succeeded(result) => Some(Arc::clone(result)),
                    Ending::Failed(_) | Ending::Cancelled => None,
                };
                (Vec::new(), result)
            }
        };
        Some(JobWithPictures { job: job.object(self.limits.retention), partial_images, result })
    }

    /// Cancels an unfinished job of the owner or forgets one that has ended; how it stands afterwards.
    pub(super) fn delete(&self, owner: Owner, id: &str) -> Option<JobObject> {
        let mut kept = self.kept();
        let index = kept.owned_position(owner, id)?;
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

    /// Keeps a preview of image `index` instead of the one before.
    pub(super) fn show(&self, id: &str, index: usize, preview: Arc<RawValue>) {
        let mut kept = self.kept();
        let Some(position) = kept.position(id) else { return };
        if let Phase::Unfinished(previews) = &mut kept.jobs[position].phase {
            previews.insert(index, preview);
        }
        kept.make_room(self.limits.memory_bytes, id);
    }

    /// Whether the job was still unfinished, and now ends like this.
    pub(super) fn end(&self, id: &str, ending: Ending) -> bool {
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
    pub(super) fn forget(&self, id: &str) {
        let mut kept = self.kept();
        if let Some(index) = kept.position(id) {
            kept.forget(index);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn position(&self, id: &str) -> Option<usize> {
        self.jobs.iter().position(|job| job.id == id)
    }

    fn owned_position(&self, owner: Owner, id: &str) -> Option<usize> {
        self.position(id).filter(|index| self.jobs[*index].owner == owner)
    }

    fn forget(&mut self, index: usize) {
        let job = self.jobs.remove(index);
        job.signals.settled.cancel();
        job.signals.forgotten.cancel();
    }

    /// Forgets jobs that have ended until all pictures fit, but not `spared`.
    fn make_room(&mut self, memory_bytes: usize, spared: &str) {
        while self.jobs.iter().map(KeptJob::bytes).sum::<usize>() > memory_bytes {
            let is_candidate = |job: &&KeptJob| job.id != spared && job.has_result();
            let fetched = self.jobs.iter().position(|job| is_candidate(&job) && job.is_settled());
            let Some(index) = fetched.or_else(|| self.jobs.iter().position(|job| is_candidate(&job))) else { return };
            tracing::info!(job = self.jobs[index].id, "forgot a job to make room (--job-memory-bytes)");
            self.forget(index);
        }
    }
}

impl Place<'_> {
    /// Fills the place with a job that the engine has accepted.
    pub(super) fn take(
        self,
        owner: Owner,
        model: &str,
        seed: u64,
        progress: watch::Receiver<Progress>,
    ) -> (RunningJob, JobObject) {
        let job = KeptJob {
            owner,
            // Random, because the id is all that a client needs to see the pictures.
            id: format!("job_{}", Uuid::new_v4().simple()),
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
        self.store.kept().reserved -= 1;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Every answer in these tests takes 10 bytes.
    fn answer() -> Ending {
        Ending::Succeeded(text("01234567"))
    }

    fn text(text: &str) -> Arc<RawValue> {
        Arc::from(serde_json::value::to_raw_value(text).unwrap())
    }

    fn store(max_jobs: usize, memory_bytes: usize) -> JobStore {
        JobStore::new(JobLimits { max_jobs, retention: Duration::from_secs(60), memory_bytes })
    }

    fn add(store: &JobStore) -> (RunningJob, watch::Sender<Progress>) {
        let (sender, progress) = watch::channel(Progress { steps: 9, queue_position: 1, ..Progress::default() });
        (store.reserve().unwrap().take(None, "a-model", 7, progress).0, sender)
    }

    fn fetched(store: &JobStore, id: &str) -> Value {
        serde_json::to_value(store.with_pictures(None, id).unwrap()).unwrap()
    }

    #[test]
    fn a_job_shows_its_progress_its_previews_and_its_result() {
        let store = store(4, 1000);
        let (job, sender) = add(&store);
        let mut object = fetched(&store, &job.id);
        assert!(object["id"].take().as_str().unwrap().starts_with("job_"));
        assert!(object["created_at"].take().as_u64().unwrap() > 1_700_000_000);
        insta::assert_json_snapshot!(object, @r#"
        {
          "id": null,
          "object": "image.job",
          "status": "queued",
          "created_at": null,
          "finished_at": null,
          "expires_at": null,
          "model": "a-model",
          "seed": 7,
          "progress": {
            "step": 0,
            "total": 9,
            "cached": 0,
            "queue_position": 1
          },
          "error": null,
          "partial_images": [],
          "result": null
        }
        "#);

        sender.send_replace(Progress { started: true, step: 5, steps: 9, cached: 2, queue_position: 0 });
        for (image, preview) in [(1, "one"), (0, "early"), (0, "late")] {
            store.show(&job.id, image, text(preview));
        }
        let object = fetched(&store, &job.id);
        assert_eq!((&object["status"], &object["progress"]["step"]), (&json!("running"), &json!(5)));
        assert_eq!(object["partial_images"], json!(["late", "one"]));

        drop(sender);
        assert!(store.end(&job.id, answer()));
        let object = fetched(&store, &job.id);
        assert_eq!((&object["status"], &object["result"]), (&json!("succeeded"), &json!("01234567")));
        assert_eq!((&object["partial_images"], &object["progress"]["cached"]), (&json!([]), &json!(2)));
        let seconds = |key: &str| object[key].as_u64().unwrap();
        assert_eq!(seconds("expires_at"), seconds("finished_at") + 60);
    }

    #[test]
    fn an_unfinished_job_is_cancelled_and_an_ended_one_forgotten() {
        let store = store(4, 1000);
        let (job, _sender) = add(&store);
        store.delete(None, &job.id).unwrap();
        assert!(job.signals.cancelled.is_cancelled() && !job.signals.forgotten.is_cancelled());
        assert!(!store.end(&job.id, answer()), "it stays cancelled");
        assert_eq!(fetched(&store, &job.id)["status"], "cancelled");
        store.delete(None, &job.id).unwrap();
        assert!(job.signals.forgotten.is_cancelled());
        assert!(store.with_pictures(None, &job.id).is_none() && store.delete(None, &job.id).is_none());
    }

    #[test]
    fn a_full_store_takes_the_place_of_a_fetched_job_only() {
        let store = store(2, 1000);
        let ((first, _a), (second, _b)) = (add(&store), add(&store));
        store.end(&first.id, Ending::Failed(ApiError::JobFailed("no memory".to_owned()).tell()));
        store.end(&second.id, answer());
        assert!(matches!(store.reserve(), Err(ApiError::TooManyJobs { kept: 2 })));
        fetched(&store, &second.id);
        let place = store.reserve().unwrap();
        assert!(store.with_pictures(None, &second.id).is_none());
        assert!(store.reserve().is_err(), "the place is taken");
        drop(place);
        add(&store);
        assert_eq!(fetched(&store, &first.id)["error"]["code"], "job_failed");
    }

    #[test]
    fn pictures_over_the_bound_go_fetched_ones_first() {
        let store = store(9, 25);
        let jobs = [(); 4].map(|()| add(&store));
        let [first, second, third, fourth] = jobs.each_ref().map(|(job, _)| job.id.as_str());
        store.end(first, answer());
        store.end(second, answer());
        fetched(&store, second);
        store.end(third, answer());
        assert!(store.with_pictures(None, second).is_none() && store.with_pictures(None, first).is_some());
        store.end(fourth, Ending::Succeeded(text(&"x".repeat(100))));
        assert!(store.with_pictures(None, first).is_none() && store.with_pictures(None, third).is_none());
        assert_eq!(fetched(&store, fourth)["status"], "succeeded");
    }

    #[test]
    fn pages_go_from_the_newest_to_the_oldest() {
        let store = store(9, 1000);
        let jobs = [(); 3].map(|()| add(&store));
        let [first, second, third] = jobs.each_ref().map(|(job, _)| job.id.as_str());
        let page = |limit, after| {
            let (jobs, has_more) = store.list(None, limit, after)?;
            Some((jobs.into_iter().map(|job| job.id).collect::<Vec<_>>(), has_more))
        };
        assert_eq!(page(2, None).unwrap(), (vec![third.to_owned(), second.to_owned()], true));
        assert_eq!(page(2, Some(second)).unwrap(), (vec![first.to_owned()], false));
        assert_eq!(page(2, Some(first)).unwrap(), (Vec::new(), false));
        assert_eq!(page(2, Some("job_0")), None);
    }

    #[test]
    fn a_job_is_its_keys_alone() {
        let store = store(9, 1000);
        let add = |owner| {
            let (_, progress) = watch::channel(Progress::default());
            store.reserve().unwrap().take(owner, "a-model", 7, progress).0.id
        };
        let (first, second) = (add(Some(0)), add(Some(1)));
        assert!(store.with_pictures(Some(1), &first).is_none() && store.delete(Some(1), &first).is_none());
        assert!(store.list(Some(1), 9, Some(&first)).is_none());
        let (jobs, has_more) = store.list(Some(1), 9, None).unwrap();
        assert_eq!((jobs.len(), &jobs[0].id, has_more), (1, &second, false));
        assert!(store.with_pictures(Some(0), &first).is_some() && store.delete(Some(0), &first).is_some());
    }
}
