//! `POST /v1/images/generations`.
//!
//! The handler only waits: reading the fields, planning and encoding run on blocking threads, the
//! picture itself on the engine's worker. A client that goes away drops the handler and with it the
//! ticket, which cancels the job at its next step.

use std::sync::Arc;
use std::time::Instant;

use afterimage_runner::{Engine, Job};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::state::AppState;
use super::{body, generation_response};
use crate::metrics::Outcome;

/// Makes pictures and counts the request, also one whose client does not stay for the answer.
pub(super) async fn create(State(state): State<Arc<AppState>>, body: Body) -> Result<Response, ApiError> {
    let record = state.metrics.generation_begins();
    let answer = answer(&state, body).await;
    record.ends(match &answer {
        Ok(_) => Outcome::Ok,
        Err(error) => Outcome::of_status(error.status()),
    });
    answer
}

async fn answer(state: &Arc<AppState>, body: Body) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let engine = state.engine()?;
    let bytes = body::read(body, state.settings.max_body_bytes).await?;
    let job = plan(state, &engine, bytes).await?;
    // Taken before the job is submitted, so that a server that ends never overlooks an accepted job.
    let _unanswered = state.generation_accepted();
    let ticket = engine.submit(job)?;
    let _in_flight = state.metrics.job_accepted();
    let job = ticket.finished().await?;
    state.metrics.job_finished(&job);
    if state.cache_warnings.check(&job.cache) {
        state.metrics.cache_never_engaged(&job.cache);
    }
    let body = tokio::task::spawn_blocking(move || generation_response::body(&job, arrived)).await??;
    state.metrics.generation_answered(arrived.elapsed());
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

async fn plan(state: &Arc<AppState>, engine: &Engine, bytes: Vec<u8>) -> Result<Job, ApiError> {
    let (state, engine) = (Arc::clone(state), engine.clone());
    let plan = move || {
        let request = state.rules(&engine).parse(&body::parse(&bytes)?)?;
        Ok(engine.plan(request)?)
    };
    tokio::task::spawn_blocking(plan).await?
}
