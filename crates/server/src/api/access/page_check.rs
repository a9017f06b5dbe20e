//! Middleware: other people's web pages do not get at a server through the browser of somebody who can reach it.
//!
//! A page may make its visitor's browser send anything anywhere, but the browser says where that comes from:
//! `Sec-Fetch-Site` and `Origin` name the page's side, `Host` the name that it used for this one. So
//!
//! * a request has one host (RFC 9112, 3.2), or proxies and this server could mean different ones,
//! * what changes something is refused if a page of another origin sends it, unless `--allowed-origins` has that origin,
//! * a server without keys that only this machine reaches answers under the names of this machine alone: any other could
//!   be a page's own, made to lead here (DNS rebinding), and then the page would be of the same origin.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::gate::Gate;
use crate::api::error::ApiError;
use crate::metrics::RefusalReason;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets a request pass that no other page may have sent.
pub(in crate::api) async fn check(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match refusal(&gate, &request) {
        None => next.run(request).await,
        Some(error) => {
            let reason = match error {
                ApiError::ForeignHost { .. } => Some(RefusalReason::ForeignHost),
                ApiError::ForeignOrigin { .. } => Some(RefusalReason::ForeignOrigin),
                _ => None,
            };
            if let Some(reason) = reason {
                gate.state.metrics.request_refused(reason);
            }
            error.into_response()
        }
    }
}

fn refusal(gate: &Gate, request: &Request) -> Option<ApiError> {
    let host = match host(request) {
        Ok(host) => host,
        Err(found) => return Some(ApiError::InvalidHost { found }),
    };
    // It asks what it might do, and learns nothing else.
    if request.method() == Method::OPTIONS {
        return None;
    }
    if host.is_some_and(|host| !gate.hosts.has(host, request.headers())) {
        return Some(ApiError::ForeignHost { host: shown(host.unwrap_or_default()) });
    }
    let changes_nothing = [Method::GET, Method::HEAD].contains(request.method());
    if changes_nothing || gate.origins.may_ask(request.headers(), host) {
        return None;
    }
    let origin = request.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok());
    Some(ApiError::ForeignOrigin { origin: shown(origin.unwrap_or("unknown")) })
}

/// The host that a request is for, in HTTP/2 from its target; HTTP/1.0 need not have one. The error is how many
/// there are.
fn host(request: &Request) -> Result<Option<&str>, usize> {
    let mut headers = request.headers().get_all(HOST).iter();
    let (header, more) = (headers.next(), headers.count());
    let header = header.map(|host| host.to_str().unwrap_or_default());
    let target = request.uri().authority().map(Authority::as_str);
    match (header, target) {
        (Some(_), _) if more > 0 => Err(1 + more),
        (Some(header), Some(target)) if !header.eq_ignore_ascii_case(target) => Err(2),
        (Some(host), _) => Ok(Some(host)),
        (None, Some(host)) if request.version() == Version::HTTP_2 => Ok(Some(host)),
        (None, None) if request.version() < Version::HTTP_11 => Ok(None),
        (None, _) => Err(0),
    }
}

/// A client's text as an error quotes it.
fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    text.chars().take(MAX_CHARS).collect()
}

/// Whose pages may send what changes something.
pub(super) struct Origins {
    /// Beside the page's that the request itself is for; `None` is every page.
    pub(super) allowed: Option<Vec<HeaderValue>>,
}

impl Origins {
    fn may_ask(&self, headers: &HeaderMap, host: Option<&str>) -> bool {
        let Some(allowed) = &self.allowed else { return true };
        let mut origins = headers.get_all(ORIGIN).iter();
        let (origin, is_one) = (origins.next(), origins.next().is_none());
        if is_one && origin.is_some_and(|origin| allowed.contains(origin)) {
            return true;
        }
        match headers.get(&SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
            // A page cannot set it. `none` is the person at the browser.
            Some(site) => site == b"same-origin" || site == b"none",
            // A browser says it only to servers whose connection it trusts, but has an origin for every such request.
            None => is_one && origin.is_none_or(|origin| is_of_host(origin, host)),
        }
    }
}

