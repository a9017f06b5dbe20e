//! `/v1/images/jobs`: generations whose client does not wait on the connection.
//!
//! A job takes the body of a generation, the same place in the queue and the same counters. Its answer
//! is kept in memory ([`super::job_store`]) until it was delivered and a new job needs the place, deleted, or too old.
//! What is kept is bounded in number, age and bytes.

mod list_query;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{Method, Uri};
use axum::response::Response;

use super::access::Client;
use super::error::ApiError;
use super::job_store::{JobKind, JobList, JobObject, JobWithPictures};
use super::kept_jobs;
use super::openapi::{
    BadRequest, BodyTimedOut, BodyTooLarge, JobBody, JobNotFound, ModelNotFound, ServerFault, TooManyRequests,
    Unavailable, UnsupportedBody,
};
use super::path_id::PathId;
use super::state::AppState;
use super::submission::{self, Endpoint, Incoming};
use crate::request::quoted;
use list_query::ListQuery;

/// Make pictures without waiting for them
///
/// A job is not tied to its connection. A server that is stopped finishes its jobs and hands out their results.
#[utoipa::path(
    post,
    path = "/v1/images/jobs",
    operation_id = "createImageJob",
    tag = "jobs",
    request_body = JobBody,
    responses(
        (status = 202, description = "The job is accepted", body = JobObject,
            headers(("location" = String, description = "Where to ask for the job")),
            links(
                ("retrieve" = (operation_id = "retrieveImageJob", parameters(("id" = "$response.body#/id")))),
                ("delete" = (operation_id = "deleteImageJob", parameters(("id" = "$response.body#/id")))),
                ("next" = (operation_id = "listImageJobs", parameters(("after" = "$response.body#/id"))))
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
    submission::create(&state, Endpoint::Jobs, incoming).await
}

/// The kept jobs, newest first, without their pictures
#[utoipa::path(
    get,
    path = "/v1/images/jobs",
    operation_id = "listImageJobs",
    tag = "jobs",
    params(
        ("limit" = Option<u32>, Query, description = "Jobs of one page", minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Continue after this job: `last_id` of the page before")
    ),
    responses((status = 200, description = "A page", body = JobList), (status = 400, response = BadRequest))
)]
pub(super) async fn list(
    State(state): State<Arc<AppState>>,
    Extension(client): Extension<Client>,
    uri: Uri,
) -> Result<Json<JobList>, ApiError> {
    let ListQuery { limit, after } = ListQuery::of(&uri)?;
    let (data, has_more) = state.jobs.list(client.key(), limit, after.as_deref()).ok_or_else(|| {
        let after = quoted(&after.unwrap_or_default());
        ApiError::invalid_value("after", format!("`after` is `{after}`; there is no such job, or it has been removed"))
    })?;
    Ok(Json(JobList::new(data, has_more)))
}

/// A job with its progress, its previews, its result
///
/// Previews are there until the job has ended, the result once it has succeeded.
#[utoipa::path(
    get,
    path = "/v1/images/jobs/{id}",
    operation_id = "retrieveImageJob",
    tag = "jobs",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = JobWithPictures),
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
    kept_jobs::fetch(&state, JobKind::ImageJob, &client, &id, &method)
}

/// Cancel a job, or remove one that has ended
///
/// An unfinished job is cancelled at its next step and can still be read; the answer is its state at that time.
#[utoipa::path(
    delete,
    path = "/v1/images/jobs/{id}",
    operation_id = "deleteImageJob",
    tag = "jobs",
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The job", body = JobObject), (status = 404, response = JobNotFound))
)]
pub(super) async fn delete(
    State(state): State<Arc<AppState>>,
    Extension(client): Extension<Client>,
    PathId(id): PathId,
) -> Result<Json<JobObject>, ApiError> {
    kept_jobs::delete(&state, JobKind::ImageJob, &client, &id)
}
