//! Probes: is the process worth keeping, and may it be sent requests?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::ApiError;
use super::state::AppState;

/// Alive unless the worker thread is gone, which only a restart repairs.
pub(super) async fn live(State(state): State<Arc<AppState>>) -> Result<Json<Value>, ApiError> {
    match state.engine() {
        Err(error @ ApiError::WorkerStopped) => Err(error),
        _ => Ok(Json(json!({"status": "alive"}))),
    }
}

/// Ready while requests are accepted: the model is there and the server is not ending.
pub(super) async fn ready(State(state): State<Arc<AppState>>) -> Result<Json<Value>, ApiError> {
    state.engine()?;
    Ok(Json(json!({"status": "ready"})))
}
