//! `/v1/cache/sweeps`: a prompt with many cache settings, each in seconds and in likeness to the uncached picture.
//!
//! A sweep is a job: it has a place among them, is watched, cancelled and fetched like one, and every picture of it is a
//! request of its client in the engine's queue, one at a time. What it measures is the study's
//! ([`afterimage_study`]). One sweep runs at a time; others wait.

mod client_engine;
mod plan;
mod run;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::header::LOCATION;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::access::Client;
use super::error::ApiError;
use super::job_store::{JobKind, JobObject, SweepWithRows};
use super::kept_jobs;
use super::openapi::{
    BadRequest, BodyTimedOut, BodyTooLarge, JobNotFound, ModelNotFound, ServerFault, SweepBody, TooManyRequests,
    Unavailable, UnsupportedBody,
};
use super::path_id::PathId;
use super::paths;
use super::state::AppState;
use super::submission::Incoming;

/// Measure cache settings on a prompt
///
/// Makes the picture uncached and with some sixteen settings of all backends, one after the other, and compares each with the
/// uncached one. Settings that the model cannot use are left out. The seconds are those of this server as it is: work of other
/// clients is in them.
#[utoipa::path(
    post,
    path = "/v1/cache/sweeps",
    operation_id = "createCacheSweep",
    tag = "jobs",
    request_body = SweepBody,
    responses(
        (status = 202, description = "The sweep is accepted", body = JobObject,
            headers(("location" = String, description = "Where to ask for the sweep")),
            links(
                ("retrieve" = (operation_id = "retrieveCacheSweep", parameters(("id" = "$response.body#/id")))),
                ("delete" = (operation_id = "deleteCacheSweep", parameters(("id" = "$response.body#/id"))))
            )),
        (status = 400, response = BadRequest),
        (status = 404, response = ModelNotFound),
        (status = 408, response = BodyTimedOut),
        (status = 413, response = BodyTooLarge),
        (status = 415, response = UnsupportedBody),
        (status = 429, response = TooManyRequests),
        (status = 500, response = ServerFault),
        (status = 503, response = Unavailable)
    )
)]
pub(super) async fn create(State(state): State<Arc<AppState>>, incoming: Incoming) -> Result<Response, ApiError> {
    let object = run::start(&state, plan::plan(&state, incoming).await?)?;
    let location = format!("{}{}/{}", state.settings.root_path.as_str(), paths::SWEEPS, object.id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(object)).into_response())
}

/// A sweep with its progress, its rows, its report
///
/// Rows are there until the report is, which is once it has succeeded: a sweep that failed or was cancelled keeps those it has
/// measured. The first row is that of the uncached picture.
#[utoipa::path(
    get,
    path = "/v1/cache/sweeps/{id}",
    operation_id = "retrieveCacheSweep",
    tag = "jobs",
    params(("id" = String, Path, description = "The sweep's id")),
    responses(
        (status = 200, description = "The sweep", body = SweepWithRows),
        (status = 404, response = JobNotFound),
        (status = 500, response = ServerFault)
    )
)]
pub(super) async fn retrieve(
    State(state): State<Arc<AppState>>,
    Extension(client): Extension<Client>,
    PathId(id): PathId,
    method: Method,
) -> Result<Response, ApiError> {
    kept_jobs::fetch(&state, JobKind::CacheSweep, &client, &id, &method)
}

/// Cancel a sweep, or remove one that has ended
///
/// An unfinished sweep is cancelled at the next step of its picture and can still be read, with the rows it has measured; the
/// answer is its state at that time.
#[utoipa::path(
    delete,
    path = "/v1/cache/sweeps/{id}",
    operation_id = "deleteCacheSweep",
    tag = "jobs",
    params(("id" = String, Path, description = "The sweep's id")),
    responses((status = 200, description = "The sweep", body = JobObject), (status = 404, response = JobNotFound))
)]
pub(super) async fn delete(
    State(state): State<Arc<AppState>>,
    Extension(client): Extension<Client>,
    PathId(id): PathId,
) -> Result<Json<JobObject>, ApiError> {
    kept_jobs::delete(&state, JobKind::CacheSweep, &client, &id)
}
