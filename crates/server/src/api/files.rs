//! `GET /v1/images/files/{id}`: pictures that were answered as URLs.
//!
//! The id is the permission: who has it may see the picture. A browser gets an image and nothing it
//! could take for anything else.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};

use super::answer::stored_file::StoredFile;
use super::error::ApiError;
use super::openapi::{ImageNotFound, ServerFault, Unavailable};
use super::path_id::PathId;
use super::state::AppState;
use crate::image_store::{ImageId, StoreError};

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
        (status = 500, response = ServerFault),
        (status = 503, response = Unavailable)
    )
)]
pub(super) async fn serve(State(state): State<Arc<AppState>>, PathId(id): PathId) -> Result<Response, ApiError> {
    let Ok(id) = id.parse::<ImageId>() else { return Err(ApiError::ImageNotFound) };
    let Some(store) = state.settings.store.clone() else { return Err(ApiError::ImageNotFound) };
    let Some(image) = store.load(id).await.map_err(unreadable)? else { return Err(ApiError::ImageNotFound) };
    let headers = [
        (CONTENT_TYPE, id.format().content_type().to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        // Only in the cache of the client that asked, and only while the file exists.
        (CACHE_CONTROL, format!("private, max-age={}, immutable", image.remaining.as_secs())),
    ];
    Ok((headers, Body::from(StoredFile::new(store, image.file, image.bytes))).into_response())
}

fn unreadable(error: StoreError) -> ApiError {
    match error {
        StoreError::Disk(_) => ApiError::StorageStuck(error),
        _ => ApiError::Internal(error.to_string()),
    }
}
