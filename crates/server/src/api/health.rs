//! Probes: should the process be kept, and may it be sent requests?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::Unavailable;
use super::state::AppState;
use crate::image_store::ImageStore;

/// Health of the server
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    status: HealthStatus,
    /// What does not work
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'static str>,
}

impl Health {
    /// Of a server that accepts requests.
    fn of_open_server(store: Option<&ImageStore>) -> Self {
        match store.is_some_and(ImageStore::is_stuck) {
            true => Self { status: HealthStatus::Degraded, reason: Some(DISK_IS_STUCK) },
            false => Self { status: HealthStatus::Ready, reason: None },
        }
    }
}

/// What a server does without whose output disk hangs.
const DISK_IS_STUCK: &str =
    "the disk of --output-dir does not answer: pictures are not stored, stored ones are not found";

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum HealthStatus {
    Alive,
    Ready,
    /// Requests are accepted, and not everything works
    Degraded,
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
        _ => Ok(Json(Health { status: HealthStatus::Alive, reason: None })),
    }
}

/// Whether the server accepts requests
///
/// Ready while requests are accepted: the model is loaded and the server is not shutting down. `degraded` if the disk of
/// `--output-dir` hangs, which concerns only answers with URLs.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "operation",
    responses((status = 200, description = "It does", body = Health), (status = 503, response = Unavailable))
)]
pub(super) async fn ready(State(state): State<Arc<AppState>>) -> Result<Json<Health>, ApiError> {
    state.check_health()?;
    Ok(Json(Health::of_open_server(state.settings.store.as_deref())))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::image_store::StoreLimits;

    fn health(store: Option<&ImageStore>) -> Value {
        serde_json::to_value(Health::of_open_server(store)).unwrap()
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_told_and_no_reason_to_refuse() {
        let folder = tempfile::tempdir().unwrap();
        let limits = StoreLimits { max_age: Duration::from_secs(60), max_bytes: 1000 };
        let store = ImageStore::open(folder.path().to_owned(), limits, Duration::from_millis(5)).unwrap();
        assert_eq!((health(None), health(Some(&store))), (json!({"status": "ready"}), json!({"status": "ready"})));
        let _hanging = store.hang().await;
        while !store.is_stuck() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(health(Some(&store)), json!({"status": "degraded", "reason": DISK_IS_STUCK}));
    }
}
