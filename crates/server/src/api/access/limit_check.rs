//! Middleware: how often one client may ask, and how much at a time.
//!
//! What is counted is requests that ask for work: `POST` below `/v1/`. Reading what there is and
//! cancelling are free, so that a client with jobs can watch them.

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
use crate::metrics::RefusalReason;

/// Held until the answer is made by what works on the request, which may be a task that outlives the handler.
#[derive(Clone, Default)]
pub(in crate::api) struct Admitted {
    _place: Option<Arc<Place>>,
}

/// Lets a request pass that is within its client's bounds.
pub(in crate::api) async fn check(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    if request.method() == Method::POST && request.uri().path().starts_with("/v1/") {
        let client = request.extensions().get::<Client>().copied().unwrap_or(Client::Unknown);
        match gate.client_limits.admit(client, Instant::now()) {
            Ok(place) => request.extensions_mut().insert(Admitted { _place: place }),
            Err(refusal) => return refuse(&gate, client, refusal).into_response(),
        };
    }
    next.run(request).await
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
