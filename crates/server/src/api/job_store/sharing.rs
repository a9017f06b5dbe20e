//! What clients share of the store: its places and its memory. What one of them leaves lying takes nothing from others.

use std::time::Duration;

use afterimage_runner::{Owner as Client, UsesByOwner};

use super::kept_job::{KeptJob, Phase};
use super::{JobLimits, Kept};

impl Kept {
    /// Whether the client may have one more job. For that, jobs whose outcome was fetched are forgotten, the client's own
    /// first; none if that would not be enough.
    pub(super) fn make_place(&mut self, client: Client, max_jobs: usize) -> bool {
        let (own, others): (Vec<_>, Vec<_>) =
            self.jobs.iter().filter(|job| job.is_settled()).partition(|job| job.client == client);
        let mut places = self.places();
        let mut forgotten = Vec::new();
        let mut fetched = own.into_iter().chain(others);
        while places.seen_by(client).excess(1.0, max_jobs as f64) > 0.0 {
            let Some(job) = fetched.next() else { return false };
            places.add(job.client, -1.0);
            forgotten.push(job.id.clone());
        }
        for id in forgotten {
            if let Some(index) = self.position(&id) {
                self.forget(index);
            }
        }
        true
    }

    /// How long it takes until the client may have one more job, if nothing is fetched or deleted meanwhile.
    pub(super) fn wait_for_place(&self, client: Client, limits: JobLimits, work_left: Duration) -> Duration {
        let expiring = self.jobs.iter().map(|job| (job.expires_in(limits.retention, work_left), job.client));
        let mut expiring: Vec<_> = expiring.collect();
        expiring.sort_unstable();
        let mut places = self.places();
        let mut wait = Duration::ZERO;
        for (expires_in, of) in expiring {
            if places.seen_by(client).excess(1.0, limits.max_jobs as f64) <= 0.0 {
                break;
            }
            places.add(of, -1.0);
            wait = expires_in;
        }
        wait
    }

    /// Jobs, and those about to be accepted.
    fn places(&self) -> UsesByOwner {
        let clients = self.jobs.iter().map(|job| job.client).chain(self.reserved.iter().copied());
        let mut places = UsesByOwner::default();
        clients.for_each(|client| places.add(client, 1.0));
        places
    }

    /// Forgets jobs that have ended until all pictures fit, but not `spared`, and none that was not fetched of a client
    /// within its share.
    pub(super) fn make_room(&mut self, memory_bytes: usize, spared: &str) {
        loop {
            let memory = self.memory();
            if memory.total() <= memory_bytes as f64 {
                return;
            }
            let is_candidate = |job: &KeptJob| job.id != spared && job.leaves_something();
            let fetched = self.jobs.iter().position(|job| is_candidate(job) && job.is_settled());
            let is_over = |job: &KeptJob| is_candidate(job) && memory.seen_by(job.client).is_over(memory_bytes as f64);
            let Some(index) = fetched.or_else(|| self.jobs.iter().position(is_over)) else { return };
            tracing::info!(job = self.jobs[index].id, "forgot a job to make room (--job-memory-bytes)");
            self.forget(index);
        }
    }

    /// Drops a preview for which no room could be made, of a client that has more than its share: jobs that have not ended
    /// cannot be forgotten.
    pub(super) fn drop_preview_over_share(&mut self, memory_bytes: usize, id: &str, image: usize) {
        let memory = self.memory();
        let Some(position) = self.position(id) else { return };
        let job = &mut self.jobs[position];
        if memory.seen_by(job.client).is_over(memory_bytes as f64)
            && let Phase::Unfinished(previews) = &mut job.phase
        {
            previews.remove(&image);
        }
    }

    /// Bytes of previews, rows and results.
    fn memory(&self) -> UsesByOwner {
        let mut memory = UsesByOwner::default();
        self.jobs.iter().for_each(|job| memory.add(job.client, job.bytes() as f64));
        memory
    }
}
