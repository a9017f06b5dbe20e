//! Every documented path. Paths and methods stand at the handlers.

use std::sync::Arc;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::events::Event;
use super::state::AppState;
use super::{files, generations, health, jobs, metrics, models, openapi};

/// What is only sent in parts, so that no handler names it.
#[derive(OpenApi)]
#[openapi(components(schemas(Event)))]
struct StreamedSchemas;

/// The paths, and what is said of them.
pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    let mut description = openapi::Frame::openapi();
    description.merge(StreamedSchemas::openapi());
    OpenApiRouter::with_openapi(description)
        .routes(routes!(generations::create))
        .routes(routes!(jobs::create, jobs::list))
        .routes(routes!(jobs::retrieve, jobs::delete))
        .routes(routes!(files::serve))
        .routes(routes!(models::list))
        .routes(routes!(models::retrieve))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::live))
        .routes(routes!(metrics::expose))
        .routes(routes!(openapi::document))
        .routes(routes!(openapi::docs))
}
