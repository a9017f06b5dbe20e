//! What the handlers share, and where the server stands in its life.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use afterimage_runner::{Engine, FinishedJob};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::accept::Accept;
use super::auth::Access;
use super::client_limits::{ClientBounds, ClientLimits};
use super::cors::AllowedOrigin;
use super::error::ApiError;
use super::fields::UnknownFields;
use super::generation_request::RequestRules;
use super::jobs::{JobLimits, JobStore};
use super::openapi;
use super::output::ResponseFormat;
use super::public_url::PublicUrl;
use super::root_path::RootPath;
use crate::cache_defaults::CacheDefaults;
use crate::cache_warnings::CacheWarnings;
use crate::image_store::ImageStore;
use crate::metrics::Metrics;

/// Settings of the API that hold for the server's life.
#[derive(Debug)]
pub(crate) struct ApiSettings {
    /// The ids clients know the model by, if it is not the model's own.
    pub(crate) served_model_names: Vec<String>,
    pub(crate) max_prompt_chars: usize,
    pub(crate) max_body_bytes: usize,
    /// Time for a body to arrive.
    pub(crate) body_timeout: Duration,
    pub(crate) unknown_fields: UnknownFields,
    /// There is a page at `/`.
    pub(crate) has_playground: bool,
    pub(crate) cache: CacheDefaults,
    pub(crate) jobs: JobLimits,
    pub(crate) max_pixels: usize,
    pub(crate) access: Access,
    pub(crate) client_bounds: ClientBounds,
    pub(crate) allowed_origins: Vec<AllowedOrigin>,
    /// Whether PNG files say what made them.
    pub(crate) image_metadata: bool,
    /// Where pictures are kept for `response_format: url`.
    pub(crate) store: Option<Arc<ImageStore>>,
    /// How pictures are answered to a request that does not say.
    pub(crate) default_response_format: ResponseFormat,
    /// The path under which a proxy shows this server.
    pub(crate) root_path: RootPath,
    /// How clients reach this server, if not by what they put into their `Host` header.
    pub(crate) public_url: Option<PublicUrl>,
}

/// Where the server stands.
pub(crate) enum Phase {
    /// The port is open, the model is not there yet.
    Loading,
    /// Requests are served.
    Serving(Engine),
    /// What was accepted is finished, nothing more is accepted.
    Draining(Option<Engine>),
}

/// Shared by all handlers.
pub(crate) struct AppState {
    pub(crate) settings: ApiSettings,
    pub(crate) metrics: Metrics,
    pub(super) jobs: JobStore,
    pub(super) client_limits: ClientLimits,
    cache_warnings: CacheWarnings,
    phase: watch::Sender<Phase>,
    generations: TaskTracker,
    openapi: OnceLock<String>,
    started_unix_seconds: u64,
}

impl AppState {
    pub(crate) fn new(settings: ApiSettings) -> Self {
        Self {
            jobs: JobStore::new(settings.jobs),
            client_limits: ClientLimits::new(settings.client_bounds),
            settings,
            metrics: Metrics::new(),
            cache_warnings: CacheWarnings::default(),
            phase: watch::Sender::new(Phase::Loading),
            generations: TaskTracker::new(),
            openapi: OnceLock::new(),
            started_unix_seconds: unix_seconds(),
        }
    }

    /// The model is there.
    pub(crate) fn start_serving(&self, engine: Engine) {
        self.phase.send_replace(Phase::Serving(engine));
    }

    /// Nothing more is accepted; returns when what was accepted has its answer.
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

    /// Whether nothing more is accepted.
    pub(super) fn is_ending(&self) -> bool {
        matches!(&*self.phase.borrow(), Phase::Draining(_))
    }

    /// Accepted generations that have no answer yet.
    pub(crate) fn unanswered_generations(&self) -> usize {
        self.generations.len()
    }

    /// Held by a generation from just before its job is submitted until its answer is made.
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

    /// Whether all is as it should be: requests are served, and every worker lives.
    pub(super) fn check_health(&self) -> Result<(), ApiError> {
        if self.engine()?.is_ready() { Ok(()) } else { Err(ApiError::WorkerStopped) }
    }

    /// Brings the counters up to what engine and store know.
    pub(super) fn catch_up(&self) {
        if let Some(store) = &self.settings.store {
            self.metrics.read_store(store.usage());
        }
        match &*self.phase.borrow() {
            Phase::Serving(engine) | Phase::Draining(Some(engine)) => self.metrics.read_engine(engine),
            Phase::Loading | Phase::Draining(None) => {}
        }
    }

    /// A job has its pictures.
    pub(super) fn count_job(&self, job: &FinishedJob) {
        self.metrics.job_finished(job);
        if self.cache_warnings.check(&job.cache) {
            self.metrics.cache_never_engaged(&job.cache);
        }
    }

    /// When the server started, which is what `created` says of its model.
    pub(super) fn created(&self) -> u64 {
        self.started_unix_seconds
    }

    /// The OpenAPI document with this server's root path.
    pub(super) fn openapi(&self) -> &str {
        self.openapi.get_or_init(|| openapi::text_below(&self.settings.root_path))
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

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
impl ApiSettings {
    pub(super) fn for_tests() -> Self {
        use afterimage_cache::CacheBackend;

        Self {
            served_model_names: Vec::new(),
            max_prompt_chars: 100,
            max_body_bytes: 1000,
            body_timeout: Duration::from_secs(1000),
            unknown_fields: UnknownFields::Reject,
            has_playground: true,
            cache: CacheDefaults::new(CacheBackend::None, serde_json::Map::new()).unwrap(),
            jobs: JobLimits { max_jobs: 4, retention: Duration::from_secs(60), memory_bytes: 1000 },
            max_pixels: usize::MAX,
            access: Access::default(),
            client_bounds: ClientBounds::default(),
            allowed_origins: Vec::new(),
            image_metadata: true,
            store: None,
            default_response_format: ResponseFormat::Base64,
            root_path: RootPath::default(),
            public_url: None,
        }
    }
}
