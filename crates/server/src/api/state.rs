//! What the handlers share, and where the server stands in its life.

use std::sync::{Arc, OnceLock};

use afterimage_runner::{Engine, FinishedRequest};
use afterimage_study::profile::CacheProfile;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error::ApiError;
use super::job_store::JobStore;
use super::settings::ApiSettings;
use crate::clock::unix_seconds;
use crate::logging::{self, CacheWarnings};
use crate::metrics::Metrics;
use crate::request::{Accept, RequestRules};
use crate::sampling::{QualitySampler, Samples};

/// Where the server stands.
pub(crate) enum Phase {
    /// The port is open, the model is not there yet.
    Loading,
    /// Requests are served.
    Serving(Engine),
    /// What was accepted is finished, nothing more is accepted.
    Draining(Option<Engine>),
}

/// What a server that ends gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remains {
    pub(crate) requests: usize,
    pub(crate) unfetched_jobs: usize,
}

/// Shared by all handlers.
pub(crate) struct AppState {
    pub(crate) settings: ApiSettings,
    pub(crate) metrics: Metrics,
    pub(super) jobs: JobStore,
    /// One sweep at a time: two would be in each other's seconds.
    pub(super) sweep_turn: Arc<Semaphore>,
    cache_warnings: CacheWarnings,
    sampler: QualitySampler,
    phase: watch::Sender<Phase>,
    /// What was measured of the model's caches; set once it is there.
    profile: OnceLock<CacheProfile>,
    generations: TaskTracker,
    started_unix_seconds: u64,
}

impl AppState {
    pub(crate) fn new(settings: ApiSettings) -> Self {
        let metrics = Metrics::new();
        Self {
            jobs: JobStore::new(settings.jobs),
            sweep_turn: Arc::new(Semaphore::new(1)),
            sampler: QualitySampler::new(settings.quality_sample_rate, metrics.quality().clone()),
            settings,
            metrics,
            cache_warnings: CacheWarnings::default(),
            phase: watch::Sender::new(Phase::Loading),
            profile: OnceLock::new(),
            generations: TaskTracker::new(),
            started_unix_seconds: unix_seconds(),
        }
    }

    /// The model is there.
    pub(crate) fn start_serving(&self, engine: Engine, profile: Option<CacheProfile>) {
        // Before the phase, so that no request is served without it. A server loads once, so that there is none yet.
        if let Some(profile) = profile {
            let _ = self.profile.set(profile);
        }
        self.phase.send_replace(Phase::Serving(engine));
    }

    /// Nothing more is accepted; returns when the answers to what was accepted are delivered, those of jobs included.
    pub(crate) async fn drain(&self) {
        self.phase.send_modify(|phase| {
            let engine = match phase {
                Phase::Serving(engine) => Some(engine.clone()),
                Phase::Loading | Phase::Draining(_) => None,
            };
            if let Some(engine) = &engine {
                engine.drain();
            }
            *phase = Phase::Draining(engine);
        });
        self.generations.close();
        self.generations.wait().await;
    }

    /// What is left of accepted generations: answers that are not delivered, and jobs that are not fetched.
    pub(crate) fn remains(&self) -> Remains {
        let unfetched_jobs = self.jobs.unfetched();
        Remains { requests: self.generations.len().saturating_sub(unfetched_jobs), unfetched_jobs }
    }

    /// Held by a generation from just before it is submitted until its answer is delivered.
    pub(super) fn generation_accepted(&self) -> TaskTrackerToken {
        self.generations.token()
    }

    /// The engine, if requests are served: as long as one worker lives.
    pub(super) fn engine(&self) -> Result<Engine, ApiError> {
        match &*self.phase.borrow() {
            Phase::Loading => Err(ApiError::Loading),
            Phase::Draining(_) => Err(ApiError::ShuttingDown),
            Phase::Serving(engine) if engine.is_open() => Ok(engine.clone()),
            Phase::Serving(_) => Err(ApiError::WorkerStopped),
        }
    }

    /// What was measured of the model's caches, if anything was.
    pub(super) fn profile(&self) -> Option<&CacheProfile> {
        self.profile.get()
    }

    /// Whether everything works: requests are served, and every worker lives.
    pub(super) fn check_health(&self) -> Result<(), ApiError> {
        if self.engine()?.is_ready() { Ok(()) } else { Err(ApiError::WorkerStopped) }
    }

    /// Brings the counters up to what engine, store and log know.
    pub(super) fn catch_up(&self) {
        if let Some(store) = &self.settings.store {
            self.metrics.read_store(store);
        }
        self.metrics.read_log(logging::dropped_lines());
        match &*self.phase.borrow() {
            Phase::Serving(engine) | Phase::Draining(Some(engine)) => self.metrics.read_engine(engine),
            Phase::Loading | Phase::Draining(None) => {}
        }
    }

    /// A request has its pictures. What is returned of them is for [`Self::sample`], once the answer is made.
    pub(super) fn count_finished(&self, job: &FinishedRequest) -> Samples {
        self.metrics.request_finished(job);
        if self.cache_warnings.check(&job.cache) {
            self.metrics.cache_never_engaged(&job.cache);
        }
        self.sampler.choose(job)
    }

    /// Has pictures made again without a cache when there is nothing else to do, and compared.
    pub(super) fn sample(&self, samples: Samples) {
        // One that drains counts them as dropped.
        if let Phase::Serving(engine) | Phase::Draining(Some(engine)) = &*self.phase.borrow() {
            samples.start(engine);
        }
    }

    /// When the server started, which is what `created` says of its model.
    pub(super) fn created(&self) -> u64 {
        self.started_unix_seconds
    }

    /// The ids clients know the model by, at least one.
    pub(super) fn served_models<'a>(&'a self, engine: &'a Engine) -> &'a [String] {
        match &*self.settings.served_model_names {
            [] => std::slice::from_ref(&engine.model().id),
            names => names,
        }
    }

    /// The first of them.
    pub(super) fn served_model<'a>(&'a self, engine: &'a Engine) -> &'a str {
        self.served_models(engine).first().map_or("", String::as_str)
    }

    pub(super) fn rules<'a>(&'a self, engine: &'a Engine) -> RequestRules<'a> {
        RequestRules {
            served_models: self.served_models(engine),
            max_prompt_chars: self.settings.max_prompt_chars,
            max_pixels: self.settings.max_pixels,
            unknown_fields: self.settings.unknown_fields,
            cache: &self.settings.cache,
            has_store: self.settings.store.is_some(),
            default_response_format: self.settings.default_response_format,
            accept: Accept::Json,
        }
    }
}
