//! The handle a server holds: it checks requests, queues them and hands out tickets.

use std::sync::Arc;
use std::time::Duration;

use afterimage_cache::{CacheBudget, CacheConfig, CachePlan};
use afterimage_checkpoint::guard::without_panic;

use crate::admission::{self, Admission};
use crate::batching::pipeline_model::PipelineStepModel;
use crate::batching::{BucketEstimate, EngineStatistics, PoolLimits, SubmitError, SystemClock, WorkerPool, WorkerSeat};
use crate::error::RunnerError;
use crate::memory::{self, Limits, MemoryBudget};
use crate::model_info::ModelInfo;
use crate::pipeline::{DeviceSpec, PromptCache, PromptCacheStatistics};
use crate::replicas::Replicas;
use crate::request::{
    BucketPolicy, ImageRequest, ImageSpec, Owner, PlannedRequest, RequestError, RequestWarning, SampleSink, Ticket,
    UncachedImage,
};

/// 2 GiB: some forty FLUX images of 1024 x 1024 with plain reuse.
const DEFAULT_CACHE_MEMORY_BYTES: usize = 2 << 30;
/// Some sixty prompts of a T5 encoder at its longest.
const DEFAULT_PROMPT_CACHE_BYTES: usize = 512 << 20;
/// An hour: ten pictures of a large model on a CPU still fit.
const DEFAULT_MAX_QUEUED_SECONDS: f64 = 3600.0;

/// How an engine works, and its bounds.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Rows that run at a time on one worker, those of all buckets together; `None`: [`Self::DEFAULT_BATCH_ROWS`], or as many
    /// as fit into a GPU's memory.
    pub max_batch_rows: Option<usize>,
    /// Memory of each device that may be used; `None`: all of a GPU's, and of the CPU's as much as there is, beyond which there
    /// is only a warning.
    pub device_memory_bytes: Option<u64>,
    /// Requests that may wait, all workers together; one more is refused. Clients share it ([`crate::SharedUse`]).
    pub max_queued_requests: usize,
    /// Estimated seconds of work that one worker may have before it. Clients share it, too.
    pub max_queued_seconds: f64,
    /// Time a request has from its acceptance on.
    pub request_timeout: Option<Duration>,
    /// Memory of each device for the cache state of all images running on it; an image that finds none
    /// left runs uncached.
    pub cache_memory_bytes: usize,
    /// Memory of each device for the conditioning of recent prompts; 0 keeps none.
    pub prompt_cache_bytes: usize,
    /// What happens to a request for a size that is no bucket.
    pub bucket_policy: BucketPolicy,
    /// Make a little of every bucket at the start, so that the first request finds the model warm and
    /// its work can be estimated.
    pub warmup: bool,
}

impl EngineOptions {
    /// Sixteen images under guidance: where the throughput of small models levels off.
    pub const DEFAULT_BATCH_ROWS: usize = 32;
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_batch_rows: None,
            device_memory_bytes: None,
            max_queued_requests: 64,
            max_queued_seconds: DEFAULT_MAX_QUEUED_SECONDS,
            request_timeout: None,
            cache_memory_bytes: DEFAULT_CACHE_MEMORY_BYTES,
            prompt_cache_bytes: DEFAULT_PROMPT_CACHE_BYTES,
            bucket_policy: BucketPolicy::default(),
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
    admission: Admission,
    pool: WorkerPool<PipelineStepModel>,
    /// One per device.
    devices: Vec<PipelineStepModel>,
    max_batch_rows: usize,
    max_queued_seconds: f64,
}

impl Engine {
    /// The options with a number of rows for which every device has the memory, beside the model, the cache state and the
    /// prompts; says in the log what goes where.
    ///
    /// # Errors
    /// If a GPU, or what may be used of a device, is too small for the rows that the options ask for, or for the model.
    pub fn within_memory(model: &Replicas, options: EngineOptions) -> Result<EngineOptions, RunnerError> {
        let (rows, budgets) = settle(model, &options)?;
        budgets.iter().for_each(MemoryBudget::log);
        Ok(EngineOptions { max_batch_rows: Some(rows), ..options })
    }

