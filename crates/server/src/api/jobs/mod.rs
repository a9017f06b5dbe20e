//! `/v1/images/jobs`: generations whose client does not wait on the connection.
//!
//! A job takes the body of a generation, the same place in the queue and the same counters. Its answer
//! is kept in memory ([`store`]) until it is fetched and a new job needs the place, deleted, or too old.
//! What is kept is bounded in number, age and bytes.

mod kept_job;
mod list_query;
mod object;
mod run;
mod store;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::Instrument;

use super::blocking;
use super::error::ApiError;
use super::generation_record::GenerationRecord;
use super::generations::{self, Accepted};
use super::rate_limit::Admitted;
use super::state::AppState;
use kept_job::RunningJob;
use list_query::ListQuery;
use object::{JobList, JobObject};

pub(crate) use store::{JobLimits, JobStore};

/// Accepts a job and answers with its object.
pub(super) async fn create(
    State(state): State<Arc<AppState>>,
    Extension(admitted): Extension<Admitted>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let record = GenerationRecord::new(state.metrics.generation_begins());
    let (accepted, job, object) = match accept(&state, admitted, &headers, body).await {
        Ok(accepted) => accepted,
        Err(error) => {
            record.ends(Err::<&(), _>(&error));
            return Err(error);
        }
    };
    let location = format!("/v1/images/jobs/{}", object.id);
    // Tracked: `accepted` has a token that a server that ends waits for.
    tokio::spawn(run::run(accepted, job, record).in_current_span());
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(object)).into_response())
}

/// The kept jobs, newest first, without their pictures.
pub(super) async fn list(State(state): State<Arc<AppState>>, uri: Uri) -> Result<Json<JobList>, ApiError> {
    let ListQuery { limit, after } = ListQuery::of(&uri)?;
    let (data, has_more) = state.jobs.list(limit, after.as_deref()).ok_or_else(|| {
        let after = after.unwrap_or_default();
        ApiError::invalid_value("after", format!("`after` is `{after}`; there is no such job, or no longer"))
    })?;
    Ok(Json(JobList::new(data, has_more)))
}

/// A job with its previews or its result.
pub(super) async fn retrieve(State(state): State<Arc<AppState>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let job = state.jobs.with_pictures(&id).ok_or_else(|| not_found(&id))?;
    // Copying a result takes its time.
    let body = blocking::run(move || json_bytes(&job)).await??;
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Cancels a job at its next step, or forgets one that has ended. Answers how it stands then.
pub(super) async fn delete(
    State(state): State<Arc<AppState>>,
    Path(id): Path<String>,
) -> Result<Json<JobObject>, ApiError> {
    state.jobs.delete(&id).map(Json).ok_or_else(|| not_found(&id))
}

async fn accept(
    state: &Arc<AppState>,
    admitted: Admitted,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Accepted, RunningJob, JobObject), ApiError> {
    let engine = state.engine()?;
    let planned = generations::plan(state, &engine, headers, body, |rules, keys| rules.parse_job(keys)).await?;
    let place = state.jobs.reserve()?;
    let accepted = generations::submit(state, &engine, planned, admitted)?;
    let (job, object) = place.take(state.served_model(&engine), accepted.seed, accepted.ticket.progress());
    Ok((accepted, job, object))
}

fn not_found(id: &str) -> ApiError {
    /// Longer than any id.
    const SHOWN_CHARS: usize = 80;
    ApiError::JobNotFound { id: id.chars().take(SHOWN_CHARS).collect() }
}

fn json_bytes(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| ApiError::Internal(error.to_string()))
}
