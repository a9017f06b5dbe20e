//! The OpenAPI 3.1 document of the API, made from the code that serves it.
//!
//! A path is documented by the `#[utoipa::path]` on its handler, which is also what puts it into the
//! router, a status by one line there, a response by the type that is serialised. Only what is parsed by
//! hand ([`generation_body`]) or comes from another crate ([`cache_report`]) has types for documentation
//! alone, and tests tie them to the code; [`cache_settings`] are made from the tables of cache keys. `docs/openapi.json` is a copy for readers.

#[cfg(test)]
mod agreement;
mod cache_report;
mod cache_settings;
mod description;
mod errors;
mod examples;
mod frame;
mod generation_body;
mod html;
mod page;
mod sweep;
#[cfg(test)]
mod tests;
mod try_form;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::error::ApiError;
use crate::page_file;

pub(super) use cache_report::CacheReportSchema;
pub(super) use cache_settings::{CacheBackendChoice, SchedulerName};
pub(super) use description::Description;
pub(super) use errors::{
    BadRequest, BodyTimedOut, BodyTooLarge, ImageNotFound, JobNotFound, ModelNotFound, ServerFault, TooManyRequests,
    Unavailable, UnsupportedBody,
};
pub(super) use frame::Frame;
pub(super) use generation_body::{GenerationBody, JobBody};
pub(super) use sweep::{SweepBody, SweepReport, SweepRow};
#[cfg(test)]
use tests::text;

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object))
)]
pub(super) async fn document(Extension(description): Extension<Arc<Description>>) -> Response {
    ([(CONTENT_TYPE, "application/json")], description.text()).into_response()
}

/// This document as a page
#[utoipa::path(
    get,
    path = "/docs",
    tag = "operation",
    responses(
        (status = 200, description = "A page to read, and to try requests on", body = String, content_type = "text/html")
    )
)]
pub(super) async fn docs(Extension(description): Extension<Arc<Description>>, request: HeaderMap) -> Response {
    page_file::respond(description.page(), page_file::HTML, &request)
}

/// What the page refers to; it is no part of the API.
pub(super) fn page_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/docs/{name}", get(page_file_named))
}

async fn page_file_named(Path(name): Path<String>, uri: Uri, request: HeaderMap) -> Result<Response, ApiError> {
    let file = page::FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| ApiError::PathNotFound { path: uri.path().to_owned() })?;
    Ok(file.respond(&request))
}
