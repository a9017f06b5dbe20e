//! `GET /v1/images/files/{id}`: pictures that were answered as URLs.
//!
//! The id is the permission: who has it may see the picture. A browser gets an image and nothing it
//! could take for anything else.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};

use super::blocking;
use super::error::ApiError;
use super::openapi::{ImageNotFound, ServerFault};
use super::path_id::PathId;
use super::state::AppState;
use crate::image_store::ImageId;

/// A picture that was returned as a URL
///
/// It is kept until it is too old, or newer pictures need the space (`--output-max-age`, `--output-max-bytes`).
#[utoipa::path(
    get,
    path = "/v1/images/files/{id}",
    operation_id = "retrieveFile",
    tag = "images",
    params(("id" = String, Path, description = "The last part of the URL")),
    responses(
        (status = 200, description = "The file", content(
            ("image/png"), ("image/jpeg"), ("image/webp")
        )),
        (status = 404, response = ImageNotFound),
        (status = 500, response = ServerFault)
    )
)]
pub(super) async fn serve(State(state): State<Arc<AppState>>, PathId(id): PathId) -> Result<Response, ApiError> {
    let Ok(id) = id.parse::<ImageId>() else { return Err(ApiError::ImageNotFound) };
    let Some(store) = state.settings.store.clone() else { return Err(ApiError::ImageNotFound) };
    let load = move || store.load(id, SystemTime::now());
    let loaded = blocking::run(load).await?;
    let loaded = loaded.map_err(|error| ApiError::Internal(format!("a stored picture cannot be read: {error}")))?;
    let Some(image) = loaded else { return Err(ApiError::ImageNotFound) };
    let headers = [
        (CONTENT_TYPE, id.format().content_type().to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        // Only in the cache of the client that asked, and only while the file exists.
        (CACHE_CONTROL, format!("private, max-age={}, immutable", image.remaining.as_secs())),
    ];
    Ok((headers, image.file).into_response())
}
