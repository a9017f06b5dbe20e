//! How an accepted request gets its pictures to its client: in one answer ([`whole`]), as a stream ([`stream`]), or
//! kept for a client that asks for them later ([`kept`]).

mod accepted;
mod kept;
mod previews;
mod stream;
mod underway;
mod whole;

use axum::response::Response;

use super::error::ApiError;
use super::job_store::{JobObject, RunningJob};
use super::request_log::generation::GenerationRecord;

pub(super) use accepted::{Accepted, Deadline, Guards};

/// How one request is answered: the [`Delivery`](crate::request::Delivery) it asked for, with what that needs.
pub(super) enum Way {
    Whole,
    Stream {
        /// As events, not only as comments.
        progress: bool,
    },
    Kept(RunningJob, Box<JobObject>),
}

/// Answers a request. The record ends when the pictures are delivered, or kept.
pub(super) async fn deliver(accepted: Accepted, way: Way, record: GenerationRecord) -> Result<Response, ApiError> {
    match way {
        Way::Whole => whole::respond(accepted, record).await,
        Way::Stream { progress } => Ok(stream::respond(accepted, progress, record)),
        Way::Kept(job, object) => Ok(kept::respond(accepted, job, *object, record)),
    }
}
