//! `POST /v1/images/generations`.
//!
//! The handler only waits: reading the fields, planning and encoding run on blocking threads, the
//! picture itself on the engine's worker. A client that goes away drops the handler and with it the
//! ticket, which cancels the job at its next step. An accepted job that is to be streamed goes on in
//! [`generation_stream`]; what is wrong before that is a plain answer, streamed or not.

use std::sync::Arc;
use std::time::Instant;

use afterimage_runner::{Engine, Job, Ticket};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error::ApiError;
use super::generation_request::Delivery;
use super::state::AppState;
use super::{body, generation_response, generation_stream};
use crate::metrics::{InFlight, Outcome};

/// A job the engine has accepted.
pub(super) struct Accepted {
    pub(super) state: Arc<AppState>,
    pub(super) ticket: Ticket,
    pub(super) arrived: Instant,
    /// Of the first image.
    pub(super) seed: u64,
    /// Held until the answer is made.
    pub(super) guards: (TaskTrackerToken, InFlight),
}

/// A request that passed every check.
struct Planned {
    job: Job,
    seed: u64,
    delivery: Delivery,
}

/// Makes pictures and counts the request, also one whose client does not stay for the answer.
pub(super) async fn create(State(state): State<Arc<AppState>>, body: Body) -> Result<Response, ApiError> {
    let record = state.metrics.generation_begins();
    let answer = match accept(&state, body).await {
        Ok((accepted, Delivery::Stream(options))) => {
            return Ok(generation_stream::respond(accepted, options, record));
        }
        Ok((accepted, Delivery::Whole)) => whole(accepted).await,
        Err(error) => Err(error),
    };
    record.ends(answer.as_ref().map_or_else(ApiError::outcome, |_| Outcome::Ok));
    answer
}

async fn accept(state: &Arc<AppState>, body: Body) -> Result<(Accepted, Delivery), ApiError> {
    let arrived = Instant::now();
    let engine = state.engine()?;
    let bytes = body::read(body, state.settings.max_body_bytes, state.settings.body_timeout).await?;
    let Planned { job, seed, delivery } = plan(state, &engine, bytes).await?;
    // Taken before the job is submitted, so that a server that ends never overlooks an accepted job.
    let unanswered = state.generation_accepted();
    let ticket = engine.submit(job)?;
    let guards = (unanswered, state.metrics.job_accepted());
    Ok((Accepted { state: Arc::clone(state), ticket, arrived, seed, guards }, delivery))
}

async fn whole(accepted: Accepted) -> Result<Response, ApiError> {
    let Accepted { state, ticket, arrived, guards: _guards, .. } = accepted;
    let job = ticket.finished().await?;
    state.count_job(&job);
    let body = tokio::task::spawn_blocking(move || generation_response::body(&job, arrived)).await??;
    state.metrics.generation_answered(arrived.elapsed());
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

async fn plan(state: &Arc<AppState>, engine: &Engine, bytes: Vec<u8>) -> Result<Planned, ApiError> {
    let (state, engine) = (Arc::clone(state), engine.clone());
    let plan = move || {
        let request = state.rules(&engine).parse(&body::parse(&bytes)?)?;
        let (seed, delivery) = (request.image.seed, request.delivery);
        let job = engine.plan(request.image)?;
        let job = match delivery {
            Delivery::Whole => job,
            Delivery::Stream(options) => job.with_previews(options.previews),
        };
        Ok(Planned { job, seed, delivery })
    };
    tokio::task::spawn_blocking(plan).await?
}
