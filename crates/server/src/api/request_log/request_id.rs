//! Every response carries `x-request-id`: the client's own if it sent a usable one, else a new one.
//!
//! tower-http keeps whatever id a request comes with, so one that could not stand in a log line is taken away
//! before. The id is also a field of the span that everything logged about the request belongs to.

use axum::extract::{MatchedPath, Request};
use axum::http::HeaderValue;
use axum::http::header::HeaderName;
use axum::middleware::Next;
use axum::response::Response;
use tower_http::request_id::{MakeRequestId, RequestId};
use tracing::Instrument;
use uuid::Uuid;

use super::trace_id;
use crate::request::quoted;

pub(in crate::api) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids of clients are replaced.
const MAX_ID_BYTES: usize = 128;

/// Ids that sort by time.
#[derive(Clone, Copy)]
pub(in crate::api) struct NewId;

impl MakeRequestId for NewId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::try_from(Uuid::now_v7().to_string()).ok().map(RequestId::new)
    }
}

/// Takes away an id that is not one, or one of two.
pub(in crate::api) fn drop_unusable(mut request: Request) -> Request {
    let mut ids = request.headers().get_all(X_REQUEST_ID).iter();
    let is_good = ids.next().is_some_and(is_usable) && ids.next().is_none();
    if !is_good {
        request.headers_mut().remove(X_REQUEST_ID);
    }
    request
}

/// Middleware: runs the request inside its span.
pub(in crate::api) async fn trace(request: Request, next: Next) -> Response {
    let id = request.headers().get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    // The route, not the path: the id of a stored picture is a secret. Of the level of errors, because
    // a filter that drops the span drops the id from every line in it.
    let span = tracing::error_span!(
        "request",
        id,
        method = quoted(request.method().as_str()),
        route,
        // Where it belongs to a trace.
        trace_id = tracing::field::Empty,
        // The name of its key.
        client = tracing::field::Empty
    );
    trace_id::join(&span, request.headers());
    next.run(request).instrument(span).await
}

/// Printable and short, so that it can stand in a log line.
fn is_usable(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}
