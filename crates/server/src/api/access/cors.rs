//! Which web pages of other origins may use the API from a browser.

use std::str::FromStr;
use std::time::Duration;

use axum::http::header::{HeaderName, LOCATION, RETRY_AFTER};
use axum::http::{HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::api::answer::picture_file::PICTURE_HEADERS;
use crate::api::error::answer::X_SHOULD_RETRY;
use crate::api::request_log::request_id::X_REQUEST_ID;

/// How long a browser may remember the answer to a preflight.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// One entry of the allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AllowedOrigin {
    /// Every page. Keys still protect the API: a page has none unless somebody gives it one.
    Any,
    /// One origin, as browsers write it.
    Origin(HeaderValue),
}

impl AllowedOrigin {
    /// `None` is every origin.
    pub(super) fn one(self) -> Option<HeaderValue> {
        match self {
            Self::Any => None,
            Self::Origin(origin) => Some(origin),
        }
    }
}

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let wanted = "an origin is `*` or SCHEME://HOST[:PORT] in lower case and without a path, such as \
                      https://app.example.com";
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_host = |host: &str| {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte);
            !host.is_empty() && host.bytes().all(allowed)
        };
        // Browsers leave the scheme's own port out.
        let port = if text.starts_with("https") { ":443" } else { ":80" };
        let origin = text.strip_suffix(port).unwrap_or(text);
        let origin = host.filter(|host| is_host(host)).and_then(|_| HeaderValue::from_str(origin).ok());
        origin.map(Self::Origin).ok_or_else(|| wanted.to_owned())
    }
}

/// Answers preflights and marks answers for the allowed origins. `None` without any: no answer has such a header.
pub(in crate::api) fn layer(allowed: &[AllowedOrigin]) -> Option<CorsLayer> {
    if allowed.is_empty() {
        return None;
    }
    // A single `*` makes it `None`: every origin is allowed then, whatever else is listed.
    let origins: Option<Vec<HeaderValue>> = allowed.iter().cloned().map(AllowedOrigin::one).collect();
    // Without being named here a header of an answer is hidden from scripts of other origins.
    let exposed = [X_REQUEST_ID, RETRY_AFTER, X_SHOULD_RETRY, LOCATION].into_iter().chain(PICTURE_HEADERS);
    Some(
        CorsLayer::new()
            .allow_origin(origins.map_or_else(AllowOrigin::any, AllowOrigin::list))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            // OpenAI's client sends more than a dozen of its own.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(exposed.collect::<Vec<HeaderName>>())
            .max_age(PREFLIGHT_MAX_AGE),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send() {
        assert_eq!("*".parse(), Ok(AllowedOrigin::Any));
        for origin in ["https://app.example.com", "http://localhost:3000", "http://[::1]:8000"] {
            assert!(matches!(origin.parse(), Ok(AllowedOrigin::Origin(value)) if value == origin), "{origin}");
        }
        let with_ports = ["https://app.example.com:443", "http://a.b:80", "http://a.b:443"];
        let origins = with_ports.map(|origin| origin.parse().map(AllowedOrigin::one).unwrap().unwrap());
        assert_eq!(origins, ["https://app.example.com", "http://a.b", "http://a.b:443"]);
        for text in ["", "null", "example.com", "https://", "https://a.b/", "https://A.b", "ftp://a.b", "https://*.a.b"]
        {
            assert!(text.parse::<AllowedOrigin>().is_err(), "{text:?}");
        }
    }
}
