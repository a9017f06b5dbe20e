//! The life of a server: open the port, load the model, serve, drain, end.
//!
//! The port is open before the model is loaded, so that probes get an answer. At SIGTERM or SIGINT the
//! server stops accepting generations but keeps answering (503, `retry-after`) until the accepted ones
//! have their answers or the drain timeout is over; a second signal ends the wait. Either way the exit
//! code is 0. A model that cannot be loaded ends the process.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use afterimage_runner::{DeviceSpec, Engine, EngineOptions, ImageRequest, Size};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Access, ApiSettings, AppState};
use crate::cache_defaults::CacheDefaults;
use crate::cli::{CliError, ModelArgs};
use crate::connections::{self, ConnectionLimits};
use crate::image_store::ImageStore;
use crate::terminal;

/// How long connections may take to carry away answers that are already made.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Cache keys that may fit some requests although they do not fit the default number of steps.
const STEP_DEPENDENT_KEYS: [&str; 2] = ["cache_config.num_inference_steps", "cache_config.scm_compute_bins"];

/// What a server is made from.
#[derive(Debug)]
pub(crate) struct ServerOptions {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) model: ModelArgs,
    /// A worker each.
    pub(crate) devices: Vec<DeviceSpec>,
    pub(crate) engine: EngineOptions,
    pub(crate) connections: ConnectionLimits,
    pub(crate) drain_timeout: Duration,
    pub(crate) api: ApiSettings,
}

/// Serves until a signal comes.
pub(crate) fn run(options: ServerOptions) -> Result<(), CliError> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // What runs on blocking threads is work for a core. More threads would only cost memory, and the two
    // beyond the cores are for a model that loads meanwhile.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(cores + 2).build();
    let runtime = runtime.map_err(|source| CliError::System { what: "cannot start the async runtime", source })?;
    let result = runtime.block_on(serve(options));
    // A model that is still loading must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(options: ServerOptions) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let listener = listen(&options.host, options.port).await?;
    warn_if_open(&listener, &options.api.access);
    let loading = {
        let (model, cache, max_pixels) = (options.model, options.api.cache.clone(), options.api.max_pixels);
        tokio::task::spawn_blocking(move || load(&model, &options.devices, options.engine, &cache, max_pixels))
    };
    if let Some(store) = options.api.store.clone() {
        tokio::spawn(sweep_regularly(store));
    }
    let state = Arc::new(AppState::new(options.api));
    let stop = CancellationToken::new();
    let router = api::router(Arc::clone(&state));
    let http = tokio::spawn(connections::serve(listener, router, options.connections, stop.clone()));

    tokio::select! {
        engine = loading => state.start_serving(engine??),
        () = signals.next() => return Ok(()),
    }
    signals.next().await;
    if !drain(&state, options.drain_timeout, &mut signals).await {
        return Ok(());
    }
    stop.cancel();
    if tokio::time::timeout(FLUSH_TIMEOUT, http).await.is_err() {
        tracing::warn!("some connections did not take their answers in time");
    }
    Ok(())
}

/// Removes stored pictures whose time is over, until the runtime ends.
async fn sweep_regularly(store: Arc<ImageStore>) {
    let mut ticks = tokio::time::interval(store.sweep_interval());
    loop {
        ticks.tick().await;
        let store = Arc::clone(&store);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.sweep(SystemTime::now())).await {
            tracing::warn!(%error, "stored pictures cannot be looked through");
        }
    }
}

async fn listen(host: &str, port: u16) -> Result<TcpListener, CliError> {
    let cannot = |source| CliError::Listen { address: format!("{host}:{port}"), source };
    let listener = TcpListener::bind((host, port)).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    terminal::line(format_args!("listening on http://{address}"));
    Ok(listener)
}

/// Others than this machine's own users may reach the server, and nothing keeps them from using it.
fn warn_if_open(listener: &TcpListener, access: &Access) {
    match listener.local_addr() {
        Ok(address) if !address.ip().to_canonical().is_loopback() && access.keys.is_empty() => tracing::warn!(
            "whoever reaches {address} may use this server: there are no API keys; set AFTERIMAGE_API_KEY or \
             --api-key-file, or listen on 127.0.0.1 (--host)"
        ),
        _ => {}
    }
}

fn load(
    model: &ModelArgs,
    devices: &[DeviceSpec],
    options: EngineOptions,
    cache: &CacheDefaults,
    max_pixels: usize,
) -> Result<Engine, CliError> {
    let started = Instant::now();
    let engine = Engine::start(model.load_onto(devices)?, options)?;
    check_sizes(&engine.model().buckets, max_pixels)?;
    check_cache(&engine, cache)?;
    let model = engine.model();
    tracing::info!(
        model = model.id,
        pipeline = model.pipeline,
        cache = %cache.backend(),
        seconds = started.elapsed().as_secs_f64(),
        "ready"
    );
    Ok(engine)
}

/// A server does not offer what it would refuse.
pub(crate) fn check_sizes(buckets: &[Size], max_pixels: usize) -> Result<(), CliError> {
    match buckets.iter().find(|size| size.pixels() > max_pixels) {
        Some(size) => {
            let pixels = size.pixels();
            let message = format!(
                "it is {max_pixels}, and the served size {size} has {pixels} pixels; raise it, or choose --buckets within it"
            );
            Err(CliError::setting("max-pixels", message))
        }
        None => Ok(()),
    }
}

/// A server whose cache settings can never work on its model does not start.
fn check_cache(engine: &Engine, cache: &CacheDefaults) -> Result<(), CliError> {
    let request = ImageRequest {
        // Class 0 of a class-conditional model, and a text like any other elsewhere.
        prompt: "0".to_owned(),
        negative_prompt: None,
        images: 1,
        size: None,
        seed: 0,
        num_inference_steps: None,
        guidance_scale: None,
        true_cfg_scale: None,
        scheduler: None,
        cache: cache.config().clone(),
    };
    match engine.plan(request) {
        Err(error) if STEP_DEPENDENT_KEYS.contains(&&*error.param) => {
            tracing::warn!("--cache-config does not fit requests with the model's default steps: {error}");
            Ok(())
        }
        Err(error) if error.param.starts_with("cache_config") => {
            Err(CliError::setting("cache-config", error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Whether every accepted request got its answer.
async fn drain(state: &AppState, timeout: Duration, signals: &mut Signals) -> bool {
    tracing::info!(timeout_seconds = timeout.as_secs(), "shutting down");
    let is_drained = tokio::select! {
        () = state.drain() => true,
        () = tokio::time::sleep(timeout) => false,
        () = signals.next() => false,
    };
    if !is_drained {
        tracing::warn!(requests = state.unanswered_generations(), "accepted requests are given up");
    }
    is_drained
}

/// SIGTERM (a supervisor) and SIGINT (Ctrl-C).
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|source| CliError::System { what: "cannot listen for signals", source });
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
