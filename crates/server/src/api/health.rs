//! Probes: should the process be kept, and may it be sent requests?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::Unavailable;
use super::state::AppState;

/// Health of the server
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    status: HealthStatus,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum HealthStatus {
    Alive,
    Ready,
}

/// Whether the process works
///
/// Live unless the worker thread is gone, which only a restart repairs.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "operation",
    responses((status = 200, description = "It does", body = Health), (status = 503, response = Unavailable))
)]
pub(super) async fn live(State(state): State<Arc<AppState>>) -> Result<Json<Health>, ApiError> {
    match state.check_health() {
        Err(error @ ApiError::WorkerStopped) => Err(error),
        _ => Ok(Json(Health { status: HealthStatus::Alive })),
    }
}

/// Whether the server accepts requests
///
/// Ready while requests are accepted: the model is loaded and the server is not shutting down.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "operation",
    responses((status = 200, description = "It does", body = Health), (status = 503, response = Unavailable))
)]
pub(super) async fn ready(State(state): State<Arc<AppState>>) -> Result<Json<Health>, ApiError> {
    state.check_health()?;
    Ok(Json(Health { status: HealthStatus::Ready }))
}

/// The same as `/health/ready`
#[utoipa::path(
    get,
    path = "/health",
    tag = "operation",
    responses((status = 200, description = "It does", body = Health), (status = 503, response = Unavailable))
)]
pub(super) async fn health(state: State<Arc<AppState>>) -> Result<Json<Health>, ApiError> {
    ready(state).await
}
