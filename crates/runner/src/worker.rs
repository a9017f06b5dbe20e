//! The worker: one thread that owns a device and advances jobs step by step.
//!
//! Between two steps it looks at the job's cancellation and reports progress. A job that fails or
//! panics fails alone; the worker goes on with the next.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use afterimage_cache::{CacheBudget, CacheReport};

use crate::dit::{DitPipeline, ImageSpec, RunningImage};
use crate::error::RunnerError;
use crate::job::{FinishedImage, FinishedJob, Job, JobError, Outcome, Progress, Timings};

/// Weight of the newest job in the running mean of durations.
const NEWEST_SHARE: f64 = 0.3;

/// A job in the queue.
pub(crate) struct QueuedJob {
    pub(crate) job: Job,
    pub(crate) outcome: Outcome,
    pub(crate) accepted: Instant,
}

/// Running mean of how long jobs take.
#[derive(Debug, Default)]
pub(crate) struct JobDurations {
    mean_micros: AtomicU64,
}

pub(crate) struct Worker {
    pipeline: Arc<DitPipeline>,
    queued: Arc<AtomicUsize>,
    durations: Arc<JobDurations>,
    budget: CacheBudget,
}

/// A job the worker has begun.
struct RunningJob {
    job: Job,
    images: Vec<RunningImage>,
    step: usize,
    timings: Timings,
}

impl JobDurations {
    fn add(&self, seconds: f64) {
        let micros = seconds * 1e6;
        let mean = self.mean_micros.load(Ordering::Relaxed) as f64;
        let mean = if mean == 0.0 { micros } else { mean + NEWEST_SHARE * (micros - mean) };
        self.mean_micros.store(mean as u64, Ordering::Relaxed);
    }

    /// How long one job should take, that is, until a full queue has a place: whole seconds, at least one.
    pub(crate) fn expected(&self) -> Duration {
        let mean = Duration::from_micros(self.mean_micros.load(Ordering::Relaxed));
        Duration::from_secs(mean.as_secs_f64().ceil().max(1.0) as u64)
    }
}

impl Worker {
    pub(crate) fn new(
        pipeline: Arc<DitPipeline>,
        queued: Arc<AtomicUsize>,
        durations: Arc<JobDurations>,
        budget: CacheBudget,
    ) -> Self {
        Self { pipeline, queued, durations, budget }
    }

    /// Serves the queue until its sender is gone and it is empty.
    pub(crate) fn run(&self, queue: &Receiver<QueuedJob>) {
        while let Ok(QueuedJob { job, outcome, accepted }) = queue.recv() {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            let queue_seconds = accepted.elapsed().as_secs_f64();
            let begun = Instant::now();
            let served = catch_unwind(AssertUnwindSafe(|| self.serve(job, &outcome, queue_seconds)));
            let result = served.unwrap_or_else(|panic| Err(JobError::Failed(panic_message(panic.as_ref()))));
            match &result {
                Ok(_) => self.durations.add(begun.elapsed().as_secs_f64()),
                Err(JobError::Failed(reason)) => tracing::error!(reason, "job failed"),
                Err(JobError::Cancelled) => tracing::info!("job cancelled"),
            }
            outcome.send(result);
        }
    }

    fn serve(&self, job: Job, outcome: &Outcome, queue_seconds: f64) -> Result<FinishedJob, JobError> {
        let fail = |error: RunnerError| JobError::Failed(error.to_string());
        if outcome.is_cancelled() {
            return Err(JobError::Cancelled);
        }
        let mut running = RunningJob::begin(&self.pipeline, job, queue_seconds, &self.budget).map_err(fail)?;
        outcome.progress.send_replace(running.progress());
        while running.step < running.job.steps {
            if outcome.is_cancelled() {
                return Err(JobError::Cancelled);
            }
            running.advance(&self.pipeline).map_err(fail)?;
            outcome.progress.send_replace(running.progress());
        }
        running.finish(&self.pipeline).map_err(fail)
    }
}

impl RunningJob {
    fn begin(pipeline: &DitPipeline, job: Job, queue_seconds: f64, budget: &CacheBudget) -> Result<Self, RunnerError> {
        let started = Instant::now();
        let image = |index: usize| {
            let spec = ImageSpec {
                class: job.class,
                seed: job.seed + index as u64,
                size: job.size,
                steps: job.steps,
                guidance_scale: job.guidance_scale,
                scheduler: job.scheduler,
                cache: job.cache.clone(),
            };
            pipeline.begin(&spec, budget)
        };
        let images = (0..job.images).map(image).collect::<Result<_, _>>()?;
        let encode_seconds = started.elapsed().as_secs_f64();
        Ok(Self { images, job, step: 0, timings: Timings { queue_seconds, encode_seconds, ..Default::default() } })
    }

    fn progress(&self) -> Progress {
        Progress { started: true, step: self.step, steps: self.job.steps }
    }

    fn advance(&mut self, pipeline: &DitPipeline) -> Result<(), RunnerError> {
        let started = Instant::now();
        pipeline.denoise(&mut self.images)?;
        self.step += 1;
        self.timings.denoise_seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    fn finish(mut self, pipeline: &DitPipeline) -> Result<FinishedJob, RunnerError> {
        let started = Instant::now();
        let mut images = Vec::with_capacity(self.images.len());
        for (index, image) in self.images.iter().enumerate() {
            let pixels = pipeline.decode(image.latents())?;
            images.push(FinishedImage { seed: self.job.seed + index as u64, pixels });
        }
        self.timings.decode_seconds = started.elapsed().as_secs_f64();
        let reports = self.images.iter().map(RunningImage::report).collect();
        let cache = CacheReport::new(&self.job.cache, self.job.steps, reports);
        Ok(FinishedJob { images, size: self.job.size, cache, timings: self.timings })
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}
