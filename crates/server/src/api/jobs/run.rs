//! The task of one job: it takes previews and the result from the ticket and puts them into the store.
//!
//! It holds the request's place among the unanswered ones until the job has ended; on a server that is
//! ending until the outcome has been fetched too, because nobody could fetch it later. Afterwards it
//! only waits for the day the job is forgotten.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use afterimage_runner::{FinishedJob, Preview, Ticket};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::kept_job::{Ending, RunningJob};
use crate::api::error::ApiError;
use crate::api::generation_events::PartialImage;
use crate::api::generation_response;
use crate::api::generations::Accepted;
use crate::api::state::AppState;
use crate::metrics::{GenerationRecord, Outcome};

/// From acceptance until the job is forgotten.
pub(super) async fn run(accepted: Accepted, job: RunningJob, record: GenerationRecord) {
    let Accepted { state, ticket, arrived, seed, guards: (unanswered, in_flight, admitted) } = accepted;
    let result = tokio::select! {
        biased;
        // The record counts as cancelled when it is dropped.
        () = job.cancelled() => None,
        result = make(&state, &job, ticket, seed, arrived) => Some(result),
    };
    let (ending, outcome) = match result {
        None => (Ending::Cancelled, Outcome::Cancelled),
        Some(Ok(answer)) => (Ending::Succeeded(answer), Outcome::Ok),
        Some(Err(error)) => (Ending::Failed(error.tell()["error"].take()), error.outcome()),
    };
    // A job that was deleted in the last moment stays cancelled.
    let has_ended_so = state.jobs.end(&job.id, ending);
    record.ends(if has_ended_so { outcome } else { Outcome::Cancelled });
    drop((in_flight, admitted));
    if state.is_ending() {
        job.settled().await;
    }
    drop(unanswered);
    tokio::select! {
        () = tokio::time::sleep(state.jobs.retention()) => state.jobs.forget(&job.id),
        () = job.forgotten() => {}
    }
}

async fn make(
    state: &AppState,
    job: &RunningJob,
    mut ticket: Ticket,
    seed: u64,
    arrived: Instant,
) -> Result<Arc<RawValue>, ApiError> {
    let mut previews = ticket.previews();
    let mut finished = pin!(ticket.finished());
    let finished = loop {
        tokio::select! {
            biased;
            finished = &mut finished => break finished?,
            Some(preview) = next(&mut previews) => {
                let index = preview.image;
                let object = tokio::task::spawn_blocking(move || partial_image(&preview, seed)).await??;
                state.jobs.show(&job.id, index, object);
            }
        }
    };
    state.count_job(&finished);
    let answer = tokio::task::spawn_blocking(move || answer(&finished, arrived)).await??;
    state.metrics.generation_answered(arrived.elapsed());
    Ok(answer)
}

async fn next(previews: &mut Option<mpsc::Receiver<Preview>>) -> Option<Preview> {
    previews.as_mut()?.recv().await
}

fn partial_image(preview: &Preview, seed: u64) -> Result<Arc<RawValue>, ApiError> {
    let object = serde_json::value::to_raw_value(&PartialImage::new(preview, seed)?);
    object.map(Arc::from).map_err(|error| ApiError::Internal(error.to_string()))
}

fn answer(finished: &FinishedJob, arrived: Instant) -> Result<Arc<RawValue>, ApiError> {
    let body = generation_response::body(finished, arrived)?;
    let body = String::from_utf8(body).map_err(|error| ApiError::Internal(error.to_string()))?;
    RawValue::from_string(body).map(Arc::from).map_err(|error| ApiError::Internal(error.to_string()))
}
