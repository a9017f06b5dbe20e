//! The `/metrics` page, and the middleware that measures every HTTP request.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::GENERATIONS_PATH;
use super::error::ApiError;
use super::openapi::ServerFault;
use super::state::AppState;

/// Requests to paths that do not exist share one label.
const UNMATCHED: &str = "unmatched";

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

/// Middleware: the latency of every request by route and status, and a line in the log.
pub(super) async fn observe(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let response = next.run(request).await;
    let seconds = started.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    state.metrics.http_request(route, status, seconds);
    // A generation has its own line, with more to say.
    if route.starts_with("/v1/") && route != GENERATIONS_PATH {
        tracing::info!(status, seconds, "answered");
    } else {
        tracing::debug!(status, seconds, "answered");
    }
    response
}
