//! Fetching and deleting jobs, of whatever kind.

use axum::Json;
use axum::body::Body;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::access::Client;
use super::error::ApiError;
use super::job_store::{JobKind, JobObject};
use super::state::AppState;
use crate::connections::receipt;
use crate::request::quoted;

/// The answer with a job, which counts as fetched once the answer has been delivered.
pub(super) fn fetch(
    state: &AppState,
    kind: JobKind,
    client: &Client,
    id: &str,
    method: &Method,
) -> Result<Response, ApiError> {
    let job = state.jobs.fetch(kind, client.key(), id).ok_or_else(|| not_found(id))?;
    let text = job.json().map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut response = ([(CONTENT_TYPE, "application/json")], Body::from(text)).into_response();
    // An answer to HEAD brings nothing.
    if let Some(settled) = job.settled.filter(|_| *method == Method::GET) {
        receipt::on_delivery(&mut response, move || settled.cancel());
    }
    Ok(response)
}

/// Cancels a job or forgets one that has ended; how it stands afterwards.
pub(super) fn delete(state: &AppState, kind: JobKind, client: &Client, id: &str) -> Result<Json<JobObject>, ApiError> {
    state.jobs.delete(kind, client.key(), id).map(Json).ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> ApiError {
    ApiError::JobNotFound { id: quoted(id) }
}
