//! `POST /v1/images/generations`.
//!
//! The handler only waits and reads the fields of small bodies: large bodies, planning and encoding are
//! for blocking threads, the picture itself is for the engine's worker. A client that goes away drops
//! the handler and with it the ticket, which cancels the job at its next step. An accepted job that is
//! to be streamed goes on in [`generation_stream`]; what is wrong before that is a plain answer, streamed
//! or not.

use std::sync::Arc;
use std::time::Instant;

use afterimage_runner::{Engine, Job, Ticket};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error::ApiError;
use super::generation_request::{Delivery, GenerationRequest, RequestRules};
use super::rate_limit::Admitted;
use super::state::AppState;
use super::{body, generation_response, generation_stream};
use crate::metrics::{InFlight, Outcome};

/// Bodies up to this size are read where they arrive, which takes some 20 us. Handing them to another
/// thread and back takes longer: twice a thread has to wait for a core that the worker keeps busy.
const SMALL_BODY_BYTES: usize = 2048;

/// A job the engine has accepted.
pub(super) struct Accepted {
    pub(super) state: Arc<AppState>,
    pub(super) ticket: Ticket,
    pub(super) arrived: Instant,
    /// Of the first image.
    pub(super) seed: u64,
    /// Held until the answer is made.
    pub(super) guards: (TaskTrackerToken, InFlight, Admitted),
}

/// A request that passed every check.
pub(super) struct Planned<D> {
    job: Job,
    seed: u64,
    arrived: Instant,
    delivery: D,
}

/// How the fields of a request are read.
pub(super) type Parse<D> = fn(&RequestRules<'_>, &Map<String, Value>) -> Result<GenerationRequest<D>, ApiError>;

/// Makes pictures and counts the request, also one whose client does not stay for the answer.
pub(super) async fn create(
    State(state): State<Arc<AppState>>,
    Extension(admitted): Extension<Admitted>,
    body: Body,
) -> Result<Response, ApiError> {
    let record = state.metrics.generation_begins();
    let answer = match accept(&state, admitted, body).await {
        Ok((accepted, Delivery::Stream { progress })) => {
            return Ok(generation_stream::respond(accepted, progress, record));
        }
        Ok((accepted, Delivery::Whole)) => whole(accepted).await,
        Err(error) => Err(error),
    };
    record.ends(answer.as_ref().map_or_else(ApiError::outcome, |_| Outcome::Ok));
    answer
}

async fn accept(state: &Arc<AppState>, admitted: Admitted, body: Body) -> Result<(Accepted, Delivery), ApiError> {
    let engine = state.engine()?;
    let planned = plan(state, &engine, body, |rules, keys| rules.parse(keys)).await?;
    let delivery = planned.delivery;
    Ok((submit(state, &engine, planned, admitted)?, delivery))
}

async fn whole(accepted: Accepted) -> Result<Response, ApiError> {
    let Accepted { state, ticket, arrived, guards: _guards, .. } = accepted;
    let job = ticket.finished().await?;
    state.count_job(&job);
    let body = tokio::task::spawn_blocking(move || generation_response::body(&job, arrived)).await??;
    state.metrics.generation_answered(arrived.elapsed());
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Reads and checks a request.
pub(super) async fn plan<D: Send + 'static>(
    state: &Arc<AppState>,
    engine: &Engine,
    body: Body,
    parse: Parse<D>,
) -> Result<Planned<D>, ApiError> {
    let arrived = Instant::now();
    let bytes = body::read(body, state.settings.max_body_bytes, state.settings.body_timeout).await?;
    let (state, engine) = (Arc::clone(state), engine.clone());
    let read = move |rules: &RequestRules<'_>, bytes: &[u8]| parse(rules, &body::parse(bytes)?);
    let small = if bytes.len() <= SMALL_BODY_BYTES { Some(read(&state.rules(&engine), &bytes)?) } else { None };
    let plan = move || {
        let request = small.map_or_else(|| read(&state.rules(&engine), &bytes), Ok)?;
        let GenerationRequest { image, previews, delivery } = request;
        let seed = image.seed;
        let job = engine.plan(image)?.with_previews(previews);
        Ok(Planned { job, seed, arrived, delivery })
    };
    tokio::task::spawn_blocking(plan).await?
}

/// Hands a request to the engine.
pub(super) fn submit<D>(
    state: &Arc<AppState>,
    engine: &Engine,
    planned: Planned<D>,
    admitted: Admitted,
) -> Result<Accepted, ApiError> {
    let Planned { job, seed, arrived, .. } = planned;
    // Taken before the job is submitted, so that a server that ends never overlooks an accepted job.
    let unanswered = state.generation_accepted();
    let ticket = engine.submit(job)?;
    let guards = (unanswered, state.metrics.job_accepted(), admitted);
    Ok(Accepted { state: Arc::clone(state), ticket, arrived, seed, guards })
}
