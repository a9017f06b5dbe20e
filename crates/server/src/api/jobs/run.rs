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
use crate::api::blocking;
use crate::api::error::ApiError;
use crate::api::generation_events::PartialImage;
use crate::api::generation_record::GenerationRecord;
use crate::api::generation_response;
use crate::api::generations::Accepted;
use crate::api::output::Output;
use crate::api::state::AppState;

/// From acceptance until the job is forgotten.
pub(super) async fn run(accepted: Accepted, job: RunningJob, mut record: GenerationRecord) {
    let Accepted { state, ticket, arrived, seed, output, guards: (unanswered, in_flight, admitted) } = accepted;
    let making = Making { state: &state, job: &job, output, seed, arrived };
    let result = tokio::select! {
        biased;
        // The record counts as cancelled when it is dropped.
        () = job.cancelled() => None,
        result = making.run(ticket, &mut record) => Some(result),
    };
    let (ending, end) = match result {
        None => (Ending::Cancelled, None),
        Some(Ok(answer)) => (Ending::Succeeded(answer), Some(Ok(()))),
        Some(Err(error)) => (Ending::Failed(error.tell()), Some(Err(error))),
    };
    // A job that was deleted in the last moment stays cancelled.
    let has_ended_so = state.jobs.end(&job.id, ending);
    match end {
        Some(end) if has_ended_so => record.ends(end.as_ref()),
        _ => drop(record),
    }
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

/// What the pictures of a job are made with.
struct Making<'a> {
    state: &'a AppState,
    job: &'a RunningJob,
    output: Arc<Output>,
    seed: u64,
    arrived: Instant,
}

impl Making<'_> {
    async fn run(&self, mut ticket: Ticket, record: &mut GenerationRecord) -> Result<Arc<RawValue>, ApiError> {
        let mut previews = ticket.previews();
        let mut finished = pin!(ticket.finished());
        let finished = loop {
            tokio::select! {
                biased;
                finished = &mut finished => break finished?,
                Some(preview) = next(&mut previews) => {
                    let (index, seed, output) = (preview.image, self.seed, Arc::clone(&self.output));
                    let object = blocking::run(move || partial_image(&preview, seed, &output)).await??;
                    self.state.jobs.show(&self.job.id, index, object);
                }
            }
        };
        self.state.count_job(&finished);
        record.has_job(&finished);
        let (arrived, output) = (self.arrived, Arc::clone(&self.output));
        let answer = blocking::run(move || answer(&finished, &output, arrived)).await??;
        self.state.metrics.generation_answered(arrived.elapsed());
        Ok(answer)
    }
}

async fn next(previews: &mut Option<mpsc::Receiver<Preview>>) -> Option<Preview> {
    previews.as_mut()?.recv().await
}

fn partial_image(preview: &Preview, seed: u64, output: &Output) -> Result<Arc<RawValue>, ApiError> {
    let object = serde_json::value::to_raw_value(&PartialImage::new(preview, seed, output)?);
    object.map(Arc::from).map_err(|error| ApiError::Internal(error.to_string()))
}

fn answer(finished: &FinishedJob, output: &Output, arrived: Instant) -> Result<Arc<RawValue>, ApiError> {
    let body = generation_response::body(finished, output, arrived)?;
    let body = String::from_utf8(body).map_err(|error| ApiError::Internal(error.to_string()))?;
    RawValue::from_string(body).map(Arc::from).map_err(|error| ApiError::Internal(error.to_string()))
}
