//! Middleware: how often one client may ask, and how much at a time.
//!
//! What is counted first is requests that ask for work: `POST` below `/v1/`. Reading what there is and cancelling are free, so
//! that a client with jobs can watch them. But no client may have too many answers of any kind on their way to it; only
//! those to probes and to Prometheus are never refused.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::client::Client;
use super::client_limits::{Place, Refusal};
use super::gate::Gate;
use crate::api::error::ApiError;
use crate::clock::seconds;
use crate::connections::receipt;
use crate::metrics::RefusalReason;

/// Held until the answer is delivered by what works on the request, which may be a task that outlives the handler.
#[derive(Clone, Default)]
pub(in crate::api) struct Admitted {
    _place: Option<Arc<Place>>,
}

/// Lets a request pass that is within its client's bounds.
pub(in crate::api) async fn check(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == "/metrics" || path.starts_with("/health") {
        return next.run(request).await;
    }
    let client = request.extensions().get::<Client>().copied().unwrap_or(Client::Unknown);
    let open = match gate.open_requests.open(client) {
        Ok(open) => open,
        Err(max_open) => {
            gate.state.metrics.request_refused(RefusalReason::TooManyOpen);
            return ApiError::TooManyOpen { max_open }.into_response();
        }
    };
    if request.method() == Method::POST && path.starts_with("/v1/") {
        match gate.client_limits.admit(client, Instant::now()) {
            Ok(place) => request.extensions_mut().insert(Admitted { _place: place }),
            Err(refusal) => return refuse(&gate, client, refusal).into_response(),
        };
    }
    let mut response = next.run(request).await;
    receipt::hold(&mut response, open);
    response
}

fn refuse(gate: &Gate, client: Client, refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Rate { retry_after, per_minute } => {
            gate.state.metrics.request_refused(RefusalReason::RateLimited);
            ApiError::RateLimited { retry_after, per_minute }
        }
        Refusal::Concurrency { max_concurrent } => {
            gate.state.metrics.request_refused(RefusalReason::TooManyConcurrent);
            let wait = gate.state.engine().map_or(0.0, |engine| engine.seconds_to_first_of(client.owner()));
            let retry_after = seconds(wait);
            ApiError::TooManyConcurrent { retry_after, max_concurrent }
        }
    }
}
