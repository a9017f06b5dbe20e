//! Headers that keep browsers from making more of an answer than it is.
//!
//! Every answer gets them unless its handler has chosen its own, as pages do.

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use tower_http::set_header::SetResponseHeaderLayer;

type HeaderLayer = SetResponseHeaderLayer<HeaderValue>;

/// Adds what is missing.
pub(super) fn layer() -> (HeaderLayer, HeaderLayer, HeaderLayer) {
    (
        missing(X_CONTENT_TYPE_OPTIONS, "nosniff"),
        missing(REFERRER_POLICY, "no-referrer"),
        // JSON, metrics and pictures load nothing and belong in no frame.
        missing(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    )
}

fn missing(name: HeaderName, value: &'static str) -> HeaderLayer {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}
