//! `GET /v1/models`: OpenAI's list with its one entry, which also says what can be asked of the model.

use std::sync::Arc;

use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{Engine, Size};
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::error::ApiError;
use super::state::AppState;

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
    })
}
