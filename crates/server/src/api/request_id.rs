//! Every response carries `x-request-id`: the client's own if it sent a usable one, else a new one.
//!
//! The id is also a field of the span that everything logged about the request belongs to.

use axum::extract::{MatchedPath, Request};
use axum::http::HeaderValue;
use axum::http::header::HeaderName;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use super::trace_id;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids of clients are replaced.
const MAX_ID_BYTES: usize = 128;

/// Middleware: finds or makes the id, runs the request inside its span and answers with the id.
pub(super) async fn attach(request: Request, next: Next) -> Response {
    let id = request.headers().get(X_REQUEST_ID).filter(|id| is_usable(id)).cloned().unwrap_or_else(new_id);
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    // The route, not the path: the id of a stored picture is a secret. Of the level of errors, because
    // a filter that drops the span drops the id from every line in it.
    let span = tracing::error_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        route,
        // Where it belongs to a trace.
        trace_id = tracing::field::Empty,
        // The name of its key.
        client = tracing::field::Empty
    );
    trace_id::join(&span, request.headers());
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}

/// Printable and short, so that it can stand in a log line.
fn is_usable(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn new_id() -> HeaderValue {
    HeaderValue::try_from(Uuid::now_v7().to_string()).expect("a uuid is hexadecimal digits and hyphens")
}
