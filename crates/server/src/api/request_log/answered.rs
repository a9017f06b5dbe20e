//! One line for every answer: how long it took, with which status.
//!
//! What a client does not take of its answer is noted when it is given up.
//!
//! Pages, probes and metrics are read often and say little: only answers below `/v1/` are logged at the default level.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Span;

use crate::api::state::AppState;
use crate::connections::receipt;

/// Requests to paths that do not exist share one label.
const UNMATCHED: &str = "unmatched";

/// Marks an answer that the log has a line for already, with more to say.
#[derive(Clone, Copy)]
pub(in crate::api) struct OwnLine;

/// Middleware: the latency of every request by route and status, and a line in the log.
pub(in crate::api) async fn observe(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let mut response = next.run(request).await;
    let seconds = started.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    state.metrics.http_request(route, status, seconds);
    // What is refused on its way to its handler (keys, limits, pages) has no other line.
    if route.starts_with("/v1/") && response.extensions().get::<OwnLine>().is_none() {
        tracing::info!(status, seconds, "answered");
    } else {
        tracing::debug!(status, seconds, "answered");
    }
    let underway = Underway { state, span: Span::current(), status, started, is_delivered: false };
    receipt::on_delivery(&mut response, move || underway.ends());
    response
}

/// An answer on its way. If it is dropped there, its client has left or was no longer waited for.
struct Underway {
    state: Arc<AppState>,
    span: Span,
    status: u16,
    started: Instant,
    is_delivered: bool,
}

impl Underway {
    fn ends(mut self) {
        self.is_delivered = true;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.is_delivered {
            return;
        }
        self.state.metrics.answer_undelivered();
        let (status, seconds) = (self.status, self.started.elapsed().as_secs_f64());
        self.span.in_scope(|| tracing::info!(status, seconds, "an answer was not taken"));
    }
}
