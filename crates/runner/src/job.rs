//! A job on its way: what is queued, what the client holds meanwhile, what comes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use afterimage_cache::{CachePlan, CacheReport};
use tokio::sync::{oneshot, watch};

use crate::image::RgbImage;
use crate::schedulers::SchedulerKind;
use crate::size::Size;

/// A request that passed every check against the model.
#[derive(Debug, Clone)]
pub struct Job {
    /// Class index.
    pub(crate) class: u32,
    /// Number of images.
    pub(crate) images: usize,
    /// Seed of the first image.
    pub(crate) seed: u64,
    /// A bucket.
    pub(crate) size: Size,
    pub(crate) steps: usize,
    pub(crate) guidance_scale: f64,
    pub(crate) scheduler: SchedulerKind,
    pub(crate) cache: CachePlan,
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
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The worker has taken the job.
    pub started: bool,
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
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
    /// From acceptance to the worker's first touch.
    pub queue_seconds: f64,
    /// Noise and conditioning.
    pub encode_seconds: f64,
    /// All denoising steps.
    pub denoise_seconds: f64,
    /// VAE decoding.
    pub decode_seconds: f64,
}

/// An accepted job. Dropping the ticket cancels the job at the next step.
pub struct Ticket {
    progress: watch::Receiver<Progress>,
    result: oneshot::Receiver<Result<FinishedJob, JobError>>,
    _cancel: CancelOnDrop,
}

/// The worker's end of a ticket.
pub(crate) struct Outcome {
    pub(crate) progress: watch::Sender<Progress>,
    result: oneshot::Sender<Result<FinishedJob, JobError>>,
    cancelled: Arc<AtomicBool>,
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Both ends for a job of `steps` steps.
pub(crate) fn ticket(steps: usize) -> (Ticket, Outcome) {
    let (progress_sender, progress) = watch::channel(Progress { started: false, step: 0, steps });
    let (result_sender, result) = oneshot::channel();
    let cancelled = Arc::new(AtomicBool::new(false));
    let ticket = Ticket { progress, result, _cancel: CancelOnDrop(Arc::clone(&cancelled)) };
    (ticket, Outcome { progress: progress_sender, result: result_sender, cancelled })
}

impl Ticket {
    /// Watches the job's progress.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
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
