//! The `/metrics` page.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::openapi::ServerFault;
use super::state::AppState;

/// Counters for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"),
        (status = 500, response = ServerFault)
    )
)]
pub(super) async fn expose(State(state): State<Arc<AppState>>) -> Result<Response, ApiError> {
    state.catch_up();
    let text = state.metrics.text().map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}
