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
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::response::{IntoResponse, Response};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error::ApiError;
use super::generation_record::GenerationRecord;
use super::generation_request::{Delivery, GenerationRequest};
use super::output::{Output, StoredOutput};
use super::public_url::PublicUrl;
use super::state::AppState;
use super::{blocking, body, generation_response, generation_stream};
use crate::image_file::ImageMetadata;
use crate::metrics::InFlight;

/// A job the engine has accepted.
pub(super) struct Accepted {
    pub(super) state: Arc<AppState>,
    pub(super) ticket: Ticket,
    pub(super) arrived: Instant,
    /// Of the first image.
    pub(super) seed: u64,
    pub(super) output: Output,
    /// Held until the answer is made.
    pub(super) guards: (TaskTrackerToken, InFlight),
}

/// A request that passed every check.
struct Planned {
    job: Job,
    seed: u64,
    output: Output,
    delivery: Delivery,
}

/// Makes pictures and counts the request, also one whose client does not stay for the answer.
pub(super) async fn create(
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut record = GenerationRecord::new(state.metrics.generation_begins());
    let answer = match accept(&state, &headers, body).await {
        Ok((accepted, Delivery::Stream(options))) => {
            return Ok(generation_stream::respond(accepted, options, record));
        }
        Ok((accepted, Delivery::Whole)) => whole(accepted, &mut record).await,
        Err(error) => Err(error),
    };
    record.ends(answer.as_ref());
    answer
}

async fn accept(state: &Arc<AppState>, headers: &HeaderMap, body: Body) -> Result<(Accepted, Delivery), ApiError> {
    let arrived = Instant::now();
    let engine = state.engine()?;
    let bytes = body::read(body, state.settings.max_body_bytes, state.settings.body_timeout).await?;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let Planned { job, seed, output, delivery } = plan(state, &engine, bytes, host).await?;
    // Taken before the job is submitted, so that a server that ends never overlooks an accepted job.
    let unanswered = state.generation_accepted();
    let ticket = engine.submit(job)?;
    let guards = (unanswered, state.metrics.job_accepted());
    Ok((Accepted { state: Arc::clone(state), ticket, arrived, seed, output, guards }, delivery))
}

async fn whole(accepted: Accepted, record: &mut GenerationRecord) -> Result<Response, ApiError> {
    let Accepted { state, ticket, arrived, output, guards: _guards, .. } = accepted;
    let job = ticket.finished().await?;
    state.count_job(&job);
    record.has_job(&job);
    let body = blocking::run(move || generation_response::body(&job, &output, arrived)).await??;
    state.metrics.generation_answered(arrived.elapsed());
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

async fn plan(
    state: &Arc<AppState>,
    engine: &Engine,
    bytes: Vec<u8>,
    host: Option<String>,
) -> Result<Planned, ApiError> {
    let (state, engine) = (Arc::clone(state), engine.clone());
    let plan = move || {
        let GenerationRequest { mut image, output, delivery } = state.rules(&engine).parse(&body::parse(&bytes)?)?;
        if image.num_inference_steps.is_none() {
            image.num_inference_steps = output.quality.steps(engine.model().default_steps);
        }
        tracing::debug!(prompt = image.prompt, negative_prompt = image.negative_prompt, seed = image.seed, "asked for");
        let (seed, prompt, negative_prompt) = (image.seed, image.prompt.clone(), image.negative_prompt.clone());
        let job = engine.plan(image)?;
        let metadata = state.settings.image_metadata.then(|| {
            let model = state.served_model(&engine).to_owned();
            ImageMetadata { prompt, negative_prompt, ..ImageMetadata::of_job(model, &job) }
        });
        let store = if output.is_stored { Some(stored_output(&state, host.as_deref())?) } else { None };
        let output = Output { options: output, metadata, store };
        let job = match delivery {
            Delivery::Whole => job,
            Delivery::Stream(options) => job.with_previews(options.previews),
        };
        Ok(Planned { job, seed, output, delivery })
    };
    blocking::run(plan).await?
}

/// The store, and its address as this client knows it.
fn stored_output(state: &AppState, host: Option<&str>) -> Result<StoredOutput, ApiError> {
    let Some(store) = state.settings.store.clone() else {
        return Err(ApiError::Internal("a request for URLs passed although there is no store".to_owned()));
    };
    let own = state.settings.public_url.clone();
    let Some(url) = own.or_else(|| host.and_then(PublicUrl::of_host)) else {
        let message = "`response_format` is \"url\", which takes a Host header that is an address, or a server \
                       with --public-url";
        return Err(ApiError::invalid_value("response_format", message));
    };
    Ok(StoredOutput { store, base_url: url.as_str().to_owned() })
}