    /// Checks that a request that leaves everything to the model could be served in every size, on a model that has
    /// not begun to work; takes no forward. `request` has what the server chooses for such a request.
    /// Returns what the client would be warned of.
    ///
    /// # Errors
    /// What it would be refused with.
    pub fn check_defaults(
        model: &Replicas,
        options: &EngineOptions,
        request: &ImageRequest,
    ) -> Result<Vec<RequestWarning>, RequestError> {
        let pipeline = Arc::clone(&model.workers()[0].1);
        let sizes = pipeline.info().buckets.clone();
        let admission = Admission { pipeline, bucket_policy: options.bucket_policy };
        let mut warnings = Vec::new();
        for size in sizes {
            let plan = || admission.plan(ImageRequest { size: Some(size), ..request.clone() });
            let fault = |message| RequestError { param: "model".to_owned(), code: "invalid_model", message };
            let planned = without_panic(plan).map_err(fault).flatten()?;
            let most_rows = options.max_batch_rows.unwrap_or(EngineOptions::DEFAULT_BATCH_ROWS);
            admission::check_rows(&planned, most_rows)?;
            warnings = planned.warnings;
        }
        // All but the size is the same.
        Ok(warnings)
    }

    /// Starts a worker for every mention of a device, and warms them up if the options say so. Rows that the options ask for
    /// are taken to be [within memory](Self::within_memory).
    ///
    /// # Errors
    /// If an option makes no sense, a device is too small for the model, the system gives no thread, or the warm-up fails.
    pub fn start(model: impl Into<Replicas>, options: EngineOptions) -> Result<Self, RunnerError> {
        check(&options)?;
        let replicas = model.into();
        let max_batch_rows = match options.max_batch_rows {
            Some(rows) => rows,
            None => settle(&replicas, &options)?.0,
        };
        let mut devices: Vec<(DeviceSpec, PipelineStepModel)> = Vec::new();
        let mut seats = Vec::new();
        for (index, (device, pipeline)) in replicas.workers().iter().enumerate() {
            let known = devices.iter().position(|(other, _)| other == device);
            let number = known.unwrap_or_else(|| {
                let model = PipelineStepModel {
                    pipeline: Arc::clone(pipeline),
                    budget: CacheBudget::new(options.cache_memory_bytes),
                    prompts: Arc::new(PromptCache::new(options.prompt_cache_bytes)),
                };
                devices.push((*device, model));
                devices.len() - 1
            });
            let (name, model) = (format!("worker-{device}-{index}"), Arc::new(devices[number].1.clone()));
            seats.push(WorkerSeat { name, device: number, model });
        }
        let pipeline = Arc::clone(&replicas.workers()[0].1);
        let limits = PoolLimits {
            max_batch_rows,
            max_queued_requests: options.max_queued_requests,
            max_queued_seconds: options.max_queued_seconds,
            request_timeout: options.request_timeout,
        };
        let warm_up = if options.warmup { warm_up(pipeline.info(), max_batch_rows) } else { Vec::new() };
        let pool = WorkerPool::start(seats, limits, Arc::new(SystemClock::new()), &warm_up)?;
        let shared = Shared {
            admission: Admission { pipeline, bucket_policy: options.bucket_policy },
            pool,
            devices: devices.into_iter().map(|(_, model)| model).collect(),
            max_batch_rows: limits.max_batch_rows,
            max_queued_seconds: limits.max_queued_seconds,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the model offers.
    pub fn model(&self) -> &ModelInfo {
        self.shared.admission.pipeline.info()
    }

    /// Where it computes, each device once.
    pub fn devices(&self) -> Vec<DeviceSpec> {
        self.shared.devices.iter().map(|device| device.pipeline.device_spec()).collect()
    }

    /// Checks a request against the model and the engine's bounds.
    ///
    /// # Errors
    /// [`RequestError`] naming the field that cannot be served.
    pub fn plan(&self, request: ImageRequest) -> Result<PlannedRequest, RequestError> {
        self.within_bounds(self.shared.admission.plan(request)?)
    }

    /// The same with the cache that is chosen for the image that it turns out to be, whatever the request says of
    /// caching.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn plan_choosing(
        &self,
        request: ImageRequest,
        choose: impl FnOnce(&ImageSpec) -> CacheConfig,
    ) -> Result<PlannedRequest, RequestError> {
        let planned = self.shared.admission.plan_uncached(request)?;
        let cache = choose(planned.spec());
        self.within_bounds(self.shared.admission.with_cache(planned, &cache)?)
    }

    fn within_bounds(&self, planned: PlannedRequest) -> Result<PlannedRequest, RequestError> {
        admission::check_rows(&planned, self.shared.max_batch_rows)?;
        admission::check_work(self.shared.pool.estimate(&planned), self.shared.max_queued_seconds)?;
        Ok(planned)
    }

    /// Hands a request to the worker with the least work.
    ///
    /// # Errors
    /// [`SubmitError`] if it cannot be accepted now.
    pub fn submit(&self, planned: PlannedRequest) -> Result<Ticket, SubmitError> {
        self.shared.pool.submit(planned)
    }

    /// Has a picture of a finished request made again without a cache, by the device that made it, with the lowest
    /// priority: a piece at a time, whenever none of the device's workers has a request. `sink` gets the picture, or why
    /// there is none.
    pub fn sample(&self, image: UncachedImage, sink: SampleSink) {
        self.shared.pool.sample(image, sink);
    }

    /// Requests accepted and not yet begun.
    pub fn queue_depth(&self) -> usize {
        self.shared.pool.totals().waiting
    }

    /// Estimated seconds of work accepted and not yet done, waiting and running, summed over workers.
    pub fn queued_seconds(&self) -> f64 {
        self.shared.pool.totals().seconds
    }

    /// Estimated seconds until the first of the owner's requests is done; 0 if it has none.
    pub fn seconds_to_first_of(&self, owner: Owner) -> f64 {
        self.shared.pool.seconds_to_first_of(owner)
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
        self.shared.devices.iter().map(|device| device.budget.used()).sum()
    }

    /// Counters of the memory for prompts, all devices together.
    pub fn prompt_cache_statistics(&self) -> PromptCacheStatistics {
        let devices = self.shared.devices.iter().map(|device| device.prompts.statistics());
        devices.fold(PromptCacheStatistics::default(), |sum, device| PromptCacheStatistics {
            hits: sum.hits + device.hits,
            misses: sum.misses + device.misses,
            bytes: sum.bytes + device.bytes,
        })
    }

    /// Whether every worker lives and requests are accepted.
    pub fn is_ready(&self) -> bool {
        self.shared.pool.is_ready()
    }

    /// Whether any worker lives and requests are accepted.
    pub fn is_open(&self) -> bool {
        self.shared.pool.is_open()
    }

    /// Accepts nothing more and gives samples up; what was accepted is still finished, then the threads end.
    pub fn drain(&self) {
        self.shared.pool.drain();
    }

    /// Whether all threads have ended, as they do after [`Self::drain`] or death.
    pub fn has_ended(&self) -> bool {
        self.shared.pool.has_ended()
    }
}

/// The rows of a batch, and what each device's memory is used for.
fn settle(model: &Replicas, options: &EngineOptions) -> Result<(usize, Vec<MemoryBudget>), RunnerError> {
    let limits = Limits {
        max_batch_rows: options.max_batch_rows,
        default_batch_rows: EngineOptions::DEFAULT_BATCH_ROWS,
        least_rows: model.info().default_guidance().rows_per_forward(),
        cache_memory_bytes: options.cache_memory_bytes as u64,
        prompt_cache_bytes: options.prompt_cache_bytes as u64,
    };
    memory::settle(model.memory(options.device_memory_bytes)?, limits)
}

fn check(options: &EngineOptions) -> Result<(), RunnerError> {
    let fail = |message: String| Err(RunnerError::Options(message));
    if options.max_batch_rows == Some(0) {
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
fn warm_up(info: &ModelInfo, max_batch_rows: usize) -> Vec<Arc<ImageSpec>> {
    let guidance = info.default_guidance();
    let fits = guidance.rows_per_forward() <= max_batch_rows;
    let spec = |size: &_| ImageSpec {
        // Class 0 of a class-conditional model, and a text like any other elsewhere.
        prompt: "0".to_owned(),
        negative_prompt: None,
        size: *size,
        steps: info.default_steps,
        guidance: if fits { guidance } else { info.guidance.with(1.0, 1.0) },
        scheduler: info.default_scheduler,
        cache: CachePlan::None,
    };
    info.buckets.iter().map(spec).map(Arc::new).collect()
}
