//! The handle a server holds: it checks requests, queues them and hands out tickets.

use std::sync::Arc;
use std::time::Duration;

use afterimage_cache::{CacheBudget, CachePlan};

use crate::admission;
use crate::batching::{BucketEstimate, EngineStatistics, PoolLimits, SubmitError, SystemClock, WorkerPool};
use crate::device_spec::DeviceSpec;
use crate::dit::{DitPipeline, DitStepModel, ImageSpec};
use crate::error::RunnerError;
use crate::job::{Job, Ticket};
use crate::model_info::ModelInfo;
use crate::request::{ImageRequest, RequestError};

/// 2 GiB: some forty FLUX images of 1024 x 1024 with plain reuse.
const DEFAULT_CACHE_MEMORY_BYTES: usize = 2 << 30;
/// Sixteen images under guidance: where the throughput of small models levels off.
const DEFAULT_MAX_BATCH_ROWS: usize = 32;
/// An hour: ten pictures of a large model on a CPU still fit.
const DEFAULT_MAX_QUEUED_SECONDS: f64 = 3600.0;

/// How an engine works, and its bounds.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// One worker each.
    pub devices: Vec<DeviceSpec>,
    /// Rows of one bucket that run at a time on one worker.
    pub max_batch_rows: usize,
    /// Requests that may wait, all workers together; one more is refused.
    pub max_queued_requests: usize,
    /// Estimated seconds of work that one worker may have before it.
    pub max_queued_seconds: f64,
    /// Time a request has from its acceptance on.
    pub request_timeout: Option<Duration>,
    /// Memory for the cache state of all running images; an image that finds none left runs uncached.
    pub cache_memory_bytes: usize,
    /// Make a little of every bucket at the start, so that the first request finds the model warm and
    /// its work can be estimated.
    pub warmup: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            devices: vec![DeviceSpec::Cpu],
            max_batch_rows: DEFAULT_MAX_BATCH_ROWS,
            max_queued_requests: 64,
            max_queued_seconds: DEFAULT_MAX_QUEUED_SECONDS,
            request_timeout: None,
            cache_memory_bytes: DEFAULT_CACHE_MEMORY_BYTES,
            warmup: false,
        }
    }
}

/// A model and the workers that serve it. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    pipeline: Arc<DitPipeline>,
    pool: WorkerPool,
    cache_budget: CacheBudget,
    max_batch_rows: usize,
    max_queued_seconds: f64,
}

impl Engine {
    /// Starts the workers, which share `pipeline` from now on, and warms them up if the options say so.
    ///
    /// # Errors
    /// If an option makes no sense, the system gives no thread, or the warm-up fails.
    pub fn start(pipeline: DitPipeline, options: EngineOptions) -> Result<Self, RunnerError> {
        check(&options)?;
        let pipeline = Arc::new(pipeline);
        let cache_budget = CacheBudget::new(options.cache_memory_bytes);
        let model = Arc::new(DitStepModel { pipeline: Arc::clone(&pipeline), budget: cache_budget.clone() });
        let worker = |(index, device): (usize, &DeviceSpec)| (format!("worker-{device}-{index}"), Arc::clone(&model));
        let limits = PoolLimits {
            max_batch_rows: options.max_batch_rows,
            max_queued_requests: options.max_queued_requests,
            max_queued_seconds: options.max_queued_seconds,
            request_timeout: options.request_timeout,
        };
        let warm_up = if options.warmup { warm_up(pipeline.info(), options.max_batch_rows) } else { Vec::new() };
        let workers = options.devices.iter().enumerate().map(worker).collect();
        let pool = WorkerPool::start(workers, limits, Arc::new(SystemClock::new()), &warm_up)?;
        let PoolLimits { max_batch_rows, max_queued_seconds, .. } = limits;
        Ok(Self { shared: Arc::new(Shared { pipeline, pool, cache_budget, max_batch_rows, max_queued_seconds }) })
    }

    /// What the model offers.
    pub fn model(&self) -> &ModelInfo {
        self.shared.pipeline.info()
    }

    /// Checks a request against the model and the engine's bounds.
    ///
    /// # Errors
    /// [`RequestError`] naming the field that cannot be served.
    pub fn plan(&self, request: ImageRequest) -> Result<Job, RequestError> {
        let job = admission::plan(&self.shared.pipeline, request)?;
        admission::check_rows(&job, self.shared.max_batch_rows)?;
        admission::check_work(self.shared.pool.estimate(&job), self.shared.max_queued_seconds)?;
        Ok(job)
    }

    /// Hands a job to the worker with the least work.
    ///
    /// # Errors
    /// [`SubmitError`] if it cannot be accepted now.
    pub fn submit(&self, job: Job) -> Result<Ticket, SubmitError> {
        self.shared.pool.submit(job)
    }

    /// Requests accepted and not yet begun.
    pub fn queue_depth(&self) -> usize {
        self.shared.pool.totals().waiting
    }

    /// Estimated seconds of work accepted and not yet done, waiting and running, summed over workers.
    pub fn queued_seconds(&self) -> f64 {
        self.shared.pool.totals().seconds
    }

    /// Rows of all running images.
    pub fn running_rows(&self) -> usize {
        self.shared.pool.totals().running_rows
    }

    /// What the work of each bucket takes, as far as it was measured.
    pub fn bucket_estimates(&self) -> Vec<BucketEstimate> {
        self.shared.pool.buckets()
    }

    /// Counters since the start.
    pub fn statistics(&self) -> EngineStatistics {
        self.shared.pool.statistics()
    }

    /// Bytes reserved for the cache state of running images.
    pub fn cache_bytes(&self) -> usize {
        self.shared.cache_budget.used()
    }

    /// Whether every worker lives and jobs are accepted.
    pub fn is_ready(&self) -> bool {
        self.shared.pool.is_ready()
    }

    /// Accepts nothing more; what was accepted is still finished, then the threads end.
    pub fn drain(&self) {
        self.shared.pool.drain();
    }

    /// Whether all threads have ended, as they do after [`Self::drain`] or death.
    pub fn has_ended(&self) -> bool {
        self.shared.pool.has_ended()
    }
}

fn check(options: &EngineOptions) -> Result<(), RunnerError> {
    let fail = |message: String| Err(RunnerError::Options(message));
    if options.devices.is_empty() {
        return fail("an engine needs at least one device".to_owned());
    }
    if options.max_batch_rows == 0 {
        return fail("max_batch_rows is 0; it must be at least 1".to_owned());
    }
    if options.max_queued_requests == 0 {
        return fail("max_queued_requests is 0; it must be at least 1".to_owned());
    }
    if options.max_queued_seconds.is_nan() || options.max_queued_seconds <= 0.0 {
        return fail(format!("max_queued_seconds is {}; it must be positive", options.max_queued_seconds));
    }
    Ok(())
}

/// An image of every bucket, under guidance where there is such.
fn warm_up(info: &ModelInfo, max_batch_rows: usize) -> Vec<ImageSpec> {
    let is_guided = info.has_null_class && max_batch_rows > 1;
    let spec = |size: &_| ImageSpec {
        class: 0,
        seed: 0,
        size: *size,
        steps: info.default_steps,
        guidance_scale: if is_guided { info.default_guidance_scale } else { 1.0 },
        scheduler: info.default_scheduler,
        cache: CachePlan::None,
    };
    info.buckets.iter().map(spec).collect()
}
