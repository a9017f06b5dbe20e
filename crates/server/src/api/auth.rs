//! Middleware: `Authorization: Bearer KEY` where keys are set.
//!
//! `/v1/` needs a key, but for stored pictures; metrics and readiness do if the server is told so. Liveness never does, because
//! whatever restarts the process should not hold a key, and pages for people never do: what they show of
//! the model they ask the API for, with the key they are given. Whatever is wrong with a key, the answer
//! is the same.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::client::Client;
use super::error::ApiError;
use super::state::AppState;
use crate::api_keys::ApiKeys;
use crate::metrics::RefusalReason;

/// Below it are pictures of [`super::files`].
const STORED_PICTURES: &str = "/v1/images/files/";

/// Who gets in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub(crate) keys: ApiKeys,
    /// `/metrics` needs a key, too.
    pub(crate) protects_metrics: bool,
    /// `/health` and `/health/ready` need a key, too.
    pub(crate) protects_health: bool,
}

impl Access {
    /// Paths are matched as they are sent, by the router too, so that no other spelling gets around this.
    fn is_protected(&self, path: &str) -> bool {
        match path {
            "/metrics" => self.protects_metrics,
            "/health" | "/health/ready" => self.protects_health,
            // The id of a stored picture is its own permission, and pages that show it send no headers.
            _ => path.starts_with("/v1/") && !path.starts_with(STORED_PICTURES),
        }
    }
}

/// Lets a request pass that needs no key or has one, and notes whose it is.
pub(super) async fn check(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    let access = &state.settings.access;
    let client = if access.keys.is_empty() || !access.is_protected(request.uri().path()) {
        Client::of_connection(&request)
    } else {
        let Some(key) = bearer(request.headers()).and_then(|presented| access.keys.find(presented)) else {
            state.metrics.request_refused(RefusalReason::InvalidApiKey);
            return ApiError::InvalidApiKey.into_response();
        };
        tracing::Span::current().record("client", access.keys.name(key));
        Client::Key(key)
    };
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// The token of the one `Authorization` header, if its scheme is `Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn token(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        bearer(&headers).map(|token| String::from_utf8(token.to_vec()).unwrap())
    }

    #[test]
    fn a_token_comes_with_its_scheme_and_once() {
        for value in ["Bearer sk-1", "bearer sk-1", "BEARER   sk-1 "] {
            assert_eq!(token(&[value]).as_deref(), Some("sk-1"), "{value:?}");
        }
        for values in [&[][..], &[""], &["sk-1"], &["Bearer"], &["Basic sk-1"], &["Bearer sk-1", "Bearer sk-1"]] {
            assert_eq!(token(values), None, "{values:?}");
        }
    }

    #[test]
    fn pages_and_liveness_are_open_and_the_rest_can_be_closed() {
        let closed = Access { keys: ApiKeys::default(), protects_metrics: true, protects_health: true };
        for path in ["/v1/models", "/v1/", "/v1/nothing", "/metrics", "/health", "/health/ready"] {
            assert!(closed.is_protected(path), "{path}");
        }
        for path in ["/", "/docs", "/openapi.json", "/health/live", "/style.css", "/v1/images/files/0.png"] {
            assert!(!closed.is_protected(path), "{path}");
        }
        assert!(!Access::default().is_protected("/metrics") && !Access::default().is_protected("/health"));
    }
}
