//! What the description says beside the paths.

use utoipa::OpenApi;

use super::cache_settings;
use super::errors::{
    BadRequest, BodyTimedOut, BodyTooLarge, Forbidden, ImageNotFound, InvalidApiKey, JobNotFound, ModelNotFound,
    ServerFault, TooManyRequests, Unavailable, UnsupportedBody,
};
use crate::api::error::answer::ErrorBody;

/// What is not said by a handler.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "afterimage",
        description = "An HTTP image server for Diffusion Transformers that computes only the denoising steps that \
                       matter. OpenAI's image generations, with cache control per request.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "images", description = "Pictures, at once or as a stream"),
        (name = "jobs", description = "Pictures that are fetched later"),
        (name = "models", description = "What is served"),
        (name = "operation", description = "Probes, metrics and this document")
    ),
    components(
        schemas(
            ErrorBody,
            cache_settings::CacheDitSettings,
            cache_settings::TeaCacheSettings,
            cache_settings::MagCacheSettings,
            cache_settings::AutoSettings
        ),
        responses(
            BadRequest,
            BodyTimedOut,
            BodyTooLarge,
            Forbidden,
            ImageNotFound,
            InvalidApiKey,
            JobNotFound,
            ModelNotFound,
            ServerFault,
            TooManyRequests,
            Unavailable,
            UnsupportedBody
        )
    )
)]
pub(in crate::api) struct Frame;
