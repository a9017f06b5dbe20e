//! `GET /v1/models`: OpenAI's list with its one entry, which also says what can be asked of the model.

use std::sync::Arc;

use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{Engine, Size};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::{CacheBackendName, ModelNotFound, SchedulerName, Unavailable};
use super::path_id::PathId;
use super::state::AppState;

/// What is served
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    object: &'static str,
    data: Vec<ModelCard>,
}

/// What can be asked of the model
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelCard {
    id: String,
    object: &'static str,
    /// Unix seconds of the server's start
    created: u64,
    owned_by: &'static str,
    /// The pipeline's class in diffusers
    pipeline: String,
    /// What a class-conditional model can draw
    labels: Vec<ModelLabel>,
    /// `WIDTHxHEIGHT`
    sizes: Vec<String>,
    buckets: Vec<ModelBucket>,
    #[schema(value_type = Vec<SchedulerName>)]
    schedulers: [&'static str; SchedulerKind::ALL.len()],
    defaults: ModelDefaults,
}

/// A class and its name
#[derive(Debug, Serialize, ToSchema)]
struct ModelLabel {
    id: u32,
    label: String,
}

/// A size, and what a picture of it takes
#[derive(Debug, Serialize, ToSchema)]
struct ModelBucket {
    /// `WIDTHxHEIGHT`
    size: String,
    /// Null until a picture of this size was made, or `--warmup`
    #[schema(required)]
    seconds_per_row_step: Option<f64>,
    /// Null as long
    #[schema(required)]
    decode_seconds: Option<f64>,
}

/// What an absent field stands for
#[derive(Debug, Serialize, ToSchema)]
struct ModelDefaults {
    #[schema(required)]
    size: Option<String>,
    num_inference_steps: usize,
    guidance_scale: f64,
    #[schema(value_type = SchedulerName)]
    scheduler: &'static str,
    #[schema(value_type = CacheBackendName)]
    cache_backend: &'static str,
    #[schema(value_type = Object)]
    cache_config: Map<String, Value>,
}

/// The served model, as a list
#[utoipa::path(
    get,
    path = "/v1/models",
    operation_id = "listModels",
    tag = "models",
    responses((status = 200, description = "One entry", body = ModelList), (status = 503, response = Unavailable))
)]
pub(super) async fn list(State(state): State<Arc<AppState>>) -> Result<Json<ModelList>, ApiError> {
    let engine = state.engine()?;
    Ok(Json(ModelList { object: "list", data: vec![card(&state, &engine)] }))
}

/// A model by its id
///
/// The id may contain a slash.
#[utoipa::path(
    get,
    path = "/v1/models/{*id}",
    operation_id = "retrieveModel",
    tag = "models",
    params(("id" = String, Path, description = "The served id")),
    responses(
        (status = 200, description = "The model", body = ModelCard),
        (status = 404, response = ModelNotFound),
        (status = 503, response = Unavailable)
    )
)]
pub(super) async fn retrieve(
    State(state): State<Arc<AppState>>,
    PathId(requested): PathId,
) -> Result<Json<ModelCard>, ApiError> {
    let engine = state.engine()?;
    let served = state.served_model(&engine);
    if requested != served {
        return Err(ApiError::ModelNotFound { requested, served: served.to_owned() });
    }
    Ok(Json(card(&state, &engine)))
}

fn card(state: &AppState, engine: &Engine) -> ModelCard {
    let model = engine.model();
    let labels = model.labels.iter().map(|(class, label)| ModelLabel { id: class, label: label.to_string() });
    let sizes: Vec<String> = model.buckets.iter().map(ToString::to_string).collect();
    let estimates = engine.bucket_estimates();
    let bucket = |size: &Size| {
        let measured = estimates.iter().find(|estimate| estimate.size == *size);
        ModelBucket {
            size: size.to_string(),
            seconds_per_row_step: measured.map(|estimate| estimate.seconds_per_row_step),
            decode_seconds: measured.map(|estimate| estimate.decode_seconds),
        }
    };
    let cache = &state.settings.cache;
    ModelCard {
        id: state.served_model(engine).to_owned(),
        object: "model",
        created: state.created(),
        owned_by: "afterimage",
        pipeline: model.pipeline.to_string(),
        labels: labels.collect(),
        buckets: model.buckets.iter().map(bucket).collect(),
        schedulers: SchedulerKind::ALL.map(SchedulerKind::as_str),
        defaults: ModelDefaults {
            size: sizes.first().cloned(),
            num_inference_steps: model.default_steps,
            guidance_scale: model.default_guidance_scale,
            scheduler: model.default_scheduler.as_str(),
            cache_backend: cache.backend().as_str(),
            cache_config: cache.keys().clone(),
        },
        sizes,
    }
}
