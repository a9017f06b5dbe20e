//! `GET /v1/images/files/{id}`: pictures that were answered as URLs.
//!
//! The id is the permission: who has it may see the picture. A browser gets an image and nothing it
//! could take for anything else.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};

use super::blocking;
use super::error::ApiError;
use super::state::AppState;
use crate::image_store::ImageId;

/// The picture, while it is kept.
pub(super) async fn serve(State(state): State<Arc<AppState>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let Ok(id) = id.parse::<ImageId>() else { return Err(ApiError::ImageNotFound) };
    let Some(store) = state.settings.store.clone() else { return Err(ApiError::ImageNotFound) };
    let load = move || store.load(id, SystemTime::now());
    let loaded = blocking::run(load).await?;
    let loaded = loaded.map_err(|error| ApiError::Internal(format!("a stored picture cannot be read: {error}")))?;
    let Some(image) = loaded else { return Err(ApiError::ImageNotFound) };
    let headers = [
        (CONTENT_TYPE, id.format().content_type().to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        // Only for the one who asked, and only while it is there.
        (CACHE_CONTROL, format!("private, max-age={}, immutable", image.remaining.as_secs())),
    ];
    Ok((headers, image.file).into_response())
}
