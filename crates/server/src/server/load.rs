//! Loading the model of a server, and whether it can serve what the settings promise.

use std::time::Instant;

use afterimage_cache::CacheConfig;
use afterimage_runner::cpu::{Isa, threads};
use afterimage_runner::{
    DeviceSpec, Engine, EngineOptions, ImageRequest, PreviewCount, Replicas, RequestError, RequestWarning, RunnerError,
    Size,
};
use afterimage_study::profile::CacheProfile;

use crate::auto_cache::{self, AutoOutcome};
use crate::error::ProgramError;
use crate::model_source::ModelSource;
use crate::request::{CacheChoice, CacheDefaults};

/// Loads the model and starts its workers, if they can serve what the settings promise. Blocks.
pub(super) fn load(
    model: &ModelSource,
    devices: &[DeviceSpec],
    options: EngineOptions,
    cache: &CacheDefaults,
) -> Result<(Engine, Option<CacheProfile>), ProgramError> {
    let started = Instant::now();
    let replicas = model.load_onto(devices).map_err(of_loading)?;
    let profile = auto_cache::profile_of(replicas.info())?;
    let options = Engine::within_memory(&replicas, options)?;
    check_defaults(&replicas, &options, cache, model)?;
    let engine = Engine::start(replicas, options)?;
    check_work(&engine, cache, profile.as_ref())?;
    let model = engine.model();
    tracing::info!(
        model = model.id,
        pipeline = model.pipeline,
        dtype = model.precision(),
        cache = %cache.backend(),
        cpu = %Isa::current(),
        threads = threads(),
        seconds = started.elapsed().as_secs_f64(),
        "ready"
    );
    Ok((engine, profile))
}

/// A server does not offer what it would refuse.
pub(crate) fn check_sizes(buckets: &[Size], max_pixels: usize) -> Result<(), ProgramError> {
    match buckets.iter().find(|size| size.pixels() > max_pixels) {
        Some(size) => Err(too_many_pixels(RunnerError::TooManyPixels { size: *size, max_pixels })),
        None => Ok(()),
    }
}

/// A server has several devices.
fn of_loading(error: RunnerError) -> ProgramError {
    match error {
        RunnerError::LoadOption { option: "device", message } => ProgramError::setting("devices", message),
        other => too_many_pixels(other),
    }
}

/// Names the setting behind a size that is too large.
fn too_many_pixels(error: RunnerError) -> ProgramError {
    let RunnerError::TooManyPixels { size, max_pixels } = error else { return error.into() };
    let pixels = size.pixels();
    let message = format!(
        "it is {max_pixels}, and the served size {size} has {pixels} pixels; raise it, or choose --buckets within it"
    );
    ProgramError::setting("max-pixels", message)
}

/// A server that would refuse every request with default settings does not start.
fn check_defaults(
    replicas: &Replicas,
    options: &EngineOptions,
    cache: &CacheDefaults,
    model: &ModelSource,
) -> Result<(), ProgramError> {
    let warnings = Engine::check_defaults(replicas, options, &default_request(cache))
        .map_err(|error| unusable_default(error, model.chooses_scheduler()))?;
    for RequestWarning { code, message, .. } in warnings {
        tracing::warn!(code, "default requests: {message}");
    }
    Ok(())
}

/// The same for the time that requests are estimated to take, which a warm-up measures, and for the cache that is chosen for
/// them.
fn check_work(engine: &Engine, cache: &CacheDefaults, profile: Option<&CacheProfile>) -> Result<(), ProgramError> {
    for size in engine.model().buckets.clone() {
        let request = ImageRequest { size: Some(size), ..default_request(cache) };
        let planned = match cache.for_defaults() {
            CacheChoice::Config(_) => engine.plan(request),
            CacheChoice::Auto(floor) => auto_cache::plan(engine, profile, request, floor).map(|(planned, choice)| {
                if choice.outcome() != AutoOutcome::Chosen {
                    let warnings: Vec<_> = planned.warnings().iter().map(|warning| warning.message.as_str()).collect();
                    tracing::warn!("default requests of {size}: {}", warnings.join("; "));
                }
                planned
            }),
        };
        planned.map_err(|error| unusable_default(error, false))?;
    }
    Ok(())
}

/// What a client sends that leaves everything to the server.
fn default_request(cache: &CacheDefaults) -> ImageRequest {
    let cache = match cache.for_defaults() {
        CacheChoice::Config(config) => config,
        // It is chosen when the request is planned.
        CacheChoice::Auto(_) => CacheConfig::None,
    };
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
        cache,
        previews: PreviewCount::default(),
    }
}

/// Names the setting behind a default that cannot be served, or else the model.
fn unusable_default(error: RequestError, scheduler_is_chosen: bool) -> ProgramError {
    let RequestError { param, code, message } = error;
    match (&*param, code) {
        ("scheduler", _) if scheduler_is_chosen => ProgramError::setting("scheduler", message),
        (_, "too_many_rows") => ProgramError::setting("max-batch-rows", format!("default requests: {message}")),
        (_, "too_much_work") => ProgramError::setting("max-queued-seconds", format!("default requests: {message}")),
        (param, _) if param.starts_with("cache_config") => ProgramError::setting("cache-config", message),
        ("scheduler" | "num_inference_steps", _) => ProgramError::Model(RunnerError::Options(format!(
            "{message}; so every default request would fail, and --scheduler may choose another class"
        ))),
        _ => ProgramError::Model(RunnerError::Options(format!("{message}; so every default request would fail"))),
    }
}
