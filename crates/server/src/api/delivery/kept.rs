//! Pictures that are kept for a client that asks for them later, and the task of one such job: it takes previews and the
//! result from the ticket and puts them into the store.
//!
//! It holds the request's place among the unanswered ones until the outcome has been delivered, because a server that
//! shuts down waits for those: nobody could fetch it later. Afterwards it only waits until the job is forgotten.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use afterimage_runner::{Preview, Ticket};
use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::accepted::{Accepted, Guards};
use super::previews;
use crate::api::answer::events::PartialImage;
use crate::api::answer::output::Output;
use crate::api::answer::response;
use crate::api::error::ApiError;
use crate::api::job_store::{Ending, JobObject, RunningJob};
use crate::api::request_log::generation::GenerationRecord;
use crate::api::state::AppState;
use crate::api::{blocking, paths};

/// Answers where the job will be found, and leaves it to its task.
pub(super) fn respond(accepted: Accepted, job: RunningJob, object: JobObject, record: GenerationRecord) -> Response {
    let location = format!("{}{}/{}", accepted.state.settings.root_path.as_str(), paths::JOBS, object.id);
    // Tracked: `accepted` has a token that a server waits for when it shuts down.
    tokio::spawn(run(accepted, job, record).in_current_span());
    (StatusCode::ACCEPTED, [(LOCATION, location)], Json(object)).into_response()
}

/// From acceptance until the job is forgotten.
async fn run(accepted: Accepted, job: RunningJob, mut record: GenerationRecord) {
    let Accepted { state, ticket, arrived, output, guards, .. } = accepted;
    let Guards { unanswered, in_flight, admitted } = guards;
    let making = Making { state: &state, job: &job, output, arrived };
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
    // A job that was deleted at the last moment stays cancelled.
    let has_ended_so = state.jobs.end(&job.id, ending);
    match end {
        Some(end) if has_ended_so => record.ends(end.as_ref()),
        _ => drop(record),
    }
    // The work is done: the client may ask for more, even if the outcome has not been fetched yet.
    drop((in_flight, admitted));
    state.jobs.keep_ended(&job, unanswered).await;
}

/// What the pictures of a job are made with.
struct Making<'a> {
    state: &'a AppState,
    job: &'a RunningJob,
    output: Arc<Output>,
    arrived: Instant,
}

impl Making<'_> {
    async fn run(&self, mut ticket: Ticket, record: &mut GenerationRecord) -> Result<Bytes, ApiError> {
        let mut previews = ticket.previews();
        let mut finished = pin!(ticket.finished());
        let finished = loop {
            tokio::select! {
                biased;
                // Before previews: once the result is there, nobody needs them any more.
                finished = &mut finished => break finished?,
                Some(preview) = previews::next(&mut previews) => {
                    let (index, output) = (preview.image, Arc::clone(&self.output));
                    let object = blocking::run(move || partial_image(&preview, &output)).await??;
                    self.state.jobs.show(&self.job.id, index, object);
                }
            }
        };
        let samples = self.state.count_finished(&finished);
        record.has_finished(&finished);
        let answer = response::body(finished, Arc::clone(&self.output), self.arrived).await?;
        self.state.metrics.generation_answered(self.arrived.elapsed());
        self.state.sample(samples);
        Ok(answer.into())
    }
}

fn partial_image(preview: &Preview, output: &Output) -> Result<Bytes, ApiError> {
    let object = serde_json::to_vec(&PartialImage::new(preview, output)?);
    object.map(Bytes::from).map_err(|error| ApiError::Internal(error.to_string()))
}
