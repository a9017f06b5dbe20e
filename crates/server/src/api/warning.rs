//! What an answer says of the parts of its request that had no effect.

use std::borrow::Cow;

use afterimage_runner::{FinishedJob, RequestWarning};
use serde::Serialize;
use utoipa::ToSchema;

/// A part of the request that had no effect
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Warning<'a> {
    /// The request field
    param: &'static str,
    /// `prompt_truncated`: a text encoder takes fewer tokens; `not_stored`: pictures have no URLs
    code: &'static str,
    message: Cow<'a, str>,
}

impl Warning<'_> {
    /// The server gives URLs, and could not.
    pub(super) fn not_stored(message: String) -> Self {
        Self { param: "response_format", code: "not_stored", message: message.into() }
    }
}

/// The warnings of a job, one per field and encoder.
pub(super) fn of_job<'a>(job: &'a FinishedJob) -> Vec<Warning<'a>> {
    let warnings = job.warnings.iter();
    let warning = |warning: &'a RequestWarning| Warning {
        param: warning.param,
        code: warning.code,
        message: (&*warning.message).into(),
    };
    warnings.map(warning).collect()
}
