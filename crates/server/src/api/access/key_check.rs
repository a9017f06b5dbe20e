//! Middleware: `Authorization: Bearer KEY` where keys are set, or `api-key: KEY` and `x-api-key: KEY` as clients of
//! Azure and of gateways send it. A bearer token counts before the other two, and `api-key` before `x-api-key`.
//!
//! Whatever is wrong with a key, the answer is the same; it takes longer the more of them an address sends
//! ([`failed_keys`](super::failed_keys)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::client::Client;
use super::gate::Gate;
use crate::api::error::ApiError;
use crate::metrics::RefusalReason;

const API_KEY: HeaderName = HeaderName::from_static("api-key");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Lets a request pass that needs no key or has one, and notes whose it is.
pub(in crate::api) async fn check(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let access = &gate.access;
    let client = if access.keys.is_empty() || !access.is_protected(request.uri().path()) {
        Client::of_connection(&request)
    } else {
        match owner(&gate, &request) {
            Ok(key) => {
                tracing::Span::current().record("client", access.keys.name(key));
                Client::Key(key)
            }
            Err((error, wait)) => {
                tokio::time::sleep(wait).await;
                return error.into_response();
            }
        }
    };
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// Whose key it is, by its place in the list; the error is told after a while.
fn owner(gate: &Gate, request: &Request) -> Result<usize, (ApiError, Duration)> {
    let refused = |reason, error, wait| {
        gate.state.metrics.request_refused(reason);
        Err((error, wait))
    };
    // Who sends none guesses none.
    let Some(presented) = presented(request.headers()) else {
        return refused(RefusalReason::InvalidApiKey, ApiError::InvalidApiKey, Duration::ZERO);
    };
    let found = gate.access.keys.find(presented);
    let (failed, address, now) = (&gate.failed_keys, Client::of_connection(request), Instant::now());
    if let Err(retry_after) = failed.check(address, now)
        && !found.is_some_and(|key| failed.knows(address, key))
    {
        let error = ApiError::TooManyFailedKeys { retry_after };
        return refused(RefusalReason::TooManyFailedKeys, error, Duration::ZERO);
    }
    match found {
        Some(key) => {
            failed.right(address, key);
            Ok(key)
        }
        None => refused(RefusalReason::InvalidApiKey, ApiError::InvalidApiKey, failed.wrong(address, now)),
    }
}

/// The key a request comes with. A header that is sent twice gives none, and those after it are ignored.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    for name in [AUTHORIZATION, API_KEY, X_API_KEY] {
        let mut values = headers.get_all(&name).iter();
        let Some(value) = values.next() else { continue };
        // A proxy might have checked the other one of the two.
        if values.next().is_some() {
            return None;
        }
        let token = if name == AUTHORIZATION { bearer(value.as_bytes()) } else { Some(value.as_bytes().trim_ascii()) };
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            return Some(token);
        }
    }
    None
}

/// The token of an `Authorization` header of that scheme; another scheme is meant for a proxy before this server.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
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
        presented(&headers).map(|token| String::from_utf8(token.to_vec()).unwrap())
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
    fn other_headers_bring_a_key_where_no_bearer_does() {
        let token = |headers: &[(&'static str, &'static str)]| {
            let named =
                headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let mut map = HeaderMap::new();
            named.for_each(|(name, value)| {
                map.append(name, value);
            });
            presented(&map).map(|token| String::from_utf8(token.to_vec()).unwrap())
        };
        for (headers, key) in [
            (&[("api-key", " sk-1 ")][..], Some("sk-1")),
            (&[("x-api-key", "sk-1")], Some("sk-1")),
            (&[("x-api-key", "sk-1"), ("api-key", "sk-2")], Some("sk-2")),
            (&[("x-api-key", "sk-1"), ("authorization", "Bearer sk-2")], Some("sk-2")),
            (&[("x-api-key", "sk-1"), ("authorization", "Basic c2stMg==")], Some("sk-1")),
            (&[("api-key", "sk-1"), ("authorization", "Bearer ")], Some("sk-1")),
            (&[("api-key", "sk-1"), ("api-key", "sk-1")], None),
            (&[("api-key", "sk-1"), ("authorization", "Bearer a"), ("authorization", "Bearer b")], None),
            (&[("api-key", "")], None),
        ] {
            assert_eq!(token(headers).as_deref(), key, "{headers:?}");
        }
    }
}
