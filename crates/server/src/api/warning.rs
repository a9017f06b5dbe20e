//! What an answer says of the parts of its request that had no effect.

use afterimage_runner::FinishedJob;
use serde::Serialize;
use utoipa::ToSchema;

/// A part of the request that had no effect
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Warning<'a> {
    /// The request field
    param: &'static str,
    /// `prompt_truncated`: a text encoder takes fewer tokens
    code: &'static str,
    message: &'a str,
}

/// The warnings of a job, one per field and encoder.
pub(super) fn of_job(job: &FinishedJob) -> Vec<Warning<'_>> {
    let warnings = job.warnings.iter();
    warnings.map(|warning| Warning { param: warning.param, code: warning.code, message: &warning.message }).collect()
}
