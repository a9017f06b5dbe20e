//! The handle a server holds: it checks requests, queues them and hands out tickets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afterimage_cache::CacheBudget;

use crate::admission;
use crate::dit::DitPipeline;
use crate::error::RunnerError;
use crate::job::{Job, Ticket, ticket};
use crate::model_info::ModelInfo;
use crate::request::{ImageRequest, RequestError};
use crate::worker::{JobDurations, QueuedJob, Worker};

/// 2 GiB: some forty FLUX images of 1024 x 1024 with plain reuse.
const DEFAULT_CACHE_MEMORY_BYTES: usize = 2 << 30;

/// Bounds of the engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Requests that may wait; one more is refused.
    pub max_queued_requests: usize,
    /// Memory for the cache state of all running images; an image that finds none left runs uncached.
    pub cache_memory_bytes: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { max_queued_requests: 64, cache_memory_bytes: DEFAULT_CACHE_MEMORY_BYTES }
    }
}

/// A worker thread and the bounded queue that feeds it. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    pipeline: Arc<DitPipeline>,
    /// `None` once the engine drains.
    queue: Mutex<Option<SyncSender<QueuedJob>>>,
    queued: Arc<AtomicUsize>,
    durations: Arc<JobDurations>,
    cache_budget: CacheBudget,
    worker: JoinHandle<()>,
}

/// Why a job was not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full.
    #[error("the queue is full; try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// When a place should be free; at least a second.
        retry_after: Duration,
    },
    /// The engine is shutting down, or its worker has died.
    #[error("the server accepts no more requests")]
    Closed,
}

impl Engine {
    /// Starts the worker thread, which owns `pipeline` from now on.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(pipeline: DitPipeline, options: EngineOptions) -> Result<Self, RunnerError> {
        let (sender, receiver) = sync_channel(options.max_queued_requests);
        let pipeline = Arc::new(pipeline);
        let queued = Arc::new(AtomicUsize::new(0));
        let durations = Arc::new(JobDurations::default());
        let cache_budget = CacheBudget::new(options.cache_memory_bytes);
        let worker =
            Worker::new(Arc::clone(&pipeline), Arc::clone(&queued), Arc::clone(&durations), cache_budget.clone());
        let worker = std::thread::Builder::new()
            .name("worker-cpu".to_owned())
            .spawn(move || worker.run(&receiver))
            .map_err(RunnerError::Thread)?;
        let queue = Mutex::new(Some(sender));
        Ok(Self { shared: Arc::new(Shared { pipeline, queue, queued, durations, cache_budget, worker }) })
    }

    /// What the model offers.
    pub fn model(&self) -> &ModelInfo {
        self.shared.pipeline.info()
    }

    /// Checks a request against the model.
    ///
    /// # Errors
    /// [`RequestError`] naming the field that cannot be served.
    pub fn plan(&self, request: ImageRequest) -> Result<Job, RequestError> {
        admission::plan(&self.shared.pipeline, request)
    }

    /// Puts a job in the queue.
    ///
    /// # Errors
    /// [`SubmitError`] if it cannot be accepted now.
    pub fn submit(&self, job: Job) -> Result<Ticket, SubmitError> {
        let queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return Err(SubmitError::Closed) };
        let (ticket, outcome) = ticket(job.steps);
        // Counted before it is sent, so that the worker never counts a job down first.
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        let queued = QueuedJob { job, outcome, accepted: Instant::now() };
        queue.try_send(queued).map(|()| ticket).map_err(|error| {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => SubmitError::QueueFull { retry_after: self.shared.durations.expected() },
                TrySendError::Disconnected(_) => SubmitError::Closed,
            }
        })
    }

    /// Jobs accepted and not yet begun.
    pub fn queue_depth(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// Bytes reserved for the cache state of running images.
    pub fn cache_bytes(&self) -> usize {
        self.shared.cache_budget.used()
    }

    /// Whether the worker is alive and jobs are accepted.
    pub fn is_ready(&self) -> bool {
        let queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.is_some() && !self.shared.worker.is_finished()
    }

    /// Accepts nothing more; what was accepted is still finished.
    pub fn drain(&self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
