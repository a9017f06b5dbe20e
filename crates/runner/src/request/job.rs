//! A job on its way: what is queued, what the client holds meanwhile, what comes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use afterimage_cache::{CachePlan, CacheReport};
use afterimage_diffusion::families::Guidance;
use afterimage_diffusion::schedulers::SchedulerKind;
use tokio::sync::{mpsc, oneshot, watch};

use crate::request::{ImageSpec, Preview, PreviewCount, RequestWarning, RgbImage, Size};

/// A request that passed every check against the model.
#[derive(Debug, Clone)]
pub struct Job {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: Option<String>,
    /// Number of images.
    pub(crate) images: usize,
    /// Seed of the first image.
    pub(crate) seed: u64,
    /// A bucket.
    pub(crate) size: Size,
    pub(crate) steps: usize,
    pub(crate) guidance: Guidance,
    pub(crate) scheduler: SchedulerKind,
    pub(crate) cache: CachePlan,
    /// Previews of every image.
    pub(crate) previews: PreviewCount,
    /// What of the request is not done as it was asked for.
    pub(crate) warnings: Vec<RequestWarning>,
}

impl Job {
    /// The same job with previews of every image on its way, taken with [`Ticket::previews`].
    #[must_use]
    pub fn with_previews(self, previews: PreviewCount) -> Self {
        Self { previews, ..self }
    }

    /// Seed of the first image; image `k` has `seed + k`.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Denoising steps of every image.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// What of the request is not done as it was asked for.
    pub fn warnings(&self) -> &[RequestWarning] {
        &self.warnings
    }

    /// Forwards of every image, which the step loop counts as steps.
    pub(crate) fn forwards(&self) -> usize {
        self.scheduler.forwards(self.steps)
    }

    /// How images are steered towards the prompt.
    pub fn guidance(&self) -> Guidance {
        self.guidance
    }

    /// Noise scheduler.
    pub fn scheduler(&self) -> SchedulerKind {
        self.scheduler
    }

    /// What image `index` is made of.
    pub(crate) fn image(&self, index: usize) -> ImageSpec {
        ImageSpec {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            seed: self.seed + index as u64,
            size: self.size,
            steps: self.steps,
            guidance: self.guidance,
            scheduler: self.scheduler,
            cache: self.cache.clone(),
        }
    }

    /// Rows of one of its images in a forward.
    pub(crate) fn rows_per_image(&self) -> usize {
        self.guidance.rows_per_forward()
    }
}

/// Why an accepted job gave no images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The job failed; the worker goes on.
    #[error("the image could not be made: {0}")]
    Failed(String),
    /// The job was cancelled.
    #[error("the request was cancelled")]
    Cancelled,
    /// The job was not done within its time.
    #[error("the request was not done within {} s (--request-timeout)", timeout.as_secs_f64())]
    TimedOut {
        /// The time it had.
        timeout: Duration,
    },
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// One of its images was begun.
    pub started: bool,
    /// Place among the waiting requests of its worker, 1 is next; 0 once it was begun.
    pub queue_position: usize,
    /// Steps done, all images together.
    pub step: usize,
    /// Steps in all, all images together.
    pub steps: usize,
    /// Steps done that reused an earlier one.
    pub cached: usize,
}

/// The images of a job and how they came about.
#[derive(Debug)]
pub struct FinishedJob {
    /// In order of their seeds.
    pub images: Vec<FinishedImage>,
    /// Size of every image.
    pub size: Size,
    /// What the cache did.
    pub cache: CacheReport,
    /// Where the time went.
    pub timings: Timings,
    /// What of the request was not done as it was asked for.
    pub warnings: Vec<RequestWarning>,
}

/// One picture.
#[derive(Debug)]
pub struct FinishedImage {
    /// The seed that gives this picture alone.
    pub seed: u64,
    /// Pixels.
    pub pixels: RgbImage,
}

/// Seconds a job spent in each stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// From acceptance to the start of the first image.
    pub queue_seconds: f64,
    /// Noise and conditioning.
    pub encode_seconds: f64,
    /// The steps its images took part in, shared ones in full.
    pub denoise_seconds: f64,
    /// VAE decoding.
    pub decode_seconds: f64,
}

/// Previews that wait for their taker; a further one is dropped.
const PREVIEWS_HELD: usize = 4;

/// An accepted job. Dropping the ticket cancels the job at the next step.
pub struct Ticket {
    progress: watch::Receiver<Progress>,
    previews: Option<mpsc::Receiver<Preview>>,
    result: oneshot::Receiver<Result<FinishedJob, JobError>>,
    _cancel: CancelOnDrop,
}

/// The worker's end of a ticket.
pub(crate) struct Outcome {
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) previews: Option<mpsc::Sender<Preview>>,
    result: oneshot::Sender<Result<FinishedJob, JobError>>,
    cancelled: Arc<AtomicBool>,
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Both ends for a job.
pub(crate) fn ticket(job: &Job) -> (Ticket, Outcome) {
    let steps = job.steps * job.images;
    let (progress_sender, progress) = watch::channel(Progress { steps, ..Progress::default() });
    let (result_sender, result) = oneshot::channel();
    let (preview_sender, previews) = match job.previews.get() {
        0 => (None, None),
        _ => {
            let (sender, receiver) = mpsc::channel(PREVIEWS_HELD);
            (Some(sender), Some(receiver))
        }
    };
    let cancelled = Arc::new(AtomicBool::new(false));
    let ticket = Ticket { progress, previews, result, _cancel: CancelOnDrop(Arc::clone(&cancelled)) };
    (ticket, Outcome { progress: progress_sender, previews: preview_sender, result: result_sender, cancelled })
}

impl Ticket {
    /// Watches the job's progress.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// The previews asked for with [`Job::with_previews`], once. The channel ends with the job; a preview
    /// that is made while too many wait is dropped.
    pub fn previews(&mut self) -> Option<mpsc::Receiver<Preview>> {
        self.previews.take()
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// [`JobError`] if there are no images.
    pub async fn finished(mut self) -> Result<FinishedJob, JobError> {
        (&mut self.result).await.unwrap_or_else(|_| Err(worker_gone()))
    }

    /// Waits for the result on a thread outside any async runtime.
    ///
    /// # Errors
    /// [`JobError`] if there are no images.
    pub fn wait(self) -> Result<FinishedJob, JobError> {
        let Self { result, _cancel, .. } = self;
        result.blocking_recv().unwrap_or_else(|_| Err(worker_gone()))
    }
}

fn worker_gone() -> JobError {
    JobError::Failed("the worker stopped before the job was done".to_owned())
}

impl Outcome {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn send(self, result: Result<FinishedJob, JobError>) {
        // Nobody listens any more if the client has gone.
        let _ = self.result.send(result);
    }
}
