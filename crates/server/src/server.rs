//! The life of a server: open the port, load the model, serve, drain, end.
//!
//! The port is open before the model is loaded, so that probes get an answer (503 for the time being). The
//! line `listening on` comes when nothing can keep the server from serving any more: model, sizes and devices
//! are there, and a request that leaves everything to the server has been planned in every size. At SIGTERM or SIGINT the
//! server stops accepting generations but keeps answering (503, `retry-after`) until the accepted ones
//! have their answers or the drain timeout is over; a second signal ends the wait. Either way the exit
//! code is 0. A model that cannot be loaded ends the process.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use afterimage_runner::{
    DeviceSpec, Engine, EngineOptions, ImageRequest, Replicas, RequestError, RequestWarning, RunnerError, Size,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Access, ApiSettings, AppState};
use crate::cache_defaults::CacheDefaults;
use crate::cli::{CliError, LabelArg, ModelArgs};
use crate::connections::{self, ConnectionLimits};
use crate::image_store::ImageStore;
use crate::terminal;

/// How long connections may take to carry away answers that are already made.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What a server is made from.
#[derive(Debug)]
pub(crate) struct ServerOptions {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) model: ModelArgs,
    pub(crate) labels: LabelArg,
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
    let (listener, address) = listen(&options.host, options.port).await?;
    warn_if_open(&listener, &options.api.access);
    let loading = {
        let (model, labels) = (options.model, options.labels);
        let (cache, max_pixels) = (options.api.cache.clone(), options.api.max_pixels);
        tokio::task::spawn_blocking(move || {
            load((&model, &labels), &options.devices, options.engine, &cache, max_pixels)
        })
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
    terminal::line(format_args!("listening on http://{address}"));
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

async fn listen(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), CliError> {
    let cannot = |source| CliError::Listen { address: format!("{host}:{port}"), source };
    let listener = TcpListener::bind((host, port)).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    tracing::info!(%address, "loading");
    Ok((listener, address))
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
    (model, labels): (&ModelArgs, &LabelArg),
    devices: &[DeviceSpec],
    options: EngineOptions,
    cache: &CacheDefaults,
    max_pixels: usize,
) -> Result<Engine, CliError> {
    let started = Instant::now();
    let replicas = model.load_onto(devices, labels)?;
    check_sizes(replicas.buckets(), max_pixels)?;
    check_defaults(&replicas, &options, cache, model)?;
    let engine = Engine::start(replicas, options)?;
    check_work(&engine, cache)?;
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

/// A server that would refuse every request that leaves things to it does not start.
fn check_defaults(
    replicas: &Replicas,
    options: &EngineOptions,
    cache: &CacheDefaults,
    model: &ModelArgs,
) -> Result<(), CliError> {
    let warnings = Engine::check_defaults(replicas, options, &default_request(cache))
        .map_err(|error| unusable_default(error, model.chooses_scheduler()))?;
    for RequestWarning { code, message, .. } in warnings {
        tracing::warn!(code, "default requests: {message}");
    }
    Ok(())
}

/// The same for the time that requests are estimated to take, which a warm-up measures.
fn check_work(engine: &Engine, cache: &CacheDefaults) -> Result<(), CliError> {
    for size in engine.model().buckets.clone() {
        let request = ImageRequest { size: Some(size), ..default_request(cache) };
        engine.plan(request).map_err(|error| unusable_default(error, false))?;
    }
    Ok(())
}

/// What a client sends who leaves all there is to the server.
fn default_request(cache: &CacheDefaults) -> ImageRequest {
    ImageRequest {
        // Class 0 of a class-conditional model, and a text like any other elsewhere.
        prompt: "class:0".to_owned(),
        negative_prompt: None,
        images: 1,
        size: None,
        seed: 0,
        num_inference_steps: None,
        guidance_scale: None,
        true_cfg_scale: None,
        scheduler: None,
        cache: cache.for_defaults(),
    }
}

/// Names the setting behind a default that cannot be served, or else the model.
fn unusable_default(error: RequestError, scheduler_is_chosen: bool) -> CliError {
    let RequestError { param, code, message } = error;
    match (&*param, code) {
        ("scheduler", _) if scheduler_is_chosen => CliError::setting("scheduler", message),
        (_, "too_many_rows") => CliError::setting("max-batch-rows", format!("default requests: {message}")),
        (_, "too_much_work") => CliError::setting("max-queued-seconds", format!("default requests: {message}")),
        (param, _) if param.starts_with("cache_config") => CliError::setting("cache-config", message),
        ("scheduler" | "num_inference_steps", _) => CliError::Model(RunnerError::Options(format!(
            "{message}; so every default request would fail, and --scheduler may choose another class"
        ))),
        _ => CliError::Model(RunnerError::Options(format!("{message}; so every default request would fail"))),
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
