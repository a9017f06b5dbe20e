//! Every documented path. Paths and methods stand at the handlers.

use std::sync::Arc;

use axum::body::Body;
use tower::util::MapRequestLayer;
use tower_http::decompression::RequestDecompressionLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::events::Event;
use super::body::encoding::name_encodings;
use super::state::AppState;
use super::{files, generations, health, jobs, metrics, models, openapi, sweeps};

/// Schemas that only appear inside others, so that no handler names them.
#[derive(OpenApi)]
#[openapi(components(schemas(Event)))]
struct StreamedSchemas;

/// The paths, and what is said of them.
pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    let mut description = openapi::Frame::openapi();
    description.merge(StreamedSchemas::openapi());
    OpenApiRouter::with_openapi(description)
        .merge(with_bodies())
        .routes(routes!(jobs::retrieve, jobs::delete))
        .routes(routes!(sweeps::retrieve, sweeps::delete))
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

/// The paths that read a body, which is unpacked on its way to them. Others ignore theirs.
fn with_bodies() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(generations::create))
        .routes(routes!(jobs::create, jobs::list))
        .routes(routes!(sweeps::create))
        // What is packed otherwise passes, for the body's reader to refuse in the usual shape.
        .route_layer(RequestDecompressionLayer::new().pass_through_unaccepted(true))
        .route_layer(MapRequestLayer::new(name_encodings::<Body>))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The paths with an operation that fits.
    fn paths(router: OpenApiRouter<Arc<AppState>>, fits: fn(&Value) -> bool) -> Vec<String> {
        let document = serde_json::to_value(router.into_openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().iter();
        let fitting = paths.filter(|(_, item)| item.as_object().unwrap().values().any(fits));
        fitting.map(|(path, _)| path.clone()).collect()
    }

    #[test]
    fn bodies_are_unpacked_where_there_are_some_and_nowhere_else() {
        let with_a_body = paths(routes(), |operation| !operation["requestBody"].is_null());
        assert_eq!(with_a_body.len(), 3, "{with_a_body:?}");
        assert_eq!(paths(with_bodies(), |_| true), with_a_body);
    }
}
