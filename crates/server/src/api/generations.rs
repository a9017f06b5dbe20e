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
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::accept::Accept;
use super::error::ApiError;
use super::generation_events::ServerSentEvent;
use super::generation_record::GenerationRecord;
use super::generation_request::{Delivery, GenerationRequest, RequestRules};
use super::generation_response::GenerationResponse;
use super::openapi::{
    BadRequest, BodyTimedOut, BodyTooLarge, GenerationBody, ModelNotFound, ServerFault, TooManyRequests, Unavailable,
    UnsupportedBody,
};
use super::output::{Output, ResponseFormat, StoredOutput};
use super::public_url::PublicUrl;
use super::rate_limit::Admitted;
use super::state::AppState;
use super::{blocking, body, generation_response, generation_stream, output, picture_response};
use crate::image_file::ImageMetadata;
use crate::metrics::InFlight;

/// Bodies up to this size are read where they arrive, which is quick. Handing them to another
/// thread and back takes longer: twice a thread has to wait for a core that the worker keeps busy.
const SMALL_BODY_BYTES: usize = 2048;

/// A job the engine has accepted.
pub(super) struct Accepted {
    pub(super) state: Arc<AppState>,
    pub(super) ticket: Ticket,
    pub(super) arrived: Instant,
    /// Of the first image.
    pub(super) seed: u64,
    pub(super) output: Arc<Output>,
    /// Held until the answer is made.
    pub(super) guards: (TaskTrackerToken, InFlight, Admitted),
}

/// A request that passed every check.
pub(super) struct Planned<D> {
    job: Job,
    seed: u64,
    output: Output,
    arrived: Instant,
    delivery: D,
}

/// What comes before a request's body.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) uri: &'a Uri,
}

/// How the fields of a request are read.
pub(super) type Parse<D> = fn(&RequestRules<'_>, &Map<String, Value>) -> Result<GenerationRequest<D>, ApiError>;

/// Make pictures
///
/// Streamed if `stream` is true: server-sent events whose `data` is a `GenerationEvent`, and an event `error` with an
/// `ErrorBody` if the request fails later. An error before that is a plain response. A client that
/// leaves cancels its request at the next step.
///
/// `"response_format": "file"`, or a header such as `Accept: image/png`, is answered with the bytes of the single picture.
#[utoipa::path(
    post,
    path = "/v1/images/generations",
    operation_id = "createImage",
    tag = "images",
    request_body = GenerationBody,
    responses(
        (status = 200, description = "The pictures, the stream, or the picture itself, which has what there is to \
            say of it in headers: `x-afterimage-seed`, `x-afterimage-cache-hit-rate` and others", content(
            (GenerationResponse = "application/json"),
            (ServerSentEvent = "text/event-stream"),
            ("image/png"), ("image/jpeg"), ("image/webp")
        )),
        (status = 400, response = BadRequest),
        (status = 404, response = ModelNotFound),
        (status = 408, response = BodyTimedOut),
        (status = 413, response = BodyTooLarge),
        (status = 415, response = UnsupportedBody),
        (status = 429, response = TooManyRequests),
        (status = 500, response = ServerFault),
        (status = 503, response = Unavailable)
    )
)]
// Counts the request, also one whose client does not stay for the answer.
pub(super) async fn create(
    State(state): State<Arc<AppState>>,
    Extension(admitted): Extension<Admitted>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut record = GenerationRecord::new(state.metrics.generation_begins());
    let answer = match accept(&state, admitted, Head { headers: &headers, uri: &uri }, body).await {
        Ok((accepted, Delivery::Stream { progress })) => {
            return Ok(generation_stream::respond(accepted, progress, record));
        }
        Ok((accepted, Delivery::Whole)) => whole(accepted, &mut record).await,
        Err(error) => Err(error),
    };
    record.ends(answer.as_ref());
    answer
}

async fn accept(
    state: &Arc<AppState>,
    admitted: Admitted,
    head: Head<'_>,
    body: Body,
) -> Result<(Accepted, Delivery), ApiError> {
    let engine = state.engine()?;
    let accept = Accept::of(head.headers)?;
    let planned = plan(state, &engine, (head, accept), body, |rules, keys| rules.parse(keys)).await?;
    let delivery = planned.delivery;
    Ok((submit(state, &engine, planned, admitted)?, delivery))
}

