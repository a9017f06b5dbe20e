//! What an answer says of the parts of its request that were not done as they were asked for.

use std::borrow::Cow;

use afterimage_runner::{FinishedRequest, RequestWarning};
use serde::Serialize;
use utoipa::ToSchema;

/// A part of the request that was not done as asked
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Warning<'a> {
    /// The request field, dotted
    param: &'a str,
    /// `prompt_truncated`: a text encoder takes fewer tokens; `not_stored`: pictures have no URLs; `nearest_label`:
    /// the prompt is no label, and the nearest one was drawn; `mask_shorter_than_steps`: the steps past its end are
    /// decided without it; `cache_key_left_out`: a key of the server's own cache configuration does not fit the
    /// request's steps; `auto_uncached`: there is no measured setting to choose, so there was no cache;
    /// `auto_measured_otherwise`: the chosen setting was measured at another size, precision or guidance
    code: &'static str,
    message: Cow<'a, str>,
}

impl Warning<'_> {
    /// The server gives URLs, and could not.
    pub(super) fn not_stored(message: String) -> Self {
        Self { param: "response_format", code: "not_stored", message: message.into() }
    }
}

/// The warnings of a request.
pub(super) fn of_request<'a>(finished: &'a FinishedRequest) -> Vec<Warning<'a>> {
    let warnings = finished.warnings.iter();
    let warning = |warning: &'a RequestWarning| Warning {
        param: &warning.param,
        code: warning.code,
        message: (&*warning.message).into(),
    };
    warnings.map(warning).collect()
}
