//! The life of a server: open the port, load the model, serve, drain, end.
//!
//! The port is open before the model is loaded, so that probes get an answer (503 for the time being). The
//! line `listening on` comes when nothing can keep the server from serving any more: model, sizes and devices
//! are there, and a request that leaves everything to the server has been planned in every size. At SIGTERM or SIGINT the
//! server stops accepting generations but keeps answering (503, `retry-after`) until the answers to the accepted ones are
//! delivered and jobs fetched, and connections have what is on its way to them. The drain timeout or a second
//! signal ends the wait, and what is given up is logged. Either way the exit code is 0. A model that cannot be
//! loaded ends the process.

mod load;
mod reach;
mod signals;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use afterimage_runner::{DeviceSpec, EngineOptions};
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{self, AccessSettings, ApiSettings, AppState, Remains};
use crate::connections::{self, ConnectionLimits};
use crate::error::ProgramError;
use crate::image_store::ImageStore;
use crate::model_source::ModelSource;
use crate::playground;
use crate::terminal;
use load::load;
use signals::Signals;

pub(crate) use load::check_sizes;

/// What a server is made from.
#[derive(Debug)]
pub(crate) struct ServerOptions {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) model: ModelSource,
    /// A worker each.
    pub(crate) devices: Vec<DeviceSpec>,
    pub(crate) engine: EngineOptions,
    pub(crate) connections: ConnectionLimits,
    pub(crate) drain_timeout: Duration,
    /// There is a page at `/`.
    pub(crate) has_playground: bool,
    pub(crate) access: AccessSettings,
    pub(crate) api: ApiSettings,
}

/// Serves until a signal comes.
pub(crate) fn run(options: ServerOptions) -> Result<(), ProgramError> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // What runs on blocking threads is work for a core. More threads would only cost memory, and the two
    // beyond the cores are for a model that loads meanwhile.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(cores + 2).build();
    let runtime = runtime.map_err(|source| ProgramError::System { what: "cannot start the async runtime", source })?;
    let result = runtime.block_on(serve(options));
    // A model that is still loading must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(mut options: ServerOptions) -> Result<(), ProgramError> {
    let mut signals = Signals::new()?;
    let (listener, address) = listen(&options.host, options.port).await?;
    reach::check(address, &options.host, &mut options.access)?;
    let loading = {
        let cache = options.api.cache.clone();
        tokio::task::spawn_blocking(move || load(&options.model, &options.devices, options.engine, &cache))
    };
    if let Some(store) = options.api.store.clone() {
        tokio::spawn(sweep_regularly(store));
    }
    let state = Arc::new(AppState::new(options.api));
    let stop = CancellationToken::new();
    let pages = if options.has_playground { playground::routes() } else { Router::new() };
    let router = api::router(Arc::clone(&state), &options.access, pages);
    let http = tokio::spawn(connections::serve(listener, router, options.connections, stop.clone()));

    tokio::select! {
        loaded = loading => {
            let (engine, profile) = loaded??;
            state.start_serving(engine, profile);
        }
        () = signals.next() => return Ok(()),
    }
    terminal::line(format_args!("listening on http://{address}"));
    signals.next().await;
    end(&state, options.drain_timeout, &mut signals, async {
        stop.cancel();
        // An error is a panic in the loop that accepts connections: none is left to wait for.
        let _ = http.await;
    })
    .await;
    Ok(())
}

/// Removes stored pictures that have expired, until the runtime ends.
async fn sweep_regularly(store: Arc<ImageStore>) {
    let mut ticks = tokio::time::interval(store.sweep_interval());
    loop {
        ticks.tick().await;
        if let Err(error) = store.sweep().await {
            tracing::warn!(%error, "stored pictures cannot be looked through");
        }
    }
}

async fn listen(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), ProgramError> {
    let cannot = |source| ProgramError::Listen { address: format!("{host}:{port}"), source };
    let listener = TcpListener::bind((host, port)).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    tracing::info!(%address, "loading");
    Ok((listener, address))
}

/// Hands out what was accepted, then what connections have on their way, which `last_answers` waits for.
async fn end(state: &AppState, timeout: Duration, signals: &mut Signals, last_answers: impl Future<Output = ()>) {
    let Remains { requests, unfetched_jobs } = state.remains();
    tracing::info!(
        timeout_seconds = timeout.as_secs_f64(),
        requests,
        unfetched_jobs,
        "shutting down; accepted requests are finished, and finished jobs wait to be fetched"
    );
    let is_drained = AtomicBool::new(false);
    let everything = async {
        state.drain().await;
        is_drained.store(true, Relaxed);
        last_answers.await;
    };
    tokio::select! {
        () = everything => return,
        () = tokio::time::sleep(timeout) => {}
        () = signals.next() => {}
    }
    let Remains { requests, unfetched_jobs } = state.remains();
    if is_drained.load(Relaxed) {
        tracing::warn!("clients that have not taken their answers are given up");
    } else {
        tracing::warn!(requests, unfetched_jobs, "accepted requests and jobs that nobody has fetched are given up");
    }
}