/// Whether an origin is this host, with or without the port that need not be said. The scheme may be that of a proxy.
fn is_of_host(origin: &HeaderValue, host: Option<&str>) -> bool {
    let named = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let (Some((scheme, authority)), Some(host)) = (named, host) else { return false };
    let with_port = format!("{authority}:{}", if scheme == "https" { 443 } else { 80 });
    host.eq_ignore_ascii_case(authority) || host.eq_ignore_ascii_case(&with_port)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const HOSTED: &str = "127.0.0.1:8080";
    const ALLOWED: &str = "https://app.example.com";

    fn found(version: Version, target: &str, hosts: &[&str]) -> Result<Option<String>, usize> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        host(&request.body(Body::empty()).unwrap()).map(|host| host.map(str::to_owned))
    }

    #[test]
    fn a_request_has_one_host() {
        let (old, one, two) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for (version, target, hosts, expected) in [
            (one, "/", &["a:1"][..], Ok(Some("a:1"))),
            (one, "/", &[], Err(0)),
            (one, "/", &["a", "a"], Err(2)),
            (one, "/", &["a", "b", "c"], Err(3)),
            (one, "http://a/x", &["A"], Ok(Some("A"))),
            (one, "http://a/x", &["b"], Err(2)),
            (one, "http://a/x", &[], Err(0)),
            (old, "/", &[], Ok(None)),
            (old, "/", &["a", "b"], Err(2)),
            (two, "http://a/x", &[], Ok(Some("a"))),
            (two, "http://a/x", &["a"], Ok(Some("a"))),
            (two, "http://a/x", &["b"], Err(2)),
            (two, "/x", &[], Err(0)),
        ] {
            assert_eq!(
                found(version, target, hosts),
                expected.map(|host| host.map(str::to_owned)),
                "{target} {hosts:?}"
            );
        }
    }

    fn may_ask(origins: &Origins, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        origins.may_ask(&map, Some(HOSTED))
    }

    #[test]
    fn pages_of_other_origins_change_nothing_unless_allowed() {
        let origins = Origins { allowed: Some(vec![HeaderValue::from_static(ALLOWED)]) };
        let (origin, site) = ("origin", "sec-fetch-site");
        for headers in [
            &[][..],
            &[(origin, "http://127.0.0.1:8080")],
            &[(origin, "https://127.0.0.1:8080")],
            &[(site, "same-origin"), (origin, "https://shown.by.a.proxy")],
            &[(site, "none")],
            &[(origin, ALLOWED)],
            &[(site, "cross-site"), (origin, ALLOWED)],
        ] {
            assert!(may_ask(&origins, headers), "{headers:?}");
        }
        for headers in [
            &[(origin, "https://evil.example")][..],
            &[(origin, "http://127.0.0.1:9")],
            &[(origin, "http://127.0.0.1")],
            &[(origin, "null")],
            &[(origin, "")],
            &[(site, "cross-site")],
            &[(site, "same-site"), (origin, "http://127.0.0.1:9")],
            &[(site, "whatever"), (origin, "http://127.0.0.1:8080")],
            &[(origin, ALLOWED), (origin, "https://evil.example")],
            &[(origin, "https://evil.example"), (origin, ALLOWED)],
        ] {
            assert!(!may_ask(&origins, headers), "{headers:?}");
            assert!(may_ask(&Origins { allowed: None }, headers), "{headers:?}");
        }
        let default_port = HeaderValue::from_static("https://images.example.com");
        assert!(is_of_host(&default_port, Some("images.example.com:443")));
        assert!(!is_of_host(&default_port, Some("images.example.com:80")) && !is_of_host(&default_port, None));
    }
}
