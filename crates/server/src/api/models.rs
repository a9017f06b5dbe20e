//! `GET /v1/models`: OpenAI's list with its one entry, which also says what can be asked of the model.

use std::sync::Arc;

use afterimage_cache::{CacheBackend, CacheConfig, CachePlan};
use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{Engine, ModelInfo, PreviewCount, Size};
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::error::ApiError;
use super::generation_request::{MAX_GUIDANCE_SCALE, MAX_IMAGES, MAX_STEPS};
use super::state::AppState;
use crate::cache_defaults::{CacheDefaults, CacheFault};

/// The list.
pub(super) async fn list(State(state): State<Arc<AppState>>) -> Result<Json<Value>, ApiError> {
    let engine = state.engine()?;
    Ok(Json(json!({"object": "list", "data": [card(&state, &engine)]})))
}

/// One model by its id, which may contain a slash.
pub(super) async fn retrieve(
    State(state): State<Arc<AppState>>,
    Path(requested): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let engine = state.engine()?;
    let served = state.served_model(&engine);
    if requested != served {
        return Err(ApiError::ModelNotFound { requested, served: served.to_owned() });
    }
    Ok(Json(card(&state, &engine)))
}

fn card(state: &AppState, engine: &Engine) -> Value {
    let model = engine.model();
    let labels = model.labels.iter().map(|(class, label)| json!({"id": class, "label": label}));
    let sizes: Vec<String> = model.buckets.iter().map(ToString::to_string).collect();
    let estimates = engine.bucket_estimates();
    let bucket = |size: &Size| {
        let measured = estimates.iter().find(|estimate| estimate.size == *size);
        json!({
            "size": size.to_string(),
            // Null until a picture of this size was made, or `--warmup`.
            "seconds_per_row_step": measured.map(|estimate| estimate.seconds_per_row_step),
            "decode_seconds": measured.map(|estimate| estimate.decode_seconds),
        })
    };
    let cache = &state.settings.cache;
    let block_lists = model.block_lists.iter().map(|(name, blocks)| json!({"name": name, "blocks": blocks}));
    json!({
        "id": state.served_model(engine),
        "object": "model",
        "created": state.created(),
        "owned_by": "afterimage",
        "pipeline": model.pipeline,
        "labels": labels.collect::<Vec<_>>(),
        "sizes": sizes,
        "buckets": model.buckets.iter().map(bucket).collect::<Vec<_>>(),
        "schedulers": SchedulerKind::ALL.map(SchedulerKind::as_str),
        "defaults": {
            "size": sizes.first(),
            "num_inference_steps": model.default_steps,
            "guidance_scale": model.default_guidance_scale,
            "scheduler": model.default_scheduler.as_str(),
            "cache_backend": cache.backend().as_str(),
            "cache_config": cache.keys(),
        },
        "limits": {
            "prompt_chars": state.settings.max_prompt_chars,
            "n": MAX_IMAGES,
            "num_inference_steps": MAX_STEPS,
            "guidance_scale": MAX_GUIDANCE_SCALE,
            "partial_images": PreviewCount::MAX,
        },
        "block_lists": block_lists.collect::<Vec<_>>(),
        "caches": CacheBackend::ALL.map(|backend| cache_card(cache, backend, model)),
    })
}

/// What a request gets that names this backend and no key: every key in force, or why it is refused.
fn cache_card(defaults: &CacheDefaults, backend: CacheBackend, model: &ModelInfo) -> Value {
    let blocks = model.blocks();
    let plan = |config: CacheConfig| {
        CachePlan::new(&config, model.default_steps, model.cache_facts(&blocks)).map_err(CacheFault::from)
    };
    let (config, fault) = match defaults.for_request(Some(backend.as_str()), None).and_then(plan) {
        Ok(plan) => (Value::Object(plan.effective_config()), Value::Null),
        Err(CacheFault { param, message }) => (Value::Null, json!({"param": param, "message": message})),
    };
    json!({"backend": backend.as_str(), "config": config, "fault": fault})
}
