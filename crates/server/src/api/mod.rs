//! The HTTP API: OpenAI's image generations with cache control per request, models, health, metrics.
//!
//! A request passes the request id and the counters first, whatever its path; then CORS, its key, its
//! client's limits and its handler. Handlers and middlewares return a success or an [`error::ApiError`];
//! nothing else makes an error response.

mod accept;
mod auth;
mod blocking;
mod body;
mod client;
mod client_limits;
mod cors;
mod error;
mod fields;
mod files;
mod foreign_fields;
mod generation_events;
mod generation_record;
mod generation_request;
mod generation_response;
mod generation_stream;
mod generations;
mod health;
mod jobs;
mod metrics;
mod models;
mod openapi;
mod output;
mod path_id;
mod picture_response;
mod public_url;
mod rate_limit;
mod request_id;
mod root_path;
mod security_headers;
mod state;
mod trace_id;
mod warning;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware;
use axum::response::Redirect;
use axum::routing::get;
use tower::ServiceExt;
use tower::util::{MapRequestLayer, option_layer};
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use accept::Accept;
pub(crate) use auth::Access;
pub(crate) use body::{kind_of, parse_json};
pub(crate) use client_limits::ClientBounds;
pub(crate) use cors::AllowedOrigin;
pub(crate) use error::ApiError;
pub(crate) use fields::UnknownFields;
pub(crate) use generation_request::{GenerationRequest, RequestRules};
pub(crate) use jobs::JobLimits;
pub(crate) use output::{OutputOptions, ResponseFormat};
pub(crate) use public_url::PublicUrl;
pub(crate) use root_path::RootPath;
pub(crate) use state::{ApiSettings, AppState};

use crate::playground;
use request_id::NewId;

const GENERATIONS_PATH: &str = "/v1/images/generations";

/// Every path of the server.
pub(crate) fn router(state: Arc<AppState>) -> Router {
    let page = if state.settings.has_playground { playground::routes() } else { Router::new() };
    let root_path = state.settings.root_path.clone();
    let router = Router::from(routes())
        .merge(page)
        .merge(openapi::page_routes())
        .merge(slash_after(&root_path))
        .fallback(path_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // What is packed otherwise passes, for the body's reader to refuse in the usual shape.
        .layer(RequestDecompressionLayer::new().pass_through_unaccepted(true))
        .layer(MapRequestLayer::new(body::name_encodings::<axum::body::Body>))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), rate_limit::check))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), auth::check))
        .layer(option_layer(cors::layer(&state.settings.allowed_origins)))
        .layer(security_headers::layer())
        .layer(middleware::from_fn_with_state(Arc::clone(&state), metrics::observe))
        .layer(middleware::from_fn(request_id::trace))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(NewId))
        .layer(MapRequestLayer::new(request_id::drop_unusable))
        .with_state(state);
    match root_path.is_empty() {
        true => router,
        // Outside of the router, which looks at paths first.
        false => Router::new().fallback_service(router.map_request(move |request| root_path.strip(request))),
    }
}

/// The page's links are relative to a path that ends with a slash.
fn slash_after(root_path: &RootPath) -> Router<Arc<AppState>> {
    if root_path.is_empty() {
        return Router::new();
    }
    let page = format!("{}/", root_path.as_str());
    Router::new().route(root_path.as_str(), get(move || async move { Redirect::permanent(&page) }))
}

/// Every documented path; paths and methods stand at the handlers.
fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::with_openapi(openapi::Frame::openapi())
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

async fn path_not_found(uri: Uri) -> ApiError {
    ApiError::PathNotFound { path: uri.path().to_owned() }
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed { method, path: uri.path().to_owned() }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{HeaderValue, Request, Response};
    use serde_json::Value;

    use super::*;

    /// What a server answers whose model is still loading.
    async fn answer(method: &str, path: &str, request_id: Option<&str>) -> (Response<()>, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(id) = request_id {
            request = request.header("x-request-id", id);
        }
        let router = router(Arc::new(AppState::new(ApiSettings::for_tests())));
        let response = router.oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (Response::from_parts(parts, ()), serde_json::from_slice(&bytes).unwrap_or_default())
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_get_the_error_shape() {
        let (response, body) = answer("GET", "/v1/images", None).await;
        assert_eq!((response.status().as_u16(), &body["error"]["code"]), (404, &Value::from("not_found")));
        let (response, body) = answer("GET", "/v1/images/generations", None).await;
        assert_eq!((response.status().as_u16(), &body["error"]["code"]), (405, &Value::from("method_not_allowed")));
        assert_eq!(response.headers()["allow"], "POST");
    }

    #[tokio::test]
    async fn nothing_but_liveness_is_served_before_the_model_is_there() {
        for (method, path) in
            [("POST", "/v1/images/generations"), ("GET", "/v1/models"), ("GET", "/health"), ("GET", "/health/ready")]
        {
            let (response, body) = answer(method, path, None).await;
            assert_eq!((response.status().as_u16(), &body["error"]["code"]), (503, &Value::from("model_loading")));
            assert!(response.headers().contains_key("retry-after"), "{path}");
        }
        assert_eq!(answer("GET", "/health/live", None).await.0.status(), 200);
        assert_eq!(answer("GET", "/metrics", None).await.0.status(), 200);
    }

    #[tokio::test]
    async fn a_proxy_may_take_the_prefix_away_or_leave_it() {
        let settings = ApiSettings { root_path: "/images".parse().unwrap(), ..ApiSettings::for_tests() };
        let router = router(Arc::new(AppState::new(settings)));
        let ask =
            async |path: &str| router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        for path in ["/", "/playground/main.js", "/docs", "/openapi.json", "/health/live", "/metrics"] {
            for path in [path.to_owned(), format!("/images{path}")] {
                assert_eq!(ask(&path).await.status(), 200, "{path}");
            }
        }
        let page = ask("/images").await;
        assert_eq!((page.status().as_u16(), &page.headers()["location"]), (308, &HeaderValue::from_static("/images/")));
        assert_eq!(ask("/images/images/").await.status(), 404);
        let document = axum::body::to_bytes(ask("/openapi.json").await.into_body(), usize::MAX).await.unwrap();
        let document: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document["servers"], serde_json::json!([{"url": "/images"}]));
    }

    #[tokio::test]
    async fn every_answer_has_a_request_id() {
        for (path, sent) in [("/nothing", "trace-7.a_b"), ("/health/live", "01234567-89ab")] {
            assert_eq!(answer("GET", path, Some(sent)).await.0.headers()["x-request-id"], sent);
        }
        for sent in [None, Some(""), Some("two words"), Some(&*"x".repeat(200))] {
            let (response, _) = answer("GET", "/nothing", sent).await;
            let id = response.headers()["x-request-id"].to_str().unwrap();
            assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7, "{sent:?}");
        }
    }
}