async fn whole(accepted: Accepted, record: &mut GenerationRecord) -> Result<Response, ApiError> {
    let Accepted { state, ticket, arrived, output, guards: _guards, .. } = accepted;
    let job = ticket.finished().await?;
    state.count_job(&job);
    record.has_job(&job);
    let respond = move || match output.options.response_format {
        ResponseFormat::File => picture_response::respond(&job, &output, arrived),
        _ => {
            let body = generation_response::body(&job, &output, arrived)?;
            Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
        }
    };
    let response = blocking::run(respond).await??;
    state.metrics.generation_answered(arrived.elapsed());
    Ok(response)
}

/// Reads and checks a request, whose answer may be what the client accepts.
pub(super) async fn plan<D: Send + 'static>(
    state: &Arc<AppState>,
    engine: &Engine,
    (Head { headers, uri }, accept): (Head<'_>, Accept),
    body: Body,
    parse: Parse<D>,
) -> Result<Planned<D>, ApiError> {
    let arrived = Instant::now();
    let bytes = body::read(headers, body, state.settings.max_body_bytes, state.settings.body_timeout).await?;
    let host = host(headers, uri);
    let (state, engine) = (Arc::clone(state), engine.clone());
    let read =
        move |rules: RequestRules<'_>, bytes: &[u8]| parse(&RequestRules { accept, ..rules }, &body::parse(bytes)?);
    let small = if bytes.len() <= SMALL_BODY_BYTES { Some(read(state.rules(&engine), &bytes)?) } else { None };
    let plan = move || {
        let request = small.map_or_else(|| read(state.rules(&engine), &bytes), Ok)?;
        let GenerationRequest { mut image, output: options, previews, delivery } = request;
        if image.num_inference_steps.is_none() {
            image.num_inference_steps = options.quality.steps(engine.model().default_steps);
        }
        tracing::debug!(prompt = image.prompt, negative_prompt = image.negative_prompt, seed = image.seed, "asked for");
        let (seed, prompt, negative_prompt) = (image.seed, image.prompt.clone(), image.negative_prompt.clone());
        let job = engine.plan(image)?.with_previews(previews);
        let metadata = state.settings.image_metadata.then(|| {
            let model = state.served_model(&engine).to_owned();
            ImageMetadata { prompt, negative_prompt, ..ImageMetadata::of_job(model, &job) }
        });
        let store = match options.response_format.is_stored() {
            true => stored_output(&state, host.as_deref()),
            false => None,
        };
        if store.is_none() && options.response_format == ResponseFormat::Url {
            return Err(output::no_address());
        }
        Ok(Planned { job, seed, output: Output { options, metadata, store }, arrived, delivery })
    };
    blocking::run(plan).await?
}

/// Hands a request to the engine.
pub(super) fn submit<D>(
    state: &Arc<AppState>,
    engine: &Engine,
    planned: Planned<D>,
    admitted: Admitted,
) -> Result<Accepted, ApiError> {
    let Planned { job, seed, output, arrived, .. } = planned;
    // Taken before the job is submitted, so that a server that ends never overlooks an accepted job.
    let unanswered = state.generation_accepted();
    let ticket = engine.submit(job)?;
    let guards = (unanswered, state.metrics.job_accepted(), admitted);
    Ok(Accepted { state: Arc::clone(state), ticket, arrived, seed, output: Arc::new(output), guards })
}

/// The server as this client calls it: in HTTP/1 by a header, in HTTP/2 by `:authority`, which is part of the URI.
fn host(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let header = headers.get(HOST).and_then(|host| host.to_str().ok());
    header.or(uri.authority().map(Authority::as_str)).map(str::to_owned)
}

/// The store, and its address as this client knows it, if there are both.
fn stored_output(state: &AppState, host: Option<&str>) -> Option<StoredOutput> {
    let store = state.settings.store.clone()?;
    let root_path = &state.settings.root_path;
    let base_url = match &state.settings.public_url {
        Some(url) => url.with_root_path(root_path),
        None => PublicUrl::of_host(host?)?.with_root_path(root_path),
    };
    Some(StoredOutput { store, base_url })
}
