//! `GET /v1/models`: OpenAI's list, an entry for every id of the one model, which also says what can be asked of it
//! ([`card`]).

mod card;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::{ModelNotFound, Unavailable};
use super::path_id::PathId;
use super::state::AppState;
use crate::request::RequestFault;
use card::{ModelCard, card};

/// What is served
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    object: &'static str,
    data: Vec<ModelCard>,
}

/// The served model under each of its ids
#[utoipa::path(
    get,
    path = "/v1/models",
    operation_id = "listModels",
    tag = "models",
    responses((status = 200, description = "An entry for every id", body = ModelList), (status = 503, response = Unavailable))
)]
pub(super) async fn list(State(state): State<Arc<AppState>>) -> Result<Json<ModelList>, ApiError> {
    let engine = state.engine()?;
    let data = state.served_models(&engine).iter().map(|id| card(&state, &engine, id)).collect();
    Ok(Json(ModelList { object: "list", data }))
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
    let served = state.served_models(&engine);
    let Some(id) = served.iter().find(|id| **id == requested) else {
        return Err(RequestFault::model_not_found(&requested, served).into());
    };
    Ok(Json(card(&state, &engine, id)))
}
