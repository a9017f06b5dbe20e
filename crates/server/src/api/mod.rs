//! The HTTP API: OpenAI's image generations with cache control per request, models, health, metrics.
//!
//! A request passes the request id and the counters first, whatever its path; then CORS, the page it
//! came from, its key, its client's limits and its handler. What panics among these is caught. Handlers and middlewares
//! return a success or an [`error::ApiError`];
//! nothing else makes an error response.
//!
//! The files with handlers are those that [`routes`] names. They do not know each other: what two of them need, and
//! what [`state`] holds, has a place without handlers.

mod access;
mod address;
mod answer;
mod blocking;
mod body;
mod delivery;
mod error;
mod files;
mod generations;
mod health;
mod job_store;
mod jobs;
mod kept_jobs;
mod metrics;
mod models;
mod openapi;
mod panic_guard;
mod path_id;
mod paths;
mod request_log;
mod routes;
mod security_headers;
mod settings;
mod state;
mod submission;
mod sweeps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::http::{Method, Uri};
use axum::response::Redirect;
use axum::routing::get;
use axum::{Extension, Router, middleware};
use tower::ServiceExt;
use tower::util::{MapRequestLayer, option_layer};
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};

pub(crate) use access::{Access, AccessSettings, AllowedOrigin, ApiKeys, ClientBounds, MIN_KEY_CHARS};
pub(crate) use address::{PublicUrl, RootPath};
pub(crate) use error::ApiError;
pub(crate) use job_store::JobLimits;
pub(crate) use settings::ApiSettings;
pub(crate) use state::{AppState, Remains};

use access::{Gate, cors, key_check, limit_check, page_check};
use openapi::Description;
use request_log::request_id::{self, NewId};

/// Every path of the server: those of the API, and of the pages for people.
pub(crate) fn router(state: Arc<AppState>, access: &AccessSettings, pages: Router<Arc<AppState>>) -> Router {
    let root_path = state.settings.root_path.clone();
    let gate = Arc::new(Gate::new(access, Arc::clone(&state)));
    let (routes, document) = routes::routes().split_for_parts();
    let router = routes
        .merge(pages)
        .merge(openapi::page_routes())
        .merge(slash_after(&root_path))
        .fallback(path_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(Arc::new(Description::new(document, root_path.clone()))))
        .layer(middleware::from_fn_with_state(Arc::clone(&gate), limit_check::check))
        .layer(middleware::from_fn_with_state(Arc::clone(&gate), key_check::check))
        .layer(middleware::from_fn_with_state(gate, page_check::check))
        .layer(panic_guard::layer(&state))
        .layer(option_layer(cors::layer(&access.allowed_origins)))
        .layer(security_headers::layer())
        .layer(middleware::from_fn_with_state(Arc::clone(&state), request_log::answered::observe))
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

async fn path_not_found(uri: Uri) -> ApiError {
    ApiError::PathNotFound { path: uri.path().to_owned() }
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed { method, path: uri.path().to_owned() }
}
